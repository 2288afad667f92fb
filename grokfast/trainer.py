"""The Trainer: the loop over chunks. Advance, collect, checkpoint, report, drop finished cells."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grokfast.bucket import Bucket, make_buckets
from grokfast.checkpoint import checkpoint_path, load_checkpoint, restore_row, save_checkpoint
from grokfast.collect import (
    collect,
    data_digests,
    merged_provenance,
    phases_now,
    provenance,
    restore_finished,
)
from grokfast.engines import Engine, choose_engine, facts, resolve_device
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
from grokfast.fields import short_name
from grokfast.files import clear_leftovers, locked
from grokfast.grid import Grid
from grokfast.hardware import MAX_THREADS, memory_bytes
from grokfast.observing import Observer, observed_steps
from grokfast.phases import counts
from grokfast.progress import Progress, make_progress
from grokfast.results import Results
from grokfast.state import State

#: Seconds between writes of results and checkpoint, at least; more where writing would otherwise
#: take a larger share of the time than this.
SAVE_EVERY = 30.0
SAVE_SHARE = 0.05


class Interrupted(GrokfastError):
    """SIGINT or SIGTERM came; everything done so far is on disk."""

    def __init__(self, signum: int, out: Path | None) -> None:
        where = f"saved to {out}" if out else "nothing was saved (no output file)"
        super().__init__(
            f"interrupted by {signal.Signals(signum).name}; {where}",
            hint="the same command goes on" if out else None,
        )
        self.exit_code = 128 + signum


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


def run(
    grid: Grid,
    *,
    out: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Results:
    """Trains every cell of a grid to its stop rule or budget.

    Args:
        grid: see :func:`grokfast.preset` and :class:`grokfast.Grid`.
        out: results file; an existing one is continued, extended or raised in budget. Without
            it nothing is written and nothing can be resumed.
        engine, device, threads: see :func:`grokfast.engines.choose_engine`.
        shard: ``(i, n)`` trains every n-th cell only; numbered from 0 or from 1.
        overwrite: start anew over an existing file.
        progress: False for silence; None for a bar on a terminal and plain lines elsewhere.

    Raises:
        UsageError: the grid does not fit the existing file, the engine or the data.
        EnvironmentProblem: missing data, compiled parts or disk space.
        Interrupted: SIGINT or SIGTERM, after everything was saved.
    """
    path = Path(out) if out is not None else None
    indices = _checked(grid, path, device, threads, shard)
    with contextlib.ExitStack() as stack:
        if path is not None:
            stack.enter_context(locked(path))
            clear_leftovers(path)
        ready = _prepare(grid, indices, path, engine, device, threads, overwrite)
        reporter = make_progress(progress)
        if ready.complete:
            assert ready.old is not None
            reporter.note(f"{path} is complete")
            return ready.old
        trainer = _Trainer(ready, path, reporter)
        if path is not None:
            if ready.old is None:  # or --overwrite: a checkpoint without results is an orphan
                checkpoint_path(path).unlink(missing_ok=True)
            else:
                trainer.restore(ready.old)
        reporter.note(f"engine: {ready.why}")
        return trainer.run()


def plan(
    grid: Grid,
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
    path = Path(out) if out is not None else None
    indices = _checked(grid, path, device, threads, shard)
    ready = _prepare(grid, indices, path, engine, device, threads, overwrite)
    buckets = ready.buckets
    memory = sum(_state_bytes(p) for p in buckets)
    records = sum(map(_record_bytes, buckets))
    budgets = [p.num_cells * p.cell.steps for p in buckets]
    if ready.complete:
        left = [0] * len(buckets)
    elif ready.old is not None:
        trainer = _Trainer(ready, path, make_progress(False))
        trainer.restore(ready.old)
        left = trainer.left()
    else:
        left = budgets
    seconds = sum(
        _measured_seconds(p, ready.engine) * n for p, n in zip(buckets, left, strict=True) if n
    )
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


def _checked(
    grid: Grid,
    path: Path | None,
    device: str,
    threads: int | None,
    shard: tuple[int, int] | None,
) -> list[int]:
    """Indices of the cells to train; what can be wrong without data or files is found here.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads is {threads}; give 1 to {MAX_THREADS}")
    resolve_device(device)
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}")
    return grid.shard(*shard) if shard else list(range(grid.size))


