"""Checkpoints: the full state of every cell that can still be trained, beside the results file.

One HDF5 file ``<results>.ckpt``, replaced whole, no pickle. Rows are keyed by the identity of
their cell, so a run with more axis values or a larger budget finds what is there. Cells whose
stop rule has fired live in the results file alone.
"""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from grokfast.bucket import Bucket
from grokfast.errors import UsageError
from grokfast.files import open_hdf5, replacing
from grokfast.grid import Grid
from grokfast.outcomes import CROSSINGS
from grokfast.state import State

_VERSION = 2

#: What a checkpoint of version 1 lacks: such a cell goes on as if it had just been begun in these.
_SINCE_2 = ("train_correct", "val_correct", "best_train_correct", "best_val_correct", *CROSSINGS)


def checkpoint_path(out: Path) -> Path:
    return out.with_name(out.name + ".ckpt")


def save_checkpoint(
    path: Path,
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    outcome_only: list[torch.Tensor],
) -> int:
    """Writes the rows of all cells that have begun, are not frozen and have real parameters.

    Returns:
        Size of the file in bytes; 0 where nothing is left to save and the old one was removed.
    """
    rows = [
        torch.nonzero(((state.step > 0) & ~state.frozen(bucket)).cpu() & ~hollow)[:, 0]
        for bucket, state, hollow in zip(buckets, states, outcome_only, strict=True)
    ]
    if not any(len(r) for r in rows):
        path.unlink(missing_ok=True)
        return 0
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(schema="grokfast-checkpoint", schema_version=_VERSION)
        for number, (bucket, state, keep) in enumerate(zip(buckets, states, rows, strict=True)):
            group = file.create_group(str(number))
            identities = [grid.keys[bucket.cells[m]] for m in keep.tolist()]
            group.attrs["identities"] = json.dumps(identities)
            for name, tensor in state.tensors():
                values = tensor[keep.to(tensor.device)].cpu().numpy()
                dataset = group.create_dataset(name, data=values)
                dataset.attrs["crc32"] = zlib.crc32(np.ascontiguousarray(values).data)
        file.flush()
    return path.stat().st_size


def load_checkpoint(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Identity of a cell -> its rows by tensor name.

    A damaged checkpoint costs time, not truth: it is set aside with a warning, and its cells
    train again from the start to the same bits.

    Raises:
        UsageError: a newer grokfast wrote it.
    """
    if not path.exists():
        return {}
    try:
        with open_hdf5(path) as file:
            if int(file.attrs["schema_version"]) <= _VERSION:
                return _read(file)
    except (OSError, KeyError, ValueError, UsageError) as error:
        aside = path.with_name(path.name + ".damaged")
        path.replace(aside)
        warnings.warn(
            f"checkpoint {path.name} is damaged ({error}); kept as {aside.name}, "
            "unfinished cells start again",
            stacklevel=2,
        )
        return {}
    raise UsageError(f"{path} was written by a newer grokfast", hint="upgrade grokfast")


def _read(file: h5py.File) -> dict[str, dict[str, np.ndarray]]:
    cells: dict[str, dict[str, np.ndarray]] = {}
    for group in file.values():
        identities = json.loads(group.attrs["identities"])
        for name, dataset in group.items():
            values = dataset[...]
            if zlib.crc32(np.ascontiguousarray(values).data) != int(dataset.attrs["crc32"]):
                raise ValueError(f"checksum of {dataset.name}")
            if len(values) != len(identities):
                raise ValueError(f"length of {dataset.name}")
            for identity, row in zip(identities, values, strict=True):
                cells.setdefault(identity, {})[name] = row
    return cells


def restore_row(state: State, m: int, row: dict[str, Any]) -> None:
    """Puts one cell's saved row back; curves and snapshots of a larger budget are longer."""
    for name, tensor in state.tensors():
        if name in _SINCE_2 and name not in row:
            continue
        saved = torch.from_numpy(np.asarray(row[name]).copy())
        if saved.ndim and saved.shape != tensor[m].shape:
            tensor[m, : saved.shape[0]] = saved
        else:
            tensor[m] = saved
