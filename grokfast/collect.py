"""States -> Results and back: what goes into the file, and how a run takes it up again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from grokfast.engines import Engine
from grokfast.grid import Grid
from grokfast.phases import classify
from grokfast.program import Program
from grokfast.results import (
    DIVERGED,
    OK,
    PENDING,
    RUNNING,
    Results,
    hyperparameter_columns,
)
from grokfast.state import CURVES, State


def collect(
    grid: Grid, programs: list[Program], states: list[State], provenance: dict[str, Any]
) -> Results:
    """The results of all buckets, cells in flat order."""
    run = np.array([i for p in programs for i in p.cells], np.int64)
    order = np.argsort(run)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"run": (("run",), run[order])}
    for name, column in hyperparameter_columns(grid, run[order].tolist()).items():
        variables[name] = (("run",), column)

    def joined(parts: list[Tensor]) -> np.ndarray:
        return torch.cat([p.cpu() for p in parts]).numpy()[order]

    pairs = list(zip(programs, states, strict=True))
    t_train, t_val = joined([s.t_train for s in states]), joined([s.t_val for s in states])
    diverged = joined([s.diverged_at for s in states])
    done = joined([s.done(p) for p, s in pairs])
    steps = joined([s.step for s in states])
    status = np.select([diverged >= 0, done, steps > 0], [DIVERGED, OK, RUNNING], PENDING).astype(
        np.uint8
    )
    phase = classify(t_train, t_val, grid.experiment.phase, finished=done)
    for name, values in {
        "status": status,
        "phase": phase,
        "t_train": t_train,
        "t_val": t_val,
        "diverged_at": diverged,
        "steps_done": steps,
        # Needed to go on inside an epoch; of no other interest.
        "epoch_correct": joined([s.epoch_correct for s in states]),
        "epoch_loss": joined([s.epoch_loss for s in states]),
    }.items():
        variables[name] = (("run",), values)
    _add_curves(variables, pairs, order)
    _add_embeddings(variables, pairs, order)
    return Results(
        grid=grid,
        variables=variables,
        weights=[_weights(p, s) for p, s in pairs if p.cell.record.weights],
        provenance=provenance,
        complete=bool(done.all()),
    )


def _add_curves(
    variables: dict[str, Any], pairs: list[tuple[Program, State]], order: np.ndarray
) -> None:
    """Curves ``[run, step]`` on the union of the buckets' steps, NaN where not measured."""
    step = np.unique(np.concatenate([p.curve_steps.numpy() for p, _ in pairs]))
    if not len(step):
        return
    variables["step"] = (("step",), step)
    for name in CURVES:
        blocks = []
        for program, state in pairs:
            block = np.full((program.num_cells, len(step)), np.nan, np.float32)
            at = np.searchsorted(step, program.curve_steps.numpy())
            block[:, at] = getattr(state, name).cpu().numpy()
            blocks.append(block)
        variables[name] = (("run", "step"), np.concatenate(blocks)[order])


def _add_embeddings(
    variables: dict[str, Any], pairs: list[tuple[Program, State]], order: np.ndarray
) -> None:
    """Embedding snapshots ``[run, snapshot, token, component]``, NaN where not measured."""
    shapes = [state.embeddings.shape[1:] for _, state in pairs]
    if not any(s[0] for s in shapes):
        return
    size = tuple(max(s[k] for s in shapes) for k in range(3))
    every = next(p.cell.record.embeddings for p, s in pairs if s.embeddings.shape[1])
    full = np.full((sum(p.num_cells for p, _ in pairs), *size), np.nan, np.float32)
    row = 0
    for program, state in pairs:
        s, tokens, dims = state.embeddings.shape[1:]
        full[row : row + program.num_cells, :s, :tokens, :dims] = state.embeddings.cpu().numpy()
        row += program.num_cells
    variables["snapshot"] = (("snapshot",), np.arange(size[0], dtype=np.int64) * every)
    variables["embeddings"] = (("run", "snapshot", "token", "component"), full[order])