@dataclass(frozen=True)
class _Ready:
    """Everything a run needs, checked against the file that it would go on from.

    Attributes:
        grid: what was asked for, with the file's own values where they are the same numbers.
        old: what that file holds; None for a new run.
        complete: whether it holds all that was asked for.
        why: which engine, and why, for people.
    """

    grid: Grid
    buckets: list[Bucket]
    engine: Engine
    why: str
    old: Results | None
    complete: bool


def _prepare(
    grid: Grid,
    indices: list[int],
    path: Path | None,
    engine: str,
    device: str,
    threads: int | None,
    overwrite: bool,
) -> _Ready:
    """What :func:`run` and :func:`plan` have in common; writes nothing.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    old = _existing(path, overwrite)
    if old is not None:
        grid = grid.aligned(old.grid)
        _same_run(old, grid, indices, path)
    goes_on = old is not None and engine == "auto"
    if old is not None and goes_on:
        engine = str(old.provenance.get("engine", engine))
    buckets = _buckets(grid, indices)
    chosen, why = choose_engine(engine, buckets, device, threads)
    if goes_on:
        why = f"{chosen.name} on {chosen.device} (as in {path})"
    complete = False
    if old is not None:
        same_cells = old.grid.to_json() == grid.to_json() and len(old) == len(indices)
        complete = old.complete and same_cells
        unknown = _same_machinery(old, chosen, path, to_the_bit=not complete)
        if unknown:
            why += f"; {path} does not tell its {', '.join(unknown)}"
        if not complete:
            _same_data(old, grid, buckets, path)
    return _Ready(grid, buckets, chosen, why, old, complete)


def _buckets(grid: Grid, indices: list[int]) -> list[Bucket]:
    """What the listed cells need, made ready.

    Raises:
        UsageError: an experiment that cannot be.
        EnvironmentProblem: missing data, or a state that this machine cannot hold.
    """
    cells = [grid.cells[i] for i in indices]
    # Of the hidden layers alone: data, which say what the others are, are not there yet.
    least = sum((24 if c.dtype == "float64" else 12) * c.model.least_parameters() for c in cells)
    memory = memory_bytes()
    if memory and least > memory:
        raise EnvironmentProblem(
            f"the state of {len(cells):,} cells takes {least / 2**30:,.0f} GiB at least; this "
            f"machine has {memory / 2**30:,.0f}",
            hint="--shard=i/n trains every n-th cell" if len(cells) > 1 else None,
        )
    return make_buckets(cells, indices)


def _state_bytes(bucket: Bucket) -> int:
    item = 8 if bucket.cell.dtype == "float64" else 4
    parameters = sum(int(np.prod(shape)) for shape in bucket.shapes)
    return (1 + len(bucket.slots)) * item * bucket.num_cells * parameters


def _record_bytes(bucket: Bucket) -> int:
    """Of curves and of embeddings, which are the largest observable by far."""
    steps = observed_steps(bucket.cell.record, bucket.cell.steps)
    sizes = {p.name: int(np.prod(p.shape)) for p in bucket.parameters}
    table = len(steps.get("embeddings", ())) * sizes.get("embedding.weight", 0)
    return bucket.num_cells * (16 * len(bucket.curve_steps) + 4 * table)


def _measured_seconds(bucket: Bucket, engine: Engine, budget: float = 2.0) -> float:
    """Seconds per model-step; a first call pays for compilation.

    Over at most 16 cells on a CPU; a GPU trains many as fast as a few.
    """
    some = bucket.num_cells if engine.device.type == "cuda" else min(bucket.num_cells, 16)
    state = State.initial(bucket).to(engine.device)
    cells = torch.arange(some)
    until = bucket.steps_per_epoch * max(1, 20 // bucket.steps_per_epoch)
    engine.advance(bucket, state, cells, min(until, bucket.cell.steps))
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


def _existing(path: Path | None, overwrite: bool) -> Results | None:
    """The results to go on from."""
    if path is None or overwrite or not path.exists():
        return None
    return Results.load(path)


def _same_run(old: Results, grid: Grid, indices: list[int], path: Path | None) -> None:
    """Refuses to go on with a file that holds other cells, or a larger budget.

    Raises:
        UsageError: the message shows what differs.
    """
    new_cells = {grid.keys[i] for i in indices}
    budgets = old.grid.varies("steps") or grid.varies("steps")
    if any(old.grid.keys[i] not in new_cells for i in old["run"].tolist()):
        allowed = {short_name(p) for p, values in old.grid.axes.items() if _holds(grid, p, values)}
        allowed |= set() if budgets else {"steps"}
        changes = [f"{k}: {v}" for k, v in old.grid.difference(grid).items() if k not in allowed]
        raise UsageError(
            f"{path} belongs to another run: "
            f"{'; '.join(changes) or 'it holds cells of another shard'}",
            hint="choose another --out, or --overwrite to start anew",
        )
    if not budgets and old.grid.experiment.steps > grid.experiment.steps:
        raise UsageError(
            f"{path} was run with steps={old.grid.experiment.steps}, more than "
            f"{grid.experiment.steps}",
            hint="budgets can be raised, not lowered",
        )


def _holds(grid: Grid, path: str, values: tuple[Any, ...]) -> bool:
    """Whether a grid's axis has all of these values."""
    return set(values) <= set(grid.axes.get(path, ()))


