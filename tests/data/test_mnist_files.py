"""MNIST on disk and over the wire: search order, damage, downloads that fail in every way.

A server on 127.0.0.1 serves a small look-alike data set with its own digests; nothing here
reaches the network, and only the tests with ``shared`` read the real files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from grokfast.data import mirrors, mnist
from grokfast.data.idx import BadFile
from grokfast.data.mnist import (
    Files,
    FileSpec,
    fetch_mnist,
    find_mnist,
    load_mnist,
    verify_mnist,
)
from grokfast.errors import EnvironmentProblem

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

# What a child process needs to fetch the same look-alike data set.
CHILD = f"""
import os, signal, sys
from pathlib import Path
from grokfast.data import mnist
files = mnist.Files(*(mnist.FileSpec(*s) for s in {[(s.name, s.shape, s.sha256) for s in FILES]}))
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without data and without mirrors; returns the folder of our cache."""
    for name in ("GROKFAST_DATA", "GROKFAST_MNIST_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(mirrors, "MIRRORS", ("http://127.0.0.1:9/",))  # nobody listens there
    return tmp_path / "xdg" / "grokfast" / "mnist"


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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", running.mirror("good"))
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()


def assert_complete(folder: Path, data_only: bool = True) -> None:
    assert {str(s) for s in verify_mnist(folder, files=FILES).values()} == {"ok"}
    if data_only:
        assert len(list(folder.iterdir())) == 4, "leftovers"


# ---- search


def test_nothing_on_this_machine(machine: Path) -> None:
    assert find_mnist(files=FILES) is None


@pytest.mark.parametrize("packed", [False, True])
def test_order_of_the_places(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    """Adding better places one by one, each is found before the ones already there."""
    named, variable = tmp_path / "named", tmp_path / "variable"
    cached_torchvision = tmp_path / "xdg/torchvision/MNIST/raw"
    for place in (machine, cached_torchvision, Path("data/MNIST/raw").absolute()):
        put(place, packed)
        assert find_mnist(files=FILES) == place
    put(variable, packed)
    monkeypatch.setenv("GROKFAST_DATA", str(variable))
    assert find_mnist(files=FILES) == variable
    assert find_mnist(named, files=FILES) == variable
    put(named, packed)
    assert find_mnist(named, files=FILES) == named
    assert find_mnist(str(named), files=FILES) == named


def test_a_torchvision_root_may_be_named(tmp_path: Path) -> None:
    raw = put(tmp_path / "root/MNIST/raw", packed=False)
    assert find_mnist(tmp_path / "root", files=FILES) == raw
    assert fetch_mnist(tmp_path / "root", files=FILES) == raw
    assert_complete(tmp_path / "root", data_only=False)


def test_tilde_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "m")
    assert find_mnist("~/m", files=FILES) == tmp_path / "m"
    assert (find_mnist("../m", files=FILES) or Path()).resolve() == tmp_path / "m"
    with pytest.raises(EnvironmentProblem, match="cannot expand"):
        find_mnist("~no-such-user-at-all/m", files=FILES)


def test_relative_xdg_is_ignored_and_home_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert mnist._user_cache() == tmp_path / ".cache"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mnist._user_cache() == tmp_path / "Library" / "Caches"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert mnist._user_cache() == tmp_path / "local"


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(mnist.Path, "home", no_home)
    monkeypatch.setattr(sys, "platform", "linux")
    assert find_mnist(files=FILES) is None
    with pytest.raises(EnvironmentProblem, match="no home folder"):
        load_mnist(files=FILES)


def test_incomplete_places_are_passed_over(machine: Path, tmp_path: Path) -> None:
    put(tmp_path / "half")
    (tmp_path / "half" / f"{IMAGES}.gz").unlink()
    assert find_mnist(tmp_path / "half", files=FILES) is None
    put(machine)
    assert find_mnist(tmp_path / "half", files=FILES) == machine


# ---- arrays


@pytest.mark.parametrize("packed", [False, True])
def test_arrays(tmp_path: Path, packed: bool) -> None:
    arrays = load_mnist(put(tmp_path / "m", packed), download=False, files=FILES)
    for array, name, shape in zip(arrays, NAMES, SHAPES, strict=True):
        assert array.dtype == np.uint8 and array.shape == shape and array.flags.writeable
        assert CONTENTS[name].endswith(array.tobytes())
    assert arrays.train_images is arrays[0] and arrays.test_labels is arrays[3]


# ---- damage

BOMB = gzip.compress(bytes(1 << 24))

DAMAGE = {
    "truncated plain": (CONTENTS[IMAGES][:-3], "truncated: 55 bytes, the header promises 58"),
    "truncated gzip": (PACKED[f"{IMAGES}.gz"][:-20], "gzip stream ends early"),
    "one bit": (CONTENTS[IMAGES][:-1] + bytes([CONTENTS[IMAGES][-1] ^ 1]), "wrong SHA-256"),
    "wrong magic": (b"\x80\x02" + CONTENTS[IMAGES][2:], "wrong magic number"),
    "labels for images": (CONTENTS[NAMES[1]], "holds uint8 [7], not uint8 [7, 3, 2]"),
    "too large": (CONTENTS[IMAGES] + b"\0", "wrong size: more than 58 bytes"),
    "bomb": (BOMB, "wrong size: more than 58 bytes"),
    "page": (b"<!DOCTYPE html>\n<title>Sign in</title>", "HTML"),
    "empty": (b"", "too few for a header"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", ["data_dir", "GROKFAST_DATA"])
def test_damage_in_a_named_folder_is_an_error(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, damage: str, where: str
) -> None:
    content, reason = DAMAGE[damage]
    bad = put(tmp_path / "bad", images=content)
    put(machine)  # a good copy elsewhere does not hide it
    data_dir = bad if where == "data_dir" else None
    if where == "GROKFAST_DATA":
        monkeypatch.setenv("GROKFAST_DATA", str(bad))
    for call in (find_mnist, fetch_mnist, load_mnist):
        with pytest.raises(BadFile) as caught:
            call(data_dir, files=FILES)
        assert str(bad / f"{IMAGES}.gz") in str(caught.value) and reason in str(caught.value)
        assert caught.value.exit_code == 3 and caught.value.hint
    assert (bad / f"{IMAGES}.gz").read_bytes() == content, "the user's file was touched"
    statuses = verify_mnist(bad, files=FILES)
    assert statuses[IMAGES].state == "bad" and reason in str(statuses[IMAGES])
    assert [statuses[name].state for name in NAMES[1:]] == ["ok"] * 3


def test_damage_in_torchvisions_folder_is_a_warning(machine: Path) -> None:
    bad = put(Path("data/MNIST/raw").absolute(), images=DAMAGE["one bit"][0])
    put(machine)
    with pytest.warns(UserWarning, match=re.escape(str(bad / IMAGES)) + r".*wrong SHA-256"):
        assert find_mnist(files=FILES) == machine


@pytest.mark.parametrize("packed", [False, True])
def test_damage_in_our_cache_is_replaced(server: Server, machine: Path, packed: bool) -> None:
    put(machine, packed, images=DAMAGE["one bit"][0])
    with pytest.warns(UserWarning, match="passed over.*wrong SHA-256"):
        assert load_mnist(files=FILES).train_images.shape == (7, 3, 2)
    assert server.paths == [f"/good/{IMAGES}.gz"], "only the bad file is downloaded"
    assert_complete(machine)


def test_damage_is_named_when_nothing_else_is_there(machine: Path) -> None:
    put(machine, images=DAMAGE["page"][0])
    with (
        pytest.warns(UserWarning),
        pytest.raises(EnvironmentProblem, match=re.escape(f"{IMAGES}.gz") + ".*HTML"),
    ):
        load_mnist(download=False, files=FILES)


def test_verify_names_all_four(tmp_path: Path) -> None:
    statuses = verify_mnist(tmp_path / "nowhere", files=FILES)
    assert {name: str(status) for name, status in statuses.items()} == dict.fromkeys(
        NAMES, "missing"
    )
    assert statuses[IMAGES].path is None
    folder = put(tmp_path / "m")
    (folder / f"{NAMES[1]}.gz").unlink()
    (folder / f"{NAMES[2]}.gz").unlink()
    (folder / f"{NAMES[2]}.gz").symlink_to(tmp_path / "gone")
    states = [s.state for s in verify_mnist(folder, files=FILES).values()]
    assert states == ["ok", "missing", "bad", "ok"]


# ---- offline


def test_offline_is_one_message_with_all_that_is_needed(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("GROKFAST_DATA", str(tmp_path / "variable"))
    put(tmp_path / "named")
    (tmp_path / "named" / f"{IMAGES}.gz").unlink()
    for download in (False, True):
        with pytest.raises(EnvironmentProblem) as caught:
            load_mnist(tmp_path / "named", download, files=FILES)
        text = str(caught.value)
        assert caught.value.exit_code == 3 and "\n" not in text
        assert f"named (data_dir): lacks {IMAGES}" in text
        for place in (tmp_path / "variable", Path("data/MNIST/raw").absolute(), machine):
            assert f"{place} (" in text
        assert all(name in text for name in NAMES)
        assert f"into {tmp_path / 'named'}" in text and "GROKFAST_DATA" in text
        assert ("nothing was downloaded" if not download else "Connection refused") in text
        assert capsys.readouterr() == ("", ""), "one message: the exception's"


def test_switched_off_means_no_connection(server: Server, machine: Path) -> None:
    with pytest.raises(EnvironmentProblem):
        load_mnist(download=False, files=FILES)
    assert server.paths == [] and not machine.exists()


# ---- download


def test_download_to_the_cache(
    server: Server, machine: Path, capsys: pytest.CaptureFixture
) -> None:
    assert load_mnist(files=FILES).test_labels.shape == (5,)
    assert_complete(machine)
    for name in PACKED:
        assert (machine / name).read_bytes() == PACKED[name]
        assert (machine / name).stat().st_mode & 0o777 == 0o666 & ~umask()
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err
    assert len(err.splitlines()) == 4 and all(name in err for name in PACKED)
    server.paths.clear()
    assert fetch_mnist(files=FILES) == machine
    assert server.paths == [], "what is there is not downloaded again"


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("where", ["data_dir", "GROKFAST_DATA"])
def test_download_to_a_named_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = tmp_path / "deep" / "down"
    if where == "GROKFAST_DATA":
        monkeypatch.setenv(where, str(folder))
    assert fetch_mnist(folder if where == "data_dir" else None, files=FILES) == folder
    assert_complete(folder)


def test_a_named_folder_is_filled_from_this_machine(
    server: Server, machine: Path, tmp_path: Path
) -> None:
    put(machine, packed=False)
    folder = tmp_path / "named"
    assert fetch_mnist(folder, files=FILES) == folder
    assert_complete(folder)
    assert server.paths == []


def test_only_missing_files_are_downloaded(server: Server, tmp_path: Path) -> None:
    folder = put(tmp_path / "m", packed=False)
    (folder / NAMES[3]).unlink()
    fetch_mnist(folder, files=FILES)
    assert server.paths == [f"/good/{NAMES[3]}.gz"]
    assert_complete(folder)


def test_a_server_that_unpacks_on_the_way(server: Server, machine: Path) -> None:
    server.replies["good"] = lambda handler, name: send(handler, CONTENTS[name[:-3]])
    assert fetch_mnist(files=FILES) == machine
    assert sorted(path.name for path in machine.iterdir()) == sorted(NAMES)


def test_a_chunked_answer_without_length(server: Server, machine: Path) -> None:
    def close_delimited(handler: BaseHTTPRequestHandler, name: str) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(PACKED[name])

    server.replies["good"] = close_delimited
    fetch_mnist(files=FILES)
    assert_complete(machine)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch_mnist(files=FILES)
    assert "\r" in terminal.getvalue() and "100%" in terminal.getvalue()


# ---- downloads that fail


def status(code: int) -> Reply:
    return lambda handler, name: handler.send_error(code)


def redirect(to: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler, name: str) -> None:
        handler.send_response(302)
        handler.send_header("Location", to + name)
        handler.end_headers()

    return reply


def trickle(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(250):
        handler.wfile.write(b"\x1f")
        handler.wfile.flush()
        time.sleep(0.02)


def cut_without_length(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(PACKED[name][:30])


def no_http(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.wfile.write(b"hello\r\n")


def flood(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(64):
        handler.wfile.write(bytes(1 << 16))


FAULTS: dict[str, tuple[Reply, str]] = {
    "not found": (status(404), "HTTP status 404"),
    "server error": (status(503), "HTTP status 503"),
    "cut": (
        lambda handler, name: send(handler, PACKED[name][:30], len(PACKED[name])),
        r"connection cut after 30 of \d+ bytes",
    ),
    "cut without a length": (cut_without_length, "gzip stream ends early"),
    "cut before the header": (lambda handler, name: None, "RemoteDisconnected"),
    "no http": (no_http, "BadStatusLine"),
    "wrong bytes": (
        lambda handler, name: send(handler, gzip.compress(DAMAGE["one bit"][0])),
        "wrong SHA-256",
    ),
    "page": (lambda handler, name: send(handler, b"<html>Sign in</html>"), "HTML"),
    "bomb": (lambda handler, name: send(handler, BOMB), "more than 58"),
    "flood": (flood, "too large"),
    "silence": (lambda handler, name: time.sleep(4), "timed out"),
    "trickle": (trickle, "not finished after"),
    "redirect to http": (redirect("http://example.invalid/"), "not https"),
    "redirect to a file": (redirect("file:///etc/"), "HTTP status 302"),
    "redirect to ftp": (redirect("ftp://127.0.0.1/"), "not https"),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Short waits where waiting is the point, none elsewhere: test machines can be slow."""
    if fault == "silence":
        monkeypatch.setattr(mirrors, "TIMEOUT_S", 1.0)
    if fault == "trickle":
        monkeypatch.setattr(mirrors, "DEADLINE_S", 1.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_download_leaves_nothing(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch, impatient: None, fault: str
) -> None:
    server.replies["bad"], reason = FAULTS[fault]
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", server.mirror("bad"))
    with pytest.raises(EnvironmentProblem) as caught:
        fetch_mnist(files=FILES)
    text = str(caught.value)
    assert re.search(reason, text), text
    assert f"{server.mirror('bad')}{IMAGES}.gz" in text and "\n" not in text
    assert caught.value.exit_code == 3
    assert list(machine.iterdir()) == [] and len(server.paths) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_the_second_mirror_helps(
    server: Server,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    impatient: None,
    fault: str,
) -> None:
    server.replies["bad"], reason = FAULTS[fault]
    monkeypatch.delenv("GROKFAST_MNIST_MIRROR")
    monkeypatch.setattr(mirrors, "MIRRORS", (server.mirror("bad"), server.mirror("good")))
    assert fetch_mnist(files=FILES) == machine
    assert_complete(machine)
    asked = [path.split("/")[1] for path in server.paths]
    assert asked == ["bad", "good", "good", "good", "good"], "the bad one is asked once"
    assert re.search(rf"mirror refused: .*bad/{IMAGES}\.gz: .*{reason}", capsys.readouterr().err)


def test_a_file_that_fails_midway_keeps_the_ones_before(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three(handler: BaseHTTPRequestHandler, name: str) -> None:
        serve(handler, name) if name != f"{NAMES[3]}.gz" else handler.send_error(500)

    server.replies["three"] = three
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", server.mirror("three"))
    with pytest.raises(EnvironmentProblem, match="500"):
        fetch_mnist(files=FILES)
    assert len(list(machine.iterdir())) == 3
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", server.mirror("good"))
    server.paths.clear()
    fetch_mnist(files=FILES)
    assert server.paths == [f"/good/{NAMES[3]}.gz"]


def test_a_redirect_on_localhost_is_followed(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies["moved"] = redirect(server.mirror("good"))
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", server.mirror("moved"))
    fetch_mnist(files=FILES)
    assert_complete(machine)


def test_a_proxy_is_not_asked_for_localhost(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    fetch_mnist(files=FILES)
    assert_complete(machine)


@pytest.mark.parametrize(
    "mirror",
    [
        "http://example.org/mnist/",
        "http://127.0.0.1.example.org/",
        "http://localhost@example.org/",
        "https://user:secret@example.org/",
        "https://example.org/?token=secret",
        "https://",
        "https://example.org:secret/",
        "https://example.org/a b",
        "https://[example/",
        "ftp://example.org/",
        "file:///secret/",
        "/secret",
    ],
)
def test_mirrors_that_are_refused(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    def no_network(*args: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(mirrors, "chunks", no_network)
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", mirror)
    with pytest.raises(EnvironmentProblem, match="GROKFAST_MNIST_MIRROR is refused") as caught:
        fetch_mnist(files=FILES)
    assert "secret" not in str(caught.value), "it may be a password"


def test_mirrors_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for mirror in ("https://example.org/mnist", "http://localhost:8000/", "http://[::1]:80/x"):
        monkeypatch.setenv("GROKFAST_MNIST_MIRROR", mirror)
        assert mirrors.mirrors() == [mirror.rstrip("/") + "/"]


def test_published_mirrors_are_https() -> None:
    fresh = subprocess.run(
        [sys.executable, "-c", "from grokfast.data import mirrors; print(*mirrors.MIRRORS)"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split()  # fmt: skip
    assert len(fresh) == 2 and all(mirror.startswith("https://") for mirror in fresh)
    assert not mirrors.allowed("http://localhost/", localhost=False), "redirects leave https"


# ---- disk


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="cannot write MNIST to") as caught:
        fetch_mnist(tmp_path / "file" / "below", files=FILES)
    assert caught.value.hint and server.paths == []


def test_a_full_disk(server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        fetch_mnist(files=FILES)
    assert list(machine.iterdir()) == []
    assert len(server.paths) == 1, "another mirror cannot help"


def test_an_interrupt_leaves_nothing(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Path, to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_mnist(files=FILES)
    assert list(machine.iterdir()) == []


def child(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_between_temporary_and_rename(server: Server, machine: Path) -> None:
    process = child(
        "Path.replace = lambda self, to: os.kill(os.getpid(), signal.SIGKILL)\n"
        "mnist.fetch_mnist(files=files)"
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = machine.iterdir()
    assert leftover.name.startswith(".") and leftover.suffix == ".tmp"
    assert leftover.read_bytes() == PACKED[f"{IMAGES}.gz"], "killed after the whole was written"
    assert {s.state for s in verify_mnist(machine, files=FILES).values()} == {"missing"}

    # A young leftover may be a living writer's; an old one goes at the next fetch.
    fetch_mnist(files=FILES)
    assert leftover.exists()
    old = time.time() - 3 * mirrors.DEADLINE_S
    os.utime(leftover, (old, old))
    (machine / f"{IMAGES}.gz").unlink()
    fetch_mnist(files=FILES)
    assert_complete(machine)


def test_kill_in_the_middle_of_a_transfer(server: Server, machine: Path) -> None:
    stalled, go_on = threading.Event(), threading.Event()

    def stall(handler: BaseHTTPRequestHandler, name: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(PACKED[name])))
        handler.end_headers()
        handler.wfile.write(PACKED[name][:40])
        handler.wfile.flush()
        stalled.set()
        go_on.wait(30)

    server.replies["good"] = stall
    process = child("mnist.fetch_mnist(files=files)")
    try:
        assert stalled.wait(60)
    finally:
        process.kill()
        process.communicate(timeout=60)
        go_on.set()
    assert not [path for path in machine.iterdir() if path.suffix != ".tmp"]
    server.replies["good"] = serve
    fetch_mnist(files=FILES)
    assert_complete(machine, data_only=False)


def test_two_processes_at_once(server: Server, machine: Path) -> None:
    """Both are held inside their first transfer until the other has arrived there too."""
    both = threading.Barrier(2, timeout=60)

    def together(handler: BaseHTTPRequestHandler, name: str) -> None:
        if name == f"{IMAGES}.gz":
            both.wait()
        serve(handler, name)

    server.replies["good"] = together
    code = "print(mnist.fetch_mnist(files=files))"
    processes = [child(code) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(machine)
    assert server.paths.count(f"/good/{IMAGES}.gz") == 2
    assert_complete(machine)


def test_many_threads_at_once(server: Server, machine: Path) -> None:
    arrays: list[mnist.MnistArrays] = []
    threads = [
        threading.Thread(target=lambda: arrays.append(load_mnist(files=FILES))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(arrays) == 6
    assert_complete(machine)


# ---- the real thing


def test_table() -> None:
    """Sizes are known from the published format: a 16 or 8 byte header, then the values."""
    assert [spec.size for spec in mnist.MNIST] == [47040016, 60008, 7840016, 10008]
    assert all(re.fullmatch("[0-9a-f]{64}", spec.sha256) for spec in mnist.MNIST)


def test_digests_are_the_published_ones(shared: Path) -> None:
    readme = (shared / "data/mnist/README.md").read_text()
    for spec in mnist.MNIST:
        assert f"| {spec.name} | {spec.sha256} |" in readme


def test_the_real_files(shared: Path) -> None:
    folder = shared / "data/mnist"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_mnist(folder) == folder == fetch_mnist(folder)
        arrays = load_mnist(folder, download=False)
    assert {str(status) for status in verify_mnist(folder).values()} == {"ok"}
    assert arrays.train_images.shape == (60000, 28, 28)
    assert arrays.train_labels.shape == (60000,)
    assert arrays.test_images.shape == (10000, 28, 28)
    assert arrays.test_labels.shape == (10000,)
    assert all(array.dtype == np.uint8 for array in arrays)
    assert arrays.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert arrays.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(arrays.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # The mean that every MNIST example normalises with.
    assert arrays.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_look_alikes_are_not_mnist(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"holds uint8 \[7, 3, 2\], not uint8 \[60000, 28, 28\]"):
        find_mnist(put(tmp_path / "m"))


def test_no_torch_at_import() -> None:
    code = "import sys, grokfast.data.mnist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
