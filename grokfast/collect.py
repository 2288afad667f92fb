"""States -> Results and back: what goes into the file, and how a run takes it up again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import time
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines import Engine
from grokfast.grid import Grid
from grokfast.hardware import processor
from grokfast.results import (
    DIVERGED,
    OK,
    PENDING,
    RUNNING,
    Results,
    hyperparameter_columns,
    listed_digests,
)
from grokfast.state import CURVES, State

#: Tensors of a State that are one number a cell; the epoch's are needed to go on inside it.
_COUNTERS = ("t_train", "t_val", "diverged_at", "step", "epoch_correct", "epoch_loss")


def collect(
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    provenance: dict[str, Any],
    known: Results | None = None,
) -> Results:
    """The results of all buckets, cells in flat order.

    Args:
        known: what a file said when the run was taken up again. A cell that has not yet come as
            far as it had come there keeps what was found then: nothing is lost where a cell must
            train again because its state is gone.
    """
    run = np.array([i for b in buckets for i in b.cells], np.int64)
    order = np.argsort(run)
    cells = run[order].tolist()
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"run": (("run",), run[order])}
    for name, column in hyperparameter_columns(grid, cells).items():
        variables[name] = (("run",), column)

    def joined(name: str) -> np.ndarray:
        return torch.cat([getattr(s, name).cpu() for s in states]).numpy()[order]

    pairs = list(zip(buckets, states, strict=True))
    for name in _COUNTERS:
        variables["steps_done" if name == "step" else name] = (("run",), joined(name))
    _add_curves(variables, pairs, order)
    _add_embeddings(variables, pairs, order)
    weights = [_weights(p, s) for p, s in pairs if p.cell.record.weights]
    if known is not None:
        _keep_known(variables, weights, known, [grid.keys[i] for i in cells])

    done = torch.cat([s.done(p).cpu() for p, s in pairs]).numpy()[order]
    diverged, steps = variables["diverged_at"][1] >= 0, variables["steps_done"][1]
    status = np.select([diverged, done, steps > 0], [DIVERGED, OK, RUNNING], PENDING)
    variables["status"] = (("run",), status.astype(np.uint8))
    results = Results(
        grid=grid,
        variables=variables,
        weights=weights,
        provenance=provenance,
        complete=bool(done.all()),
    )
    variables["phase"] = (("run",), results.phases())
    return results


def _add_curves(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """Curves ``[run, step]`` on the union of the buckets' steps, NaN where not measured."""
    step = np.unique(np.concatenate([p.curve_steps.numpy() for p, _ in pairs]))
    if not len(step):
        return
    variables["step"] = (("step",), step)
    for name in CURVES:
        blocks = []
        for bucket, state in pairs:
            block = np.full((bucket.num_cells, len(step)), np.nan, np.float32)
            at = np.searchsorted(step, bucket.curve_steps.numpy())
            block[:, at] = getattr(state, name).cpu().numpy()
            blocks.append(block)
        variables[name] = (("run", "step"), np.concatenate(blocks)[order])


def _add_embeddings(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """Embedding snapshots ``[run, snapshot, token, component]`` on the union of the buckets'
    steps, NaN where not measured."""
    snapshot = np.unique(np.concatenate([p.snapshot_steps for p, _ in pairs]))
    if not len(snapshot):
        return
    tokens, dims = (max(s.embeddings.shape[k] for _, s in pairs) for k in (2, 3))
    blocks = []
    for bucket, state in pairs:
        values = state.embeddings.cpu().numpy()
        block = np.full((bucket.num_cells, len(snapshot), tokens, dims), np.nan, np.float32)
        at = np.searchsorted(snapshot, bucket.snapshot_steps)
        block[:, at, : values.shape[2], : values.shape[3]] = values
        blocks.append(block)
    variables["snapshot"] = (("snapshot",), snapshot)
    variables["embeddings"] = (
        ("run", "snapshot", "token", "component"),
        np.concatenate(blocks)[order],
    )


def _weights(bucket: Bucket, state: State) -> dict[str, np.ndarray]:
    return {
        "run": np.array(bucket.cells, np.int64),
        **{n: p.cpu().numpy() for n, p in zip(bucket.names, state.params, strict=True)},
    }


def _keep_known(
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]],
    weights: list[dict[str, np.ndarray]],
    known: Results,
    keys: list[str],
) -> None:
    """Puts back, in place, the rows of cells that are behind what is known of them."""
    at = {known.grid.keys[run]: k for k, run in enumerate(known["run"].tolist())}
    before = np.array([at.get(key, -1) for key in keys])
    behind = np.flatnonzero(
        (before >= 0) & (variables["steps_done"][1] < known["steps_done"][before])
    )
    if not len(behind):
        return
    outcome = ("t_train", "t_val", "diverged_at", "steps_done", "epoch_correct", "epoch_loss")
    for name in (*outcome, *CURVES, "embeddings"):
        if name not in variables or name not in known:
            continue
        dims, values = variables[name]
        values = values.copy()  # it may be the memory of the state itself
        old = known[name][before[behind]]
        if len(dims) == 1:
            values[behind] = old
        else:
            axis = variables[dims[1]][1], known[dims[1]]
            _, here, there = np.intersect1d(*axis, return_indices=True)
            block = np.full((len(behind), *values.shape[1:]), np.nan, values.dtype)
            rest: list[Any] = [slice(n) for n in old.shape[2:]]
            block[:, here, *rest] = old[:, there]
            values[behind] = block
        variables[name] = dims, values
    rows = _weight_rows(known)
    runs = {int(variables["run"][1][k]): int(known["run"][before[k]]) for k in behind}
    for bucket in weights:
        mine = [(m, *rows[runs[r]]) for m, r in enumerate(bucket["run"].tolist()) if r in runs]
        for name in set(bucket) - {"run"} if mine else ():
            bucket[name] = bucket[name].copy()
            for m, its_bucket, k in mine:
                bucket[name][m] = its_bucket[name][k]