def _same_machinery(
    old: Results, engine: Engine, path: Path | None, *, to_the_bit: bool
) -> list[str]:
    """Refuses to go on with an engine that would not give the same bits.

    Returns:
        Names of facts that the file does not tell, as older ones do not.
    """
    # cuda:1 computes as cuda:0 does
    was: facts.Facts = {
        name: (str(old.provenance.get(name, "")).partition(":")[0],)
        for name in ("engine", "device")
    }
    now: facts.Facts = {"engine": (engine.name,), "device": (engine.device.type,)}
    if was == now and to_the_bit:
        was |= facts.read(str(old.provenance.get("engine_detail", "")))
        now |= facts.read(engine.detail)
    changed = facts.broken(was, now)
    if not changed:
        return [name for name in now if name not in was]

    def told(known: facts.Facts) -> str:
        rest = [
            f"{name} {' and '.join(known.get(name, ('unknown',)))}"
            for name in changed
            if name not in ("engine", "device")
        ]
        where = f"{known['engine'][0]} on {known['device'][0]}"
        return f"{where} ({', '.join(rest)})" if rest else where

    give = facts.remedies(was, changed)
    raise UsageError(
        f"{path} was trained by {told(was)}, not {told(now)}: the bits would differ",
        hint=f"give {', '.join(give)}, or another --out" if give else "choose another --out",
    )


def _same_data(old: Results, grid: Grid, buckets: list[Bucket], path: Path | None) -> None:
    """Refuses to go on with other data than the run began with."""
    was, now = old.data_digests(), data_digests(grid, buckets)
    for identity, digest in was.items():
        if now.get(identity, digest) != digest:
            raise UsageError(
                f"{path} was trained on other data than task "
                f"{json.loads(identity)['task']['name']!r} gives now",
                hint="choose another --out, or --overwrite to start anew",
            )


