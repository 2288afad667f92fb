"""MNIST over the wire: offline, downloads, downloads that fail in every way, full disks, kills.

A server on 127.0.0.1 serves a look-alike; nothing here reaches the network.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from look_alike import (
    BOMB,
    CHILD,
    CONTENTS,
    FILES,
    IMAGES,
    NAMES,
    ONE_BIT,
    PACKED,
    Reply,
    Server,
    assert_complete,
    put,
    send,
    serve,
)

from grokfast.data import mirrors, mnist
from grokfast.data.mnist import (
    fetch_mnist,
    load_mnist,
    verify_mnist,
)
from grokfast.errors import EnvironmentProblem
from grokfast.storage.files import temporary_of

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
    mirrors.DEADLINE_S = 900.0  # this request has its deadline already; the next ones are served
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):  # until the other side has had enough
        while True:
            handler.wfile.write(b"\x1f")
            handler.wfile.flush()
            time.sleep(0.02)


def silence(handler: BaseHTTPRequestHandler, name: str) -> None:
    mirrors.TIMEOUT_S = 900.0  # likewise
    handler.connection.recv(1)  # nothing, until the other side hangs up


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
        lambda handler, name: send(handler, gzip.compress(ONE_BIT)),
        "wrong SHA-256",
    ),
    "page": (lambda handler, name: send(handler, b"<html>Sign in</html>"), "HTML"),
    "bomb": (lambda handler, name: send(handler, BOMB), "more than 58"),
    "flood": (flood, "too large"),
    "silence": (silence, "timed out"),
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
    assert not machine.parents[1].exists() and len(server.paths) == 1


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
        capture_output=True, text=True, check=True, timeout=600,
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
    assert not machine.exists()
    assert len(server.paths) == 1, "another mirror cannot help"


def test_an_interrupt_leaves_nothing(
    server: Server, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Path, to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist.Path, "replace", interrupt)
    machine.parent.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        fetch_mnist(files=FILES)
    assert not machine.exists()
    assert machine.parent.is_dir(), "it was there before"


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
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = machine.iterdir()
    assert leftover.name.startswith(".") and leftover.suffix == ".tmp"
    assert leftover.read_bytes() == PACKED[f"{IMAGES}.gz"], "killed after the whole was written"
    assert {s.state for s in verify_mnist(machine, files=FILES).values()} == {"missing"}

    # What may be a living writer's stays: of this process, of another machine; an old one goes.
    living = temporary_of(machine / IMAGES)
    far = machine / leftover.name.replace("@", "@elsewhere-")
    for other in (living, far):
        other.write_bytes(b"")
    fetch_mnist(files=FILES)
    assert not leftover.exists()
    assert living.exists() and far.exists()
    old = time.time() - 3 * mirrors.DEADLINE_S
    for other in (living, far):
        os.utime(other, (old, old))
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
        go_on.wait(600)

    server.replies["good"] = stall
    process = child("mnist.fetch_mnist(files=files)")
    try:
        assert stalled.wait(600)
    finally:
        process.kill()
        process.communicate(timeout=600)
        go_on.set()
    assert not [path for path in machine.iterdir() if path.suffix != ".tmp"]
    server.replies["good"] = serve
    fetch_mnist(files=FILES)
    assert_complete(machine, data_only=False)


def test_two_processes_at_once(server: Server, machine: Path) -> None:
    """Both are held inside their first transfer until the other has arrived there too."""
    both = threading.Barrier(2, timeout=600)

    def together(handler: BaseHTTPRequestHandler, name: str) -> None:
        if name == f"{IMAGES}.gz":
            both.wait()
        serve(handler, name)

    server.replies["good"] = together
    code = "print(mnist.fetch_mnist(files=files))"
    processes = [child(code) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=600)
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