def _weight_rows(results: Results) -> dict[int, tuple[dict[str, np.ndarray], int]]:
    """Flat cell index -> its bucket of weights and its row there."""
    return {
        int(run): (bucket, k)
        for bucket in results.weights
        for k, run in enumerate(bucket["run"].tolist())
    }


def restore_finished(
    old: Results,
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    in_checkpoint: set[str],
) -> list[Tensor]:
    """Takes over the cells that the results file holds as stopped, diverged or at the budget.

    Cells of the checkpoint are left as they are; the rest (begun, but lost) start again.

    Returns:
        For each bucket the cells whose outcome is known but whose parameters are not, bool
        ``[M]``: nothing can be trained on from them.
    """
    position = {old.grid.keys[i]: k for k, i in enumerate(old["run"].tolist())}
    weights = _weight_rows(old)
    outcome_only = [torch.zeros(b.num_cells, dtype=torch.bool) for b in buckets]
    for bucket, state, hollow in zip(buckets, states, outcome_only, strict=True):
        for m, index in enumerate(bucket.cells):
            key = grid.keys[index]
            k = position.get(key)
            if k is None or key in in_checkpoint:
                continue
            stopped = (old["t_train"][k] >= 0) and (old["t_val"][k] >= 0) and bucket.stop_at_both
            spent = old["steps_done"][k] >= bucket.cell.steps
            if not stopped and not spent and old["diverged_at"][k] < 0:
                continue
            _take_over(old, k, bucket, state, m)
            hollow[m] = True
            if bucket.cell.record.weights:
                kept, row = weights[int(old["run"][k])]
                for name, tensor in zip(bucket.names, state.params, strict=True):
                    tensor[m] = torch.from_numpy(kept[name][row])
    return outcome_only


def _take_over(old: Results, k: int, bucket: Bucket, state: State, m: int) -> None:
    """Counters and records of position k of the file become those of cell m."""
    for name in _COUNTERS:
        values = old["steps_done" if name == "step" else name]
        getattr(state, name)[m] = values[k].item()
    if "step" in old:
        _, here, there = np.intersect1d(
            bucket.curve_steps.numpy(), old["step"], return_indices=True
        )
        for name in CURVES:
            getattr(state, name)[m, here] = torch.from_numpy(old[name][k, there])
    if "embeddings" in old and bucket.num_snapshots:
        _, here, there = np.intersect1d(bucket.snapshot_steps, old["snapshot"], return_indices=True)
        tokens, dims = bucket.shapes[0]
        state.embeddings[m, here] = torch.from_numpy(old["embeddings"][k, there, :tokens, :dims])


def provenance(engine: Engine, grid: Grid, buckets: list[Bucket]) -> dict[str, Any]:
    """Where and with what a run is made; no paths, no host name, no environment."""
    cells = [b.cell for b in buckets]
    return {
        "package_version": importlib.metadata.version("grokfast"),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "engine": engine.name,
        "engine_detail": engine.detail,
        "device": str(engine.device),
        "device_name": _device_name(engine.device),
        "dtype": ", ".join(dict.fromkeys(c.dtype for c in cells)),
        "precision": ", ".join(dict.fromkeys(c.precision for c in cells)),
        "data_sha256": listed_digests(data_digests(grid, buckets)),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
        "numpy": np.__version__,
        "h5py": h5py.version.version,
        "hdf5": h5py.version.hdf5_version,
        "platform": f"{sys.platform} {platform.machine()}",
        "wall_seconds": 0.0,
        "resumed": 0,
    }


def merged_provenance(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Of a run taken up again: created then, with the time of all its parts, and everything that
    had a hand in it (``torch``: ``2.12.0, 2.13.0``)."""
    merged = dict(new)
    for name in _TOOLS:
        was = [part for part in str(old.get(name, "")).split(", ") if part]
        merged[name] = ", ".join(dict.fromkeys((*was, str(new[name]))))
    return merged | {
        "created_utc": old.get("created_utc", new["created_utc"]),
        "wall_seconds": float(old.get("wall_seconds", 0.0)),
        "resumed": int(old.get("resumed", 0)) + 1,
    }


_TOOLS = ("package_version", "device_name", "python", "torch", "cuda", "numpy", "h5py", "hdf5")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()


def data_digests(grid: Grid, buckets: list[Bucket]) -> dict[str, str]:
    """Identity of each data set -> SHA-256 of it as it enters training."""
    found: dict[str, str] = {}
    for bucket in buckets:
        for m, index in enumerate(bucket.cells):
            identity = grid.cells[index].data_identity()
            if identity not in found:
                found[identity] = _digest(bucket, int(bucket.data_index[m]))
    return found


def _digest(bucket: Bucket, d: int) -> str:
    digest = hashlib.sha256()
    for tensor in (bucket.x_train, bucket.y_train, bucket.x_val, bucket.y_val, bucket.targets):
        if tensor is not None:
            digest.update(tensor[d].contiguous().numpy().tobytes())
    return digest.hexdigest()