class _Trainer:
    """State and loop of one run."""

    def __init__(self, ready: _Ready, out: Path | None, progress: Progress) -> None:
        self.grid, self.buckets, self.engine = ready.grid, ready.buckets, ready.engine
        self.out, self.progress = out, progress
        self.observers = [Observer(b) for b in self.buckets]
        self.states = [State.initial(b) for b in self.buckets]
        for observer, state in zip(self.observers, self.states, strict=True):
            observer.prepare(state)
        self.outcome_only = [torch.zeros(p.num_cells, dtype=torch.bool) for p in self.buckets]
        self.provenance = provenance(self.engine, self.grid, self.buckets)
        self.known: Results | None = None  # what the file said when the run was taken up again
        self.signum: int | None = None
        self._begun = time.monotonic()
        self._steps_before = 0
        self._base = 0  # cell-steps accounted for when the engine was last called
        self._saved = time.monotonic()
        self._save_took = 0.0

    def restore(self, old: Results) -> None:
        """Takes up what results file and checkpoint hold. Where both know a cell, the checkpoint
        is right: lockstep engines must regroup the cells that trained together."""
        assert self.out is not None
        self.known = old
        self.provenance = merged_provenance(self.provenance, old.provenance)
        rows = load_checkpoint(checkpoint_path(self.out))
        for bucket, state in zip(self.buckets, self.states, strict=True):
            for m, index in enumerate(bucket.cells):
                row = rows.get(self.grid.keys[index])
                if row is not None:
                    restore_row(state, m, row)
        self.outcome_only = restore_finished(old, self.grid, self.buckets, self.states, set(rows))

    def run(self) -> Results:
        """Trains to the end, or raises Interrupted."""
        self.states = [s.to(self.engine.device) for s in self.states]
        self._steps_before = self._steps_done()
        if self.out is not None:
            self.save()  # before any work: an unwritable place is found now
        with _signals(self):
            self.progress.start(self._total(), self._accounted())
            try:
                for observer, state in zip(self.observers, self.states, strict=True):
                    self._train(observer, state)
            finally:
                self.progress.stop()
        results = self.save()
        if self.signum is not None:
            raise Interrupted(self.signum, self.out)
        return results

    def _train(self, observer: Observer, state: State) -> None:
        bucket = observer.bucket
        chunk, budget = self.engine.chunk, bucket.cell.steps
        while self.signum is None:
            left = torch.nonzero(~state.done(bucket))[:, 0]
            if not len(left):
                return
            at = state.step[left]
            first = int(at.min())
            until = min(budget, (first // chunk + 1) * chunk, observer.next_step(first) or budget)
            left = left[at < until]
            self._base = self._accounted()
            self.engine.advance(bucket, state, left, until, self._tick)
            observer.record(state, left)
            self.progress.update(self._accounted(), self._counts())
            if self._save_is_due():
                self.save()

    def _save_is_due(self) -> bool:
        pause = max(SAVE_EVERY, self._save_took / SAVE_SHARE)
        return self.out is not None and time.monotonic() - self._saved > pause

    def _tick(self, done: int) -> bool:
        """Whether the engine shall return early."""
        self.progress.update(self._base + done, None)
        return self.signum is not None or (self.engine.keeps_partial and self._save_is_due())

    def _total(self) -> int:
        return sum(p.num_cells * p.cell.steps for p in self.buckets)

    def _steps_done(self) -> int:
        return sum(int(s.step.sum()) for s in self.states)

    def _accounted(self) -> int:
        """Cell-steps that need no more work: all of a finished cell's budget counts."""
        return self._total() - sum(self.left())

    def left(self) -> list[int]:
        """Cell-steps that each bucket has before it; a finished cell has none."""
        return [
            int(torch.where(s.done(p), 0, p.cell.steps - s.step).sum())
            for p, s in zip(self.buckets, self.states, strict=True)
        ]

    def _counts(self) -> dict[str, int]:
        """Cells per phase, and diverged, of the states."""
        found: dict[str, int] = {}
        for bucket, state in zip(self.buckets, self.states, strict=True):
            phase = phases_now(self.grid, bucket, state)
            for name, number in counts(phase, bucket.cell.phase.phases).items():
                found[name] = found.get(name, 0) + number
        diverged = sum(int((state.diverged_at >= 0).sum()) for state in self.states)
        return found | {"diverged": diverged}

    def results(self) -> Results:
        """What is known now."""
        now = self._provenance_now()
        return collect(self.grid, self.buckets, self.states, now, self.known)

    def _provenance_now(self) -> dict[str, Any]:
        took = time.monotonic() - self._begun
        steps = self._steps_done() - self._steps_before
        return {
            **self.provenance,
            "wall_seconds": round(self.provenance.get("wall_seconds", 0.0) + took, 3),
            "model_steps_per_second": round(steps / took, 1) if took and steps else 0.0,
            "updated_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def save(self) -> Results:
        """Results first, then the checkpoint: a cell is never in neither."""
        start = time.monotonic()
        results = self.results()
        if self.out is not None:
            results.save(self.out)
            save_checkpoint(
                checkpoint_path(self.out), self.grid, self.buckets, self.states, self.outcome_only
            )
        self._saved = time.monotonic()
        self._save_took = self._saved - start
        return results


@contextlib.contextmanager
def _signals(trainer: _Trainer) -> Iterator[None]:
    """SIGINT and SIGTERM ask the trainer to stop; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: Any) -> None:
        if trainer.signum is not None:
            raise SystemExit(128 + signum)
        trainer.signum = signum

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
