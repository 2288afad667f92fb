"""A machine without data, and a server that has the look-alike of MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from look_alike import Server

from grokfast.data import mirrors


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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("GROKFAST_MNIST_MIRROR", running.mirror("good"))
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()
