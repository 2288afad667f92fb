"""Files that are never left half-written: whole to a temporary beside them, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.storage.processes import alive, here, started

#: Links to links that are followed, as the system itself does.
_MOST_LINKS = 40

#: What other programs take files of these names for.
_OTHER_FORMATS = (
    ".csv", ".json", ".npz", ".parquet", ".pdf", ".png", ".svg", ".tsv", ".txt",
)  # fmt: skip

#: A day in seconds: the temporary of a process that cannot be asked for is older than any save.
_LONG_AGO = 86400.0


def user_path(given: str | os.PathLike[str]) -> Path:
    """A path as its user means it: ``~`` is the home folder.

    Raises:
        UsageError: no home folder, no such user, or no path at all.
    """
    text = os.fspath(given)
    if "\0" in text:
        raise UsageError(f"{text!r} is no path: it holds a zero byte")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"cannot expand {text!r}: {error}", hint=f"a file of that name is ./{text}"
        ) from None


def real_path(path: Path) -> Path:
    """The file that a link of this name stands for, which need not be there; else the path itself.

    Whatever belongs to a file (temporary, lock, checkpoint) lies beside this one.

    Raises:
        UsageError: links without an end.
    """
    at = path
    for _ in range(_MOST_LINKS):
        if not at.is_symlink():
            return at
        at = at.parent / at.readlink()
    raise UsageError(f"{path} is a link that leads to itself")


def writable(given: str | os.PathLike[str], option: str = "") -> Path:
    """The path of a file that is to be written, as the user means it, checked before any work.

    Args:
        given: file or link; what a link stands for need not be there, its folder must.
        option: what the user calls it, as ``--out=``.

    Raises:
        UsageError: no such folder, or something that is there and no file.
    """
    path = user_path(given)
    real = real_path(path)
    if real.is_dir():
        raise UsageError(f"{option}{given} is a folder; name a file")
    if real.exists() and not real.is_file():
        raise UsageError(f"{option}{given} is a device or pipe; name a file")
    check_folder(real.parent)
    return path


def results_path(given: str | os.PathLike[str], option: str = "") -> Path:
    """As :func:`writable`, of a file that is to hold results: not of a name that says otherwise."""
    path = writable(given, option)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"{option}{given}: results are written as HDF5",
            hint=f"name it {path.with_suffix('.h5').name}; from that, grokfast export makes tables "
            "and grokfast plot figures",
        )
    return path


def checkpoint_path(out: Path) -> Path:
    """Where the state lies of the cells of a results file that can still be trained."""
    return out.with_name(out.name + ".ckpt")


def parts_folder(out: Path) -> Path:
    """Where the state of a run on several machines is (:mod:`grokfast.cluster`), until it ends."""
    return out.with_name(out.name + ".parts")


def check_file(path: Path) -> None:
    """Raises UsageError where this is no file that can be read to its end."""
    if path.is_file():
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    if path.exists():
        raise UsageError(f"{path} is a device or pipe; name a file")
    if path.is_symlink():
        raise UsageError(f"{path} is a link to {path.readlink()}, which is not there")
    check_folder(path.parent)
    raise UsageError(f"no such file: {path}")


def check_folder(folder: Path, option: str = "") -> None:
    """Raises UsageError where this is no folder.

    Args:
        option: what the user typed, as ``--data-dir=x``.
    """
    if folder.is_dir():
        return
    if os.path.lexists(folder):
        raise UsageError(f"{option or folder} is no folder")
    raise UsageError(f"{option}: no such folder" if option else f"no such folder: {folder}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of ``path``, durably, if the block succeeds.

    At any instant ``path`` is the previous or the next complete file, with the same mode and owner;
    what a link stands for is replaced, not the link.

    Raises:
        EnvironmentProblem: no space, no permission, no such folder; ``path`` is as it was.
    """
    path = real_path(path)
    clear_leftovers(path)
    temporary = temporary_of(path)
    try:
        before = _regular(path)
        # Of what nobody else may read no other can be read, either.
        mode = 0o666 if before is None else 0o600
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield temporary
        _fault("written")
        with temporary.open("rb+") as file:
            if before is not None:
                _as_before(file.fileno(), before)
            os.fsync(file.fileno())
        _fault("synced")
        temporary.replace(path)
        _fault("replaced")
        _sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentProblem(*_why(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _regular(path: Path) -> os.stat_result | None:
    """What is told of the file that is there; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is there and no file")
    return found


def _as_before(descriptor: int, before: os.stat_result) -> None:
    """Gives an open file mode and owner of another, as far as this user may."""
    now = os.fstat(descriptor)
    for owner in ((before.st_uid, before.st_gid), (-1, before.st_gid)):
        if (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid):
            break
        try:
            os.fchown(descriptor, *owner)
        except OSError:
            continue
        break
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it may be written, not listed; the file itself is there
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _why(path: Path, error: OSError) -> tuple[str, str | None]:
    """Message and hint for a file that cannot be written."""
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"cannot write {path}: its folder has gone", None
    hints = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EFBIG: "files may not grow so large here (ulimit -f)",
    }
    hint = hints.get(error.errno) if error.errno is not None else None
    return f"cannot write {path}: {error.strerror or error}", hint


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


def temporary_of(path: Path) -> Path:
    """A new name beside ``path`` that tells whose it is: see :func:`clear_leftovers`."""
    pid, token = os.getpid(), secrets.token_hex(4)
    return path.with_name(f".{path.name}.@{here()}.{pid}-{started(pid)}.{token}.tmp")


def clear_leftovers(path: Path) -> None:
    """Removes temporaries that a killed writer of ``path`` has left behind: of this machine those
    of processes that have died, of another one those that are older than a day."""
    name = re.escape(f".{path.name}.")
    process = r"(?P<pid>\d{1,10})(?:-(?P<began>\d{1,20}))?"
    own = re.compile(rf"{name}(?:@(?P<host>[^.]+)\.)?{process}(?:\.[0-9a-f]{{8}})?\.tmp")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            match = own.fullmatch(entry.name)
            if not match:
                continue
            if _abandoned(entry, match["host"], int(match["pid"]), int(match["began"] or 0)):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def _abandoned(entry: os.DirEntry[str], host: str | None, pid: int, began: int) -> bool:
    if host in (None, here()):
        return not alive(pid, began)
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _LONG_AGO
