"""A small data set like MNIST, with its own digests, and a server on 127.0.0.1 that has it."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from grokfast.data import mnist
from grokfast.data.mnist import Files, FileSpec, verify_mnist

NAMES = [spec.name for spec in mnist.MNIST]
SHAPES = [(7, 3, 2), (7,), (5, 3, 2), (5,)]


def look_alike() -> tuple[Files, dict[str, bytes]]:
    """Incompressible data, so that a cut in the middle is a cut in the middle of the gzip."""
    rng = np.random.default_rng(1)
    contents = {}
    for name, shape in zip(NAMES, SHAPES, strict=True):
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        contents[name] = header + rng.integers(0, 256, shape, dtype=np.uint8).tobytes()
    specs = (
        FileSpec(name, shape, hashlib.sha256(contents[name]).hexdigest())
        for name, shape in zip(NAMES, SHAPES, strict=True)
    )
    return Files(*specs), contents


FILES, CONTENTS = look_alike()
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
IMAGES = NAMES[0]
# Of the training images: the last bit turned, and a gzip that is far larger than it says.
ONE_BIT = CONTENTS[IMAGES][:-1] + bytes([CONTENTS[IMAGES][-1] ^ 1])
BOMB = gzip.compress(bytes(1 << 24))

# What a child process needs to fetch the same look-alike data set.
CHILD = f"""
import os, signal, sys
from pathlib import Path
from grokfast.data import mnist
files = mnist.Files(*(mnist.FileSpec(*s) for s in {[(s.name, s.shape, s.sha256) for s in FILES]}))
"""


def put(folder: Path, packed: bool = True, **replaced: bytes) -> Path:
    """Writes the data set into a folder; ``images=...`` replaces the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        content = PACKED[f"{name}.gz"] if packed else CONTENTS[name]
        if name == IMAGES:
            content = replaced.get("images", content)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(content)
    return folder


Reply = Callable[[BaseHTTPRequestHandler, str], None]


def send(handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def serve(handler: BaseHTTPRequestHandler, name: str) -> None:
    send(handler, PACKED[name])


class Server:
    """Answers each path ``/<mirror>/<file>`` by the reply of that mirror; keeps the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.replies: dict[str, Reply] = {"good": serve}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                _, mirror, name = self.path.split("/")
                outer.replies[mirror](self, name)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def mirror(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}/"


def assert_complete(folder: Path, data_only: bool = True) -> None:
    assert {str(s) for s in verify_mnist(folder, files=FILES).values()} == {"ok"}
    if data_only:
        assert len(list(folder.iterdir())) == 4, "leftovers"
