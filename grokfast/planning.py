"""What a run would take, from a few real steps that are thrown away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from grokfast.bucket import Bucket
from grokfast.engines import Engine
from grokfast.grid import Grid
from grokfast.observing import Observer
from grokfast.preparing import as_grid, checked_cells, prepare
from grokfast.progress import make_progress
from grokfast.state import State
from grokfast.storage.files import real_path, results_path
from grokfast.trainer import Trainer

#: A first evaluation after more steps than this is not waited for.
_FAR = 20
#: Seconds after which no further bucket is measured.
_PATIENCE = 20.0
#: Operations of a step from which on it takes some hundredths of a second.
_LARGE = 2e9


@dataclass(frozen=True)
class Plan:
    """What a run would take; rate and seconds come from a few real steps.

    Attributes:
        cells, buckets: numbers of cells, and of groups that train together.
        engine: which engine, and why.
        memory_bytes: of the state of all cells.
        disk_bytes: of results file and largest checkpoint.
        steps: model-steps of all budgets.
        left: those that an existing file has not done yet; a finished cell has none left.
        rate: model-steps per second; 0 where none is left.
        seconds: time for ``left`` without early stopping: an upper bound for ``stop=both``.
    """

    cells: int
    buckets: int
    engine: str
    memory_bytes: int
    disk_bytes: int
    steps: int
    left: int
    rate: float
    seconds: float


def plan(
    grid: Grid | str,
    *,
    out: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Plan:
    """What :func:`run` with these arguments would do, from a few real steps that are thrown away.

    Nothing is written: an existing file is read, and refused where ``run`` would refuse it.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    grid = as_grid(grid)
    path = real_path(results_path(out)) if out is not None else None
    indices = checked_cells(grid, device, threads, shard)
    ready = prepare(grid, indices, path, engine, device, threads, overwrite)
    buckets = ready.buckets
    memory = sum(_state_bytes(p) for p in buckets)
    records = sum(map(_record_bytes, buckets))
    budgets = [p.num_cells * p.cell.steps for p in buckets]
    if ready.complete:
        left = [0] * len(buckets)
    elif ready.old is not None:
        trainer = Trainer(ready, path, make_progress(False))
        trainer.restore(ready.old)
        left = trainer.left()
    else:
        left = budgets
    per_step = _seconds_per_step([b for b, n in zip(buckets, left, strict=True) if n], ready.engine)
    seconds = sum(s * n for s, n in zip(per_step, filter(None, left), strict=True))
    return Plan(
        cells=len(indices),
        buckets=len(buckets),
        engine=ready.why,
        memory_bytes=memory + records,
        disk_bytes=memory + 2 * records,
        steps=sum(budgets),
        left=sum(left),
        rate=sum(left) / seconds if seconds else 0.0,
        seconds=seconds,
    )


def _state_bytes(bucket: Bucket) -> int:
    item = 8 if bucket.cell.dtype == "float64" else 4
    parameters = sum(int(np.prod(shape)) for shape in bucket.shapes)
    return (1 + len(bucket.slots)) * item * bucket.num_cells * parameters


def _record_bytes(bucket: Bucket) -> int:
    """Of curves and observables."""
    observer = Observer(bucket)
    observed = sum(len(observer.steps[name]) * size for name, size in observer.sizes.items())
    return bucket.num_cells * (16 * len(bucket.curve_steps) + 4 * observed)


def _seconds_per_step(buckets: list[Bucket], engine: Engine) -> list[float]:
    """Seconds per model-step of each bucket: measured, as long as that does not take too long, the
    smallest and largest first; of the rest in proportion to their operations."""
    budget = max(0.2, 4.0 / max(1, len(buckets)))  # seconds of measurement
    work = np.array([b.flops_per_step() for b in buckets])
    found = np.full(len(buckets), np.nan)
    begun = time.perf_counter()
    for k in _spread(np.argsort(work, kind="stable").tolist()):
        if time.perf_counter() - begun > _PATIENCE and work.min() > 0:
            break
        found[k] = _measured_seconds(buckets[k], engine, budget)
    known = np.flatnonzero(~np.isnan(found))
    for k in np.flatnonzero(np.isnan(found)).tolist():
        nearest = known[np.abs(np.log(work[known] / work[k])).argmin()]
        found[k] = found[nearest] * work[k] / work[nearest]
    return [float(s) for s in found]


def _spread(order: list[int]) -> list[int]:
    """The ends first, then what lies in the middle of what is left out, and so on."""
    ends = dict.fromkeys([*order[-1:], *order[:1]])
    pieces = 2
    while len(ends) < len(order):
        ends |= dict.fromkeys(order[(len(order) * j) // pieces] for j in range(1, pieces))
        pieces *= 2
    return list(ends)


def _first_look(bucket: Bucket) -> int:
    """The first evaluated step, so that twice as many steps have their share of evaluations; the
    first where that is far: a step of a large net is long."""
    schedule = bucket.schedule
    ends = schedule.eval_steps
    first = schedule.steps_per_epoch if ends is None else int(ends[0]) if len(ends) else 1
    return min(first, bucket.cell.steps) if first <= _FAR else 1


def _measured_seconds(bucket: Bucket, engine: Engine, budget: float) -> float:
    """Seconds per model-step, from about ``budget`` seconds of them; a first call pays for
    compilation.

    Over at most 16 cells on a CPU, of large networks 4; a GPU trains many as fast as a few.
    """
    most = 16 if bucket.flops_per_step() < _LARGE else 4
    some = bucket.num_cells if engine.device.type == "cuda" else min(bucket.num_cells, most)
    state = State.initial(bucket).to(engine.device)
    cells = torch.arange(some)
    until = _first_look(bucket)
    engine.advance(bucket, state, cells, until)
    steps, took = 0, 0.0
    while took < budget / 4 and until < bucket.cell.steps:
        before = int(state.step[:some].sum())
        until = min(2 * until, bucket.cell.steps)
        start = time.perf_counter()
        engine.advance(bucket, state, cells, until)
        took = time.perf_counter() - start
        steps = int(state.step[:some].sum()) - before
        if steps == 0:
            break
    if not steps:  # every cell has stopped already, or the budget is a handful of steps
        state = State.initial(bucket).to(engine.device)
        start = time.perf_counter()
        engine.advance(bucket, state, cells, bucket.steps_per_epoch)
        took = time.perf_counter() - start
        steps = max(1, int(state.step[:some].sum()))
    return took / steps
