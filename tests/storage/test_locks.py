"""One writer a file, with and without flock."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.storage.locks import Holder, locked, writer
from grokfast.storage.processes import here


@pytest.fixture
def gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(params=["flock", errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=str)
def system(request, monkeypatch):
    """A file system with flock, and three kinds without."""

    def missing(file, how):
        raise OSError(request.param, os.strerror(request.param))

    if request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", missing)
    return request.param


def test_one_holder_at_a_time(system, tmp_path):
    path, lock = tmp_path / "a.h5", tmp_path / "a.h5.lock"
    for _ in range(2):
        with locked(path):
            told = Holder.read(lock.read_text())
            assert told == Holder.me()
            with (
                pytest.raises(UsageError, match=f"written by another run .pid {os.getpid()} on "),
                locked(path),
            ):
                pass
            assert lock.exists(), "the second one leaves the first one's lock"
        assert not list(tmp_path.iterdir())


def test_of_a_holder_that_died(system, tmp_path, gone):
    path, lock = tmp_path / "a.h5", tmp_path / "a.h5.lock"
    me = Holder.me()
    for told in (
        f"pid {gone}\n",  # as older versions wrote
        f"pid {gone} on {here()} began 1\n",
        f"pid {me.pid} on {me.host} began {me.began - 1}\n" if me.began else f"pid {gone}\n",
    ):
        lock.write_text(told)
        with locked(path):
            assert Holder.read(lock.read_text()) == me
        assert not list(tmp_path.iterdir())


def test_a_lock_that_says_nothing_is_of_nobody(system, tmp_path, monkeypatch):
    monkeypatch.setattr("grokfast.storage.locks._PATIENCE", 0.0)
    (tmp_path / "a.h5.lock").write_text("")
    with locked(tmp_path / "a.h5"):
        pass
    assert not list(tmp_path.iterdir())


def test_of_another_machine_nothing_is_known(system, tmp_path, gone):
    lock = tmp_path / "a.h5.lock"
    lock.write_text(f"pid {gone} on node7~1 began 5\n")
    if system == "flock":  # the kernel knows better
        with locked(tmp_path / "a.h5"):
            return
    says = rf"\(pid {gone} on node7\); wait for it, .*; if it has died, remove a.h5.lock"
    with pytest.raises(UsageError, match=says), locked(tmp_path / "a.h5"):
        pass
    assert lock.read_text() == f"pid {gone} on node7~1 began 5\n"


def test_two_that_find_it_abandoned_do_not_both_take_it(tmp_path, gone, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", _no_flock)
    lock = tmp_path / "a.h5.lock"
    lock.write_text(f"pid {gone} on {here()} began 1\n")
    other = f"pid {os.getpid()} on {here()} began 0\n"
    create = os.open

    def late(path, *arguments):
        if str(path).endswith(".claim"):  # meanwhile the other one has taken it
            lock.write_text(other)
        return create(path, *arguments)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(UsageError, match="being written by another run"), locked(tmp_path / "a.h5"):
        pass
    assert lock.read_text() == other
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5.lock"]


def _no_flock(file, how):
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_lock_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Between opening the lock file and locking it, its holder may leave and remove it."""
    out, flock, calls = tmp_path / "a.h5", fcntl.flock, []

    def late(file, how):
        if not calls:
            (tmp_path / "a.h5.lock").unlink()
        calls.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(out):
        assert len(calls) == 2  # the first was of a file that is gone
        with pytest.raises(UsageError, match="being written by another run"), locked(out):
            pass


def test_who_writes_a_file(tmp_path, gone):
    out = tmp_path / "a.h5"
    assert writer(out) is None
    with locked(out):
        assert writer(out).startswith(f"pid {os.getpid()} on ")
    assert writer(out) is None
    (tmp_path / "a.h5.lock").write_text(f"pid {gone} began 1\n")
    assert writer(out) is None, "it has died"


def test_a_folder_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(EnvironmentProblem, match="cannot write .*No such file"),
        locked(tmp_path / "nowhere" / "a.h5"),
    ):
        pass


@pytest.mark.parametrize("before", [None, "", "pid {gone} began 1\n"])
def test_a_full_disk_leaves_no_lock(before, system, tmp_path, gone, monkeypatch):
    """Its name takes no space, what is written into it does."""
    out, lock = tmp_path / "a.h5", tmp_path / "a.h5.lock"
    monkeypatch.setattr("grokfast.storage.locks._PATIENCE", 0.0)
    if before is not None:
        lock.write_text(before.format(gone=gone))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(Path, "write_text", full)
        with pytest.raises(EnvironmentProblem, match="cannot write .*: No space left"), locked(out):
            pass
    # Of one that another process has left the next holder finds that it has died.
    assert not list(tmp_path.iterdir()) or (system != "flock" and before is not None)
    with locked(out):
        assert Holder.read(lock.read_text()) == Holder.me()
    assert not list(tmp_path.iterdir())
