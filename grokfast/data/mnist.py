"""MNIST: found on this machine, else downloaded; every byte verified by SHA-256 before use.

Looked for in this order; a folder counts when it holds all four files, plain or ``.gz``:

1. ``data_dir``, where given;
2. the environment variable ``GROKFAST_DATA``;
3. torchvision's layout: ``./data/MNIST/raw``, the root of torchvision's own examples, then
   ``torchvision/MNIST/raw`` in the user's cache (torchvision itself has no default root);
4. our own cache, ``<user's cache>/grokfast/mnist``, where downloads go when neither 1 nor 2 is
   given. The user's cache is ``$XDG_CACHE_HOME``, else ``~/.cache`` (``~/Library/Caches`` on
   macOS, ``%LOCALAPPDATA%`` on Windows).

1 and 2 may also be a torchvision root, a folder with ``MNIST/raw`` below.

A damaged file is never passed over in silence. In a folder that the user named (1, 2) it is an
error: we do not overwrite the user's files, nor use others in their place. In 3 it is a warning
and the search goes on; in 4 it is a warning and a download replaces the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grokfast.data import mirrors
from grokfast.data.idx import GZIP_MAGIC, BadFile, idx_header, parse_idx, read_bytes
from grokfast.errors import EnvironmentProblem
from grokfast.storage.files import clear_leftovers, temporary_of


@dataclass(frozen=True)
class FileSpec:
    """One IDX file of unsigned bytes: name, shape, SHA-256 of the unpacked content."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Unpacked bytes, header included."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)


@dataclass(frozen=True)
class Files:
    """The four files of a data set in MNIST's layout."""

    train_images: FileSpec
    train_labels: FileSpec
    test_images: FileSpec
    test_labels: FileSpec

    def __iter__(self) -> Iterator[FileSpec]:
        return iter((self.train_images, self.train_labels, self.test_images, self.test_labels))


