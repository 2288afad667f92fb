"""Checkpoints: the full state of every cell that can still be trained, beside the results file.

One file ``<results>.ckpt``, replaced whole, no pickle. Rows are keyed by the identity of their
cell, so a run with more axis values or a larger budget finds what is there. Cells whose stop rule
has fired are in it only until the results file holds them. It is written before that file, and so
is as far as it, or further, but where it could not be written, which is said.

Version 3: a mark, the raw values of one tensor after the other, a table of them as JSON, its length
(64 bits, little-endian), and the seal (:mod:`grokfast.storage.seal`). The table has one entry a
bucket: ``identities`` of its R cells and ``tensors``, each ``[name, dtype, shape, offset]``, with R
rows. The seal is its only checksum: no other program writes into it, and a cell needs all its
tensors. Versions 1 and 2 were HDF5 files.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from grokfast.bucket import Bucket
from grokfast.errors import Damaged, EnvironmentProblem, UsageError
from grokfast.grid import Grid
from grokfast.outcomes import CROSSINGS
from grokfast.state import State
from grokfast.storage import guarded, seal
from grokfast.storage.files import write_whole
from grokfast.storage.hdf5 import Dataset, Group

_VERSION = 3
_SCHEMA = "grokfast-checkpoint"
_MARK = guarded.CHECKPOINT

#: What a checkpoint of version 1 lacks: such a cell goes on as if it had just been begun in these.
_SINCE_2 = ("train_correct", "val_correct", "best_train_correct", "best_val_correct", *CROSSINGS)

#: Identity of a cell -> its rows by tensor name.
Rows = dict[str, dict[str, np.ndarray]]


def save_checkpoint(
    path: Path,
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    kept: list[torch.Tensor],
) -> int:
    """Writes the rows of all cells that have begun, but for those that need none.

    Args:
        kept: of each bucket the cells whose end the results file holds, bool ``[M]``.

    Returns:
        Size of the file in bytes; 0 where nothing is left to save and the old one was removed.

    Raises:
        EnvironmentProblem: it cannot be written; the old one is as it was.
    """
    rows = [
        torch.nonzero((state.step > 0).cpu() & ~its_kept)[:, 0]
        for state, its_kept in zip(states, kept, strict=True)
    ]
    if not any(len(r) for r in rows):
        path.unlink(missing_ok=True)
        return 0
    write_whole(path, _parts(grid, buckets, states, rows))
    return path.stat().st_size


def _parts(
    grid: Grid, buckets: list[Bucket], states: list[State], rows: list[torch.Tensor]
) -> Iterator[bytes | memoryview]:
    """The file of these rows of the buckets."""

    def tensors(state: State, keep: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in state.tensors():
            yield name, tensor[keep.to(tensor.device)].cpu().numpy()

    return _file(
        ([grid.keys[bucket.cells[m]] for m in keep.tolist()], tensors(state, keep))
        for bucket, state, keep in zip(buckets, states, rows, strict=True)
    )


def _file(
    buckets: Iterable[tuple[list[str], Iterable[tuple[str, np.ndarray]]]],
) -> Iterator[bytes | memoryview]:
    """The file of buckets, each identities and named tensors of so many rows; a tensor at a time:
    there is never a second copy of the whole state."""
    sealing, table = seal.Sealing(), []
    sealing.add(_MARK)
    yield _MARK
    for identities, named in buckets:
        tensors = []
        for name, values in named:
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
            tensors.append([name, values.dtype.str, list(values.shape), sealing.length])
            sealing.add(values.data)
            yield values.data
        table.append({"identities": identities, "tensors": tensors})
    end = json.dumps({"schema": _SCHEMA, "schema_version": _VERSION, "buckets": table}).encode()
    end += len(end).to_bytes(8, "little")
    sealing.add(end)
    yield end
    yield sealing.seal()


def save_rows(path: Path, several: Iterable[Rows]) -> None:
    """Writes a checkpoint of rows that others hold, one collection of them at a time; none where
    there are none.

    Raises:
        EnvironmentProblem: as :func:`save_checkpoint`.
    """
    filled = filter(None, several)
    first = next(filled, None)
    if first is None:
        path.unlink(missing_ok=True)
    else:
        alike = (group for rows in itertools.chain([first], filled) for group in _alike(rows))
        write_whole(path, _file(alike))


def _alike(rows: Rows) -> Iterator[tuple[list[str], Iterable[tuple[str, np.ndarray]]]]:
    """Rows of the same tensors together."""
    groups: dict[object, list[str]] = {}
    for identity, row in rows.items():
        shapes = tuple((name, v.dtype.str, np.shape(v)) for name, v in row.items())
        groups.setdefault(shapes, []).append(identity)
    for identities in groups.values():
        names = list(rows[identities[0]])
        yield identities, ((n, np.stack([rows[i][n] for i in identities])) for n in names)


def load_checkpoint(path: Path, reader: guarded.Reader | None = None) -> Rows:
    """Identity of a cell -> its rows by tensor name.

    Args:
        reader: of many older files; see :meth:`grokfast.Results.load`.

    A damaged checkpoint costs time, not truth: it is set aside with a warning, and its cells
    train again from the start to the same bits.

    Raises:
        UsageError: a newer grokfast wrote it.
        EnvironmentProblem: it cannot be opened.
    """
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            if file.read(len(_MARK)) == _MARK:
                return _read(file)
        return _read_hdf5(path, reader)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror or error}") from error
    except _Newer as error:
        raise UsageError(
            f"{path} was written by a newer grokfast", hint="upgrade grokfast"
        ) from error
    except (KeyError, ValueError, TypeError, RecursionError, Damaged, UsageError) as error:
        _set_aside(path, str(error).removeprefix(f"{path} is damaged: "))
        return {}


def _set_aside(path: Path, why: str) -> None:
    aside = path.with_name(path.name + ".damaged")
    path.replace(aside)
    warnings.warn(
        f"checkpoint {path.name} is damaged ({why}); kept as {aside.name}, "
        "unfinished cells start again",
        stacklevel=3,
    )


class _Newer(Exception):
    """Of a version that this grokfast does not know."""


def _read(file: IO[bytes]) -> Rows:
    if seal.sealed(file) != seal.WHOLE:
        raise ValueError("it is not as it was written")
    end = file.seek(-seal.SIZE - 8, os.SEEK_END)
    length = int.from_bytes(file.read(8), "little")
    file.seek(end - length)
    table = json.loads(file.read(length))
    if table["schema_version"] > _VERSION:
        raise _Newer
    cells: Rows = {}
    for bucket in table["buckets"]:
        for name, dtype, shape, offset in bucket["tensors"]:
            file.seek(offset)
            values = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
            _add(cells, bucket["identities"], name, values)
    return cells


def _add(cells: Rows, identities: list[str], name: str, values: np.ndarray) -> None:
    if len(values) != len(identities):
        raise ValueError(f"length of {name}")
    for identity, row in zip(identities, values, strict=True):
        cells.setdefault(identity, {})[name] = row


def _read_hdf5(path: Path, reader: guarded.Reader | None) -> Rows:
    """Of versions 1 and 2."""
    _, pieces = guarded.read(path, 1, reader)
    groups = {p.path: p.attributes for p in pieces if isinstance(p, Group)}
    version = int(groups["/"]["schema_version"])
    if version > _VERSION:
        raise _Newer
    cells: Rows = {}
    for dataset in pieces:
        if not isinstance(dataset, Dataset):
            continue
        where, _, name = dataset.path.rpartition("/")
        if dataset.values.dtype != dataset.values.dtype.newbyteorder("<"):
            raise ValueError(f"byte order of {dataset.path}")  # which the checksum does not cover
        if zlib.crc32(np.ascontiguousarray(dataset.values).data) != dataset.crc32:
            raise ValueError(f"checksum of {dataset.path}")
        _add(cells, json.loads(groups[where]["identities"]), name, dataset.values)
    for row in cells.values() if version == 2 else ():
        if lost := set(_SINCE_2) - set(row):
            raise ValueError(f"{min(lost)} is not there")
    return cells


def restore_checkpoint(
    path: Path, grid: Grid, buckets: list[Bucket], states: list[State]
) -> set[str]:
    """Puts the saved rows of all cells back into their states.

    Returns:
        Identities of the cells in the checkpoint; none of a damaged one (see
        :func:`load_checkpoint`).

    Raises:
        UsageError, EnvironmentProblem: as :func:`load_checkpoint`.
    """
    rows = load_checkpoint(path)
    mine = [
        (state, m, rows[grid.keys[index]])
        for bucket, state in zip(buckets, states, strict=True)
        for m, index in enumerate(bucket.cells)
        if grid.keys[index] in rows
    ]
    for state, m, row in mine:
        own = ((name, tensor[m]) for name, tensor in state.tensors())
        if why := misfit(own, row):
            _set_aside(path, why)
            return set()
    for state, m, row in mine:
        restore_row(state, m, row)
    return set(rows)


def misfit(wanted: Iterable[tuple[str, torch.Tensor]], row: dict[str, np.ndarray]) -> str | None:
    """What of a saved row is not there, or of another shape or kind than the tensors of a cell."""
    for name, tensor in wanted:
        if name not in row:
            if name not in _SINCE_2:
                return f"{name} is not there"
            continue
        own, saved = tuple(tensor.shape), np.shape(row[name])
        # Curves and snapshots of a larger budget are longer.
        if len(own) != len(saved) or own[1:] != saved[1:] or saved[:1] > own[:1]:
            return f"{name} has the shape {list(saved)}, not {list(own)}"
        if (row[name].dtype.kind == "f") != tensor.is_floating_point():
            return f"{name} has the type {row[name].dtype}, not {tensor.dtype}"
    return None


def restore_row(state: State, m: int, row: dict[str, Any]) -> None:
    """Puts one cell's saved row back; see :func:`restore_checkpoint`."""
    for name, tensor in state.tensors():
        if name in _SINCE_2 and name not in row:
            continue
        saved = torch.from_numpy(np.asarray(row[name]).copy())
        if saved.ndim and saved.shape != tensor[m].shape:
            tensor[m, : saved.shape[0]] = saved
        else:
            tensor[m] = saved
