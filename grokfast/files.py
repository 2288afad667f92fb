"""Files that are never left half-written: whole to a temporary, fsync, rename; and a lock."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from grokfast.errors import EnvironmentProblem, UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, durably, if the block succeeds.

    At any instant ``path`` is the previous or the next complete file.

    Raises:
        EnvironmentProblem: no space, no permission, no such folder; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _fault("written")
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _fault("synced")
        temporary.replace(path)
        _fault("replaced")
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror or error}",
            hint="free some space" if error.errno == errno.ENOSPC else None,
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes these bytes, one part after the other, as the next complete file.

    Raises:
        EnvironmentProblem: as :func:`replacing`.
    """
    with replacing(path) as temporary:
        # An own descriptor and plain writes: whatever the disk says arrives as an OSError.
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            for part in parts:
                _write_all(file, memoryview(part))
        finally:
            os.close(file)


def _write_all(file: int, part: memoryview) -> None:
    left = part.cast("B") if part.nbytes else memoryview(b"")
    while left:  # a disk may take less than it is given
        left = left[os.write(file, left) :]


def _fault(point: str) -> None:
    """Dies by SIGKILL at a named point of the commit sequence: ``GROKFAST_FAULT=synced:3`` at the
    third passage. For tests of crash safety."""
    wanted, _, nth = os.environ.get("GROKFAST_FAULT", "").partition(":")
    if wanted != point:
        return
    _passages[point] = _passages.get(point, 0) + 1
    if _passages[point] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)


_passages: dict[str, int] = {}


def clear_leftovers(path: Path) -> None:
    """Removes temporaries that a killed writer of ``path`` has left behind."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds ``<path>.lock`` against a second trainer; the kernel lets go of it on any death.

    Raises:
        UsageError: somebody else trains into ``path``.
        EnvironmentProblem: the folder cannot be written.
    """
    import fcntl

    lock = path.with_name(path.name + ".lock")
    with contextlib.ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(lock.open("a+"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UsageError(
                    f"{path} is being written by another run ({file.read().strip() or 'unknown'})",
                    hint="wait for it, or choose another --out",
                ) from None
            except OSError as error:
                raise EnvironmentProblem(f"cannot lock {path}: {error.strerror}") from error
            if _is_at(file, lock):
                break  # else its last holder has removed it since: this lock is of no file
        file.truncate(0)
        file.write(f"pid {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
