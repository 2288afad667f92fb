"""A lock beside a file that is written over a long time: one writer, who is named to the others.

Where the file system has flock, the kernel lets go of it on any death. Where not (Lustre, some NFS
and FUSE), the file's existence is the lock: it tells host and process, so that one whose holder has
died is known for that on the same machine. Readers need neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.storage.processes import alive, here, started

#: What a file system without flock answers.
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

#: Seconds that a new lock file may take to say whose it is.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file tells."""

    pid: int
    host: str = ""
    began: int = 0

    @classmethod
    def me(cls) -> Holder:
        return cls(os.getpid(), here(), started(os.getpid()))

    @classmethod
    def read(cls, text: str) -> Holder | None:
        match = re.match(r"pid (\d{1,10})(?: on (\S+))?(?: began (\d{1,20}))?", text)
        return cls(int(match[1]), match[2] or "", int(match[3] or 0)) if match else None

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"pid {self.pid}{where}" + (f" began {self.began}" if self.began else "")

    @property
    def told(self) -> str:
        """For people: ``pid 12 on host``."""
        host = self.host.partition("~")[0]
        return f"pid {self.pid}{f' on {host}' if host else ''}"

    @property
    def gone(self) -> bool:
        """Whether it is known to have died; of another machine nothing is known."""
        return self.host in ("", here()) and not alive(self.pid, self.began)


def holder(path: Path) -> Holder | None:
    """Who writes ``path``, or was writing it when the process died, as its lock tells."""
    return Holder.read(_text(_lock_of(path)))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds ``<path>.lock`` against a second writer.

    Raises:
        UsageError: somebody else writes ``path``.
        EnvironmentProblem: the folder cannot be written.
    """
    lock = _lock_of(path)
    descriptor = -1
    try:
        try:
            descriptor = _taken(lock, path)
        except OSError as error:
            why = error.strerror or error
            raise EnvironmentProblem(f"cannot write {path}: {why} ({lock.name})") from error
        yield
    finally:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(descriptor)


def writer(path: Path) -> str | None:
    """Who writes ``path`` now, as far as its lock tells: a holder that has died is none."""
    with contextlib.suppress(OSError):
        found = holder(path)
        if found is not None and not found.gone:
            return found.told
    return None


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _taken(lock: Path, path: Path) -> int:
    """Takes the lock; an open descriptor of its file, which keeps it."""
    while True:
        descriptor, new = _opened(lock)
        try:
            if not (_flocked(descriptor, lock, path) or new):
                _take_over(lock, path)
                ours = os.open(lock, os.O_RDWR)
                os.close(descriptor)
                return ours
            if _is_at(descriptor, lock):
                _sign(descriptor, lock)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it since: this lock is of no file


def _sign(descriptor: int, lock: Path) -> None:
    """Writes whose it is into a lock file that is ours; one that cannot be written is removed."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{Holder.me()}\n".encode(), 0)
    except BaseException:
        with contextlib.suppress(OSError):
            lock.unlink()
        raise


def _opened(lock: Path) -> tuple[int, bool]:
    """A descriptor of the lock file, and whether this call has made it."""
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):  # removed in between
            return os.open(lock, os.O_RDWR), False


def _flocked(descriptor: int, lock: Path, path: Path) -> bool:
    """Whether the kernel keeps the lock; False where the file system cannot."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        raise _held(path, lock, Holder.read(_text(lock))) from None
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise


def _take_over(lock: Path, path: Path) -> None:
    """Makes a lock file ours whose holder has died, without flock.

    Two may find it so at once: who creates the claim looks again, and only then replaces it.
    """
    claim = lock.with_name(lock.name + ".claim")
    before = _told(lock)
    holder = Holder.read(before)
    if holder is not None and not holder.gone:
        raise _held(path, lock, holder)
    try:
        os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        raise _held(path, claim, None) from None
    try:
        if _text(lock) != before:
            raise _held(path, lock, Holder.read(_text(lock)))
        claim.write_text(f"{Holder.me()}\n")
        claim.replace(lock)
    finally:
        claim.unlink(missing_ok=True)


def _told(lock: Path) -> str:
    """What a lock file says, once it says something."""
    until = time.monotonic() + _PATIENCE
    while not (text := _text(lock)) and time.monotonic() < until:
        time.sleep(0.02)
    return text


def _text(lock: Path) -> str:
    try:
        return lock.read_bytes()[:400].decode(errors="replace")
    except FileNotFoundError:
        return ""


def _held(path: Path, lock: Path, holder: Holder | None) -> UsageError:
    where = "" if holder is None else f" ({holder.told})"
    away = holder is None or holder.host not in ("", here())
    rest = f"; if it has died, remove {lock.name}" if away else ""
    return UsageError(
        f"{path} is being written by another run{where}",
        hint=f"wait for it, or choose another --out{rest}",
    )


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