def _weights(program: Program, state: State) -> dict[str, np.ndarray]:
    return {
        "run": np.array(program.cells, np.int64),
        **{n: p.cpu().numpy() for n, p in zip(program.names, state.params, strict=True)},
    }


def restore_finished(
    old: Results,
    grid: Grid,
    programs: list[Program],
    states: list[State],
    in_checkpoint: set[str],
) -> list[Tensor]:
    """Takes over the cells that the results file holds as stopped, diverged or at the budget.

    Cells of the checkpoint are left as they are; the rest (begun, but lost) start again.

    Returns:
        For each bucket the cells whose outcome is known but whose parameters are not, bool
        ``[M]``: nothing can be trained on from them.
    """
    position = {old.grid.cells[i].identity(): k for k, i in enumerate(old["run"].tolist())}
    weights = {
        int(run): (bucket, k) for bucket in old.weights for k, run in enumerate(bucket["run"])
    }
    outcome_only = [torch.zeros(p.num_cells, dtype=torch.bool) for p in programs]
    for program, state, hollow in zip(programs, states, outcome_only, strict=True):
        for m, index in enumerate(program.cells):
            identity = grid.cells[index].identity()
            k = position.get(identity)
            if k is None or identity in in_checkpoint:
                continue
            stopped = (old["t_train"][k] >= 0) and (old["t_val"][k] >= 0) and program.stop_at_both
            spent = old["steps_done"][k] >= program.cell.steps
            if not stopped and not spent and old["diverged_at"][k] < 0:
                continue
            _take_over(old, k, program, state, m)
            hollow[m] = True
            if program.cell.record.weights:
                bucket, row = weights[int(old["run"][k])]
                for name, tensor in zip(program.names, state.params, strict=True):
                    tensor[m] = torch.from_numpy(bucket[name][row])
    return outcome_only


def _take_over(old: Results, k: int, program: Program, state: State, m: int) -> None:
    """Counters and records of position k of the file become those of cell m."""
    state.step[m] = int(old["steps_done"][k])
    for name in ("t_train", "t_val", "diverged_at", "epoch_correct"):
        getattr(state, name)[m] = int(old[name][k])
    state.epoch_loss[m] = float(old["epoch_loss"][k])
    if "step" in old:
        _, here, there = np.intersect1d(
            program.curve_steps.numpy(), old["step"], return_indices=True
        )
        for name in CURVES:
            getattr(state, name)[m, here] = torch.from_numpy(old[name][k, there])
    if "embeddings" in old and program.num_snapshots:
        tokens, dims = program.shapes[0]
        saved = old["embeddings"][k, : program.num_snapshots, :tokens, :dims]
        state.embeddings[m, : len(saved)] = torch.from_numpy(saved)


def provenance(engine: Engine, programs: list[Program]) -> dict[str, Any]:
    """Where and with what a run is made; no paths, no host name, no environment."""
    cell = programs[0].cell
    return {
        "package_version": importlib.metadata.version("grokfast"),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "engine": engine.name,
        "engine_detail": getattr(engine, "detail", ""),
        "device": str(engine.device),
        "device_name": _device_name(engine.device),
        "dtype": cell.dtype,
        "precision": cell.precision,
        "data_sha256": [_digest(p) for p in programs],
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
    """Of a run taken up again: created then, with the time of all its parts."""
    return {
        **new,
        "created_utc": old.get("created_utc", new["created_utc"]),
        "wall_seconds": float(old.get("wall_seconds", 0.0)),
        "resumed": int(old.get("resumed", 0)) + 1,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with Path("/proc/cpuinfo").open() as info:
            names = [
                line.split(":", 1)[1].strip() for line in info if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _digest(program: Program) -> str:
    """SHA-256 of a bucket's data as it enters training."""
    digest = hashlib.sha256()
    for tensor in (program.x_train, program.y_train, program.x_val, program.y_val, program.targets):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