MNIST = Files(
    train_images=FileSpec(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=FileSpec(
        "train-labels-idx1-ubyte",
        (60000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test_images=FileSpec(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    test_labels=FileSpec(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


class MnistArrays(NamedTuple):
    """The data set in memory, in file order."""

    train_images: NDArray[np.uint8]  # [60000, 28, 28], 0 background to 255 ink
    train_labels: NDArray[np.uint8]  # [60000], 0 to 9
    test_images: NDArray[np.uint8]  # [10000, 28, 28]
    test_labels: NDArray[np.uint8]  # [10000]


@dataclass(frozen=True)
class FileStatus:
    """What ``verify_mnist`` found: ``path`` where there is a file, ``reason`` where it is bad."""

    state: Literal["ok", "missing", "bad"]
    path: Path | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


def find_mnist(
    data_dir: str | os.PathLike[str] | None = None, *, files: Files = MNIST
) -> Path | None:
    """The first folder, in the order of this module, that holds the verified data set.

    Args:
        data_dir: looked in first.
        files: names, shapes and digests.

    Returns:
        The folder, None where there is none. Never uses the network.

    Raises:
        BadFile: a damaged file in ``data_dir`` or ``GROKFAST_DATA``.
    """
    found, _ = _search(data_dir, files)
    return found.folder if found else None


def fetch_mnist(data_dir: str | os.PathLike[str] | None = None, *, files: Files = MNIST) -> Path:
    """Makes sure that the verified data set is on this machine.

    With ``data_dir`` it is in that folder afterwards, copied from elsewhere on this machine or
    downloaded. Without, it is where ``find_mnist`` finds it, else downloaded to ``GROKFAST_DATA``
    or our cache. Files appear whole or not at all; several processes may fetch at once.

    Args:
        data_dir: where the files shall be.
        files: names, shapes and digests.

    Returns:
        The folder with the four files.

    Raises:
        BadFile: a damaged file in ``data_dir`` or ``GROKFAST_DATA``.
        EnvironmentProblem: no mirror could be used, or the folder cannot be written.
    """
    found, looked = _search(data_dir, files)
    if found and (data_dir is None or found.folder == _named(data_dir)):
        return found.folder
    return _fill(_target(data_dir), files, found, looked)


def load_mnist(
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    *,
    files: Files = MNIST,
) -> MnistArrays:
    """The data set as arrays; the bytes that were verified are the bytes that are returned.

    Args:
        data_dir: looked in first, and where a download goes.
        download: False never uses the network.
        files: names, shapes and digests.

    Returns:
        uint8 arrays: train_images [60000, 28, 28], train_labels [60000],
        test_images [10000, 28, 28], test_labels [10000].

    Raises:
        BadFile: a damaged file in ``data_dir`` or ``GROKFAST_DATA``.
        EnvironmentProblem: not on this machine, and not downloaded.
    """
    found, looked = _search(data_dir, files)
    if found:
        contents = found.contents
    else:
        target = _target(data_dir)
        if not download:
            raise _missing(target, files, looked, "nothing was downloaded")
        folder = _fill(target, files, None, looked)
        contents = [_checked(_present(folder, spec) or folder / spec.name, spec) for spec in files]
    return MnistArrays(*(parse_idx(content) for content in contents))


def verify_mnist(folder: str | os.PathLike[str], *, files: Files = MNIST) -> dict[str, FileStatus]:
    """Checks each file of one folder, without the network; a bad file is a status, no error.

    Args:
        folder: the folder with the files, or a torchvision root.
        files: names, shapes and digests.

    Returns:
        Unpacked file name -> its status, always all four.
    """
    statuses = {}
    for spec in files:
        path = _present(_named(folder), spec)
        if path is None:
            statuses[spec.name] = FileStatus("missing")
            continue
        try:
            _checked(path, spec)
            statuses[spec.name] = FileStatus("ok", path)
        except BadFile as error:
            statuses[spec.name] = FileStatus("bad", path, error.reason)
    return statuses


# ---- on this machine


@dataclass(frozen=True)
class _Place:
    folder: Path
    label: str
    named: bool = False  # by the user: what is wrong in it is an error


@dataclass(frozen=True)
class _Found:
    folder: Path
    contents: list[bytes]  # unpacked and verified, in the order of Files


def _search(
    data_dir: str | os.PathLike[str] | None, files: Files
) -> tuple[_Found | None, list[str]]:
    """The first complete place, and a line on every place that was passed over."""
    looked = []
    for place in _places(data_dir):
        contents, missing = [], []
        try:
            for spec in files:
                path = _present(place.folder, spec)
                if path is None:
                    missing.append(spec.name)
                else:
                    contents.append(_checked(path, spec))
        except BadFile as error:
            if place.named:
                hint = "remove or replace the file, or name another folder"
                raise BadFile(error.path, error.reason, hint) from None
            warnings.warn(f"MNIST file passed over: {error}", stacklevel=3)
            looked.append(f"{place.folder} ({place.label}): bad file {error}")
            continue
        if not missing:
            return _Found(place.folder, contents), looked
        if place.folder.is_dir() and not os.access(place.folder, os.R_OK | os.X_OK):
            lacks = "not readable"
        else:
            empty = "none of the files in it" if place.folder.is_dir() else "not there"
            lacks = "lacks " + ", ".join(missing) if contents else empty
        looked.append(f"{place.folder} ({place.label}): {lacks}")
    return None, looked


def _places(data_dir: str | os.PathLike[str] | None) -> list[_Place]:
    places = []
    if data_dir is not None:
        places.append(_Place(_named(data_dir), "data_dir", named=True))
    if variable := os.environ.get("GROKFAST_DATA"):
        places.append(_Place(_named(variable), "GROKFAST_DATA", named=True))
    places.append(_Place(Path("data", "MNIST", "raw").absolute(), "torchvision"))
    if cache := _user_cache():
        places.append(_Place(cache / "torchvision" / "MNIST" / "raw", "torchvision"))
        places.append(_Place(cache / "grokfast" / "mnist", "cache"))
    return places


def _named(folder: str | os.PathLike[str]) -> Path:
    try:
        path = Path(folder).expanduser().absolute()
    except RuntimeError as error:  # ~ without a home folder, ~name without such a user
        raise EnvironmentProblem(f"cannot expand {os.fspath(folder)!r}: {error}") from None
    below = path / "MNIST" / "raw"
    return below if below.is_dir() else path


def _user_cache() -> Path | None:
    """None where the user has no home folder, as in some containers."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the XDG specification: relative paths are to be ignored
        return given
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _present(folder: Path, spec: FileSpec) -> Path | None:
    """The plain file before the packed one, as a reader by hand would take it."""
    for path in (folder / spec.name, folder / f"{spec.name}.gz"):
        # lexists: a dangling link is a file that somebody put there, and bad.
        if os.path.lexists(path):
            return path
    return None


def _checked(path: Path, spec: FileSpec) -> bytes:
    """The unpacked content of a file that is exactly the one of ``spec``, else BadFile."""
    content = read_bytes(path, max_bytes=spec.size)
    try:
        dtype, shape, _ = idx_header(content)
    except ValueError as error:
        raise BadFile(path, str(error)) from None
    if dtype != np.uint8 or shape != spec.shape:
        raise BadFile(path, f"holds {dtype.name} {list(shape)}, not uint8 {list(spec.shape)}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != spec.sha256:
        raise BadFile(path, f"wrong SHA-256 {digest}, expected {spec.sha256}")
    return content


def _missing(target: Path, files: Files, looked: Sequence[str], why: str) -> EnvironmentProblem:
    names = ", ".join(spec.name for spec in files)
    return EnvironmentProblem(
        f"MNIST is not on this machine ({why}). Looked in: " + "; ".join(looked),
        hint=f"put the four files {names} (plain or .gz) into {target}, "
        "or set GROKFAST_DATA to a folder that holds them",
    )


# ---- getting files


def _target(data_dir: str | os.PathLike[str] | None) -> Path:
    if named := data_dir if data_dir is not None else os.environ.get("GROKFAST_DATA"):
        return _named(named)
    if cache := _user_cache():
        return cache / "grokfast" / "mnist"
    raise EnvironmentProblem(
        "MNIST is not on this machine, and there is no home folder to keep it in",
        hint="set GROKFAST_DATA to a folder",
    )


def _fill(target: Path, files: Files, source: _Found | None, looked: Sequence[str]) -> Path:
    """Puts what ``target`` lacks into it, from ``source`` or the mirrors."""
    places = mirrors.mirrors()
    new_folders = [f for f in (target, *target.parents) if not f.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        _sweep(target, files)
        for spec in files:
            old = _present(target, spec)
            if old is not None:
                with contextlib.suppress(BadFile):
                    _checked(old, spec)
                    continue
            at_source = _present(source.folder, spec) if source else None
            if at_source:
                new = _install(target, spec, iter([at_source.read_bytes()]))
            else:
                try:
                    new = _download(target, spec, places)
                except mirrors.TransferFailed as error:
                    raise _missing(target, files, looked, str(error)) from None
            if old is not None and old != new:  # a bad plain file would hide the good .gz
                old.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write MNIST to {target}: {error.strerror or error}",
            hint="name a folder with write permission and 60 MB of free space in GROKFAST_DATA",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # one that holds something stays
            for folder in new_folders:
                folder.rmdir()
    return target


def _install(target: Path, spec: FileSpec, chunks: Iterator[bytes]) -> Path:
    """Writes, verifies and only then names a file; at any instant it is whole or absent.

    Each of several writers has a temporary of its own, and as all of them rename the same verified
    content, the last one may win.
    """
    temporary = temporary_of(target / spec.name)
    try:
        with temporary.open("xb") as out:
            for chunk in chunks:
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        _checked(temporary, spec)
        # Some servers unpack on the way; the suffix follows the bytes.
        with temporary.open("rb") as file:
            suffix = ".gz" if file.read(2) == GZIP_MAGIC else ""
        final = target / (spec.name + suffix)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # Windows cannot sync a folder; the file is synced
        folder = os.open(target, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return final


def _sweep(target: Path, files: Files) -> None:
    """Removes temporaries of killed writers: of this machine's that have died, and all that are
    older than any living download can be."""
    for spec in files:
        clear_leftovers(target / spec.name)
    for leftover in target.glob(".*-ubyte.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 2 * mirrors.DEADLINE_S:
                leftover.unlink()


def _download(target: Path, spec: FileSpec, places: list[str]) -> Path:
    """The installed file, else TransferFailed with the reason of each mirror."""
    failures = []
    for mirror in list(places):
        url = f"{mirror}{spec.name}.gz"
        try:
            path = _install(target, spec, mirrors.chunks(url, spec.name, spec.size))
        except (mirrors.TransferFailed, BadFile) as error:
            failures.append(f"{url}: {error.reason if isinstance(error, BadFile) else error}")
            continue
        # Only now: where all fail, the error names them, once.
        for failure in failures:
            mirrors.say(f"mirror refused: {failure}")
        # The mirror that answered is asked first from now on: no second wait for a dead one.
        places.remove(mirror)
        places.insert(0, mirror)
        return path
    raise mirrors.TransferFailed("; ".join(failures))
