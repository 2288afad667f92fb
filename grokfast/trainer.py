"""The Trainer: the loop over chunks. Advance, collect, checkpoint, report, drop finished cells."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grokfast.checkpoint import checkpoint_path, load_checkpoint, restore_row, save_checkpoint
from grokfast.collect import collect, merged_provenance, provenance, restore_finished
from grokfast.engines import Engine, choose_engine, resolve_device
from grokfast.errors import GrokfastError, UsageError
from grokfast.files import clear_leftovers, locked
from grokfast.grid import Grid
from grokfast.program import Program, make_programs
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
        rate: model-steps per second.
        seconds: time without early stopping: an upper bound for ``stop=both``.
    """

    cells: int
    buckets: int
    engine: str
    memory_bytes: int
    disk_bytes: int
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
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; give 1 or more")
    resolve_device(device)  # before any data is looked for
    indices = grid.shard(*shard) if shard else list(range(grid.size))
    path = Path(out) if out is not None else None
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}")
    with contextlib.ExitStack() as stack:
        if path is not None:
            stack.enter_context(locked(path))
            clear_leftovers(path)
        old = _existing(path, grid, indices, overwrite)
        goes_on = False
        if old is not None and engine == "auto":
            goes_on, engine = True, str(old.provenance.get("engine", engine))
        programs = make_programs([grid.cells[i] for i in indices], indices)
        chosen, why = choose_engine(engine, programs, device, threads)
        _same_machinery(old, chosen, path)
        trainer = _Trainer(grid, programs, chosen, path, make_progress(progress))
        if path is not None:
            trainer.restore(old)
        if goes_on:
            why = f"{chosen.name} on {chosen.device} (as in {path})"
        trainer.progress.note(f"engine: {why}")
        return trainer.run()


def plan(
    grid: Grid,
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """What :func:`run` would do, from a few real steps that are thrown away.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    resolve_device(device)
    indices = grid.shard(*shard) if shard else list(range(grid.size))
    programs = make_programs([grid.cells[i] for i in indices], indices)
    chosen, why = choose_engine(engine, programs, device, threads)
    memory = sum(_state_bytes(p) for p in programs)
    records = sum(
        p.num_cells * (16 * len(p.curve_steps) + 4 * p.num_snapshots * int(np.prod(p.shapes[0])))
        for p in programs
    )
    seconds = sum(_measured_seconds(p, chosen) * p.num_cells * p.cell.steps for p in programs)
    total = sum(p.num_cells * p.cell.steps for p in programs)
    return Plan(
        cells=len(indices),
        buckets=len(programs),
        engine=why,
        memory_bytes=memory + records,
        disk_bytes=memory + 2 * records,
        rate=total / seconds,
        seconds=seconds,
    )


def _state_bytes(program: Program) -> int:
    item = 8 if program.cell.dtype == "float64" else 4
    return 3 * item * program.num_cells * sum(int(np.prod(s)) for s in program.shapes)


def _measured_seconds(program: Program, engine: Engine, budget: float = 2.0) -> float:
    """Seconds per model-step over at most 16 cells; a first call pays for compilation."""
    some = min(program.num_cells, 16)
    state = State.initial(program).to(engine.device)
    cells = torch.arange(some)
    until = program.steps_per_epoch * max(1, 20 // program.steps_per_epoch)
    engine.advance(program, state, cells, min(until, program.cell.steps))
    steps, took = 0, 0.0
    while took < budget / 4 and until < program.cell.steps:
        before = int(state.step[:some].sum())
        until = min(2 * until, program.cell.steps)
        start = time.perf_counter()
        engine.advance(program, state, cells, until)
        took = time.perf_counter() - start
        steps = int(state.step[:some].sum()) - before
        if steps == 0:
            break
    if not steps:  # every cell has stopped already, or the budget is a handful of steps
        state = State.initial(program).to(engine.device)
        start = time.perf_counter()
        engine.advance(program, state, cells, program.steps_per_epoch)
        took = time.perf_counter() - start
        steps = max(1, int(state.step[:some].sum()))
    return took / steps


def _existing(path: Path | None, grid: Grid, indices: list[int], overwrite: bool) -> Results | None:
    """The results to go on from, checked against the grid.

    Raises:
        UsageError: they belong to another experiment; the message shows what differs.
    """
    if path is None or overwrite or not path.exists():
        return None
    old = Results.load(path)
    new_cells = {grid.cells[i].identity() for i in indices}
    lost = [i for i in old["run"].tolist() if old.grid.cells[i].identity() not in new_cells]
    if lost:
        changes = [f"{k}: {v}" for k, v in old.grid.difference(grid).items() if k != "steps"]
        raise UsageError(
            f"{path} belongs to another run: "
            f"{'; '.join(changes) or 'it holds cells of another shard'}",
            hint="choose another --out, or --overwrite to start anew",
        )
    if old.grid.experiment.steps > grid.experiment.steps and "steps" not in grid.axes:
        raise UsageError(
            f"{path} was run with steps={old.grid.experiment.steps}, more than "
            f"{grid.experiment.steps}",
            hint="budgets can be raised, not lowered",
        )
    return old


def _same_machinery(old: Results | None, engine: Engine, path: Path | None) -> None:
    """Refuses to go on with an engine that would not give the same bits."""
    if old is None:
        return
    was = (old.provenance.get("engine"), old.provenance.get("device"))
    now = (engine.name, str(engine.device))
    if was != now:
        raise UsageError(
            f"{path} was trained by {was[0]} on {was[1]}, not {now[0]} on {now[1]}: "
            "the bits would differ",
            hint="give the same --engine and --device, or another --out",
        )


class _Trainer:
    """State and loop of one run."""

    def __init__(
        self,
        grid: Grid,
        programs: list[Program],
        engine: Engine,
        out: Path | None,
        progress: Progress,
    ) -> None:
        self.grid, self.programs, self.engine, self.out = grid, programs, engine, out
        self.progress = progress
        self.states = [State.initial(p) for p in programs]
        self.outcome_only = [torch.zeros(p.num_cells, dtype=torch.bool) for p in programs]
        self.provenance = provenance(engine, programs)
        self.signum: int | None = None
        self._begun = time.monotonic()
        self._steps_before = 0
        self._base = 0  # cell-steps accounted for when the engine was last called
        self._saved = time.monotonic()
        self._save_took = 0.0

    def restore(self, old: Results | None) -> None:
        """Takes up what results file and checkpoint hold. Where both know a cell, the checkpoint
        is right: lockstep engines must regroup the cells that trained together."""
        assert self.out is not None
        ckpt = checkpoint_path(self.out)
        if old is None:  # a new run, or --overwrite: a checkpoint without results is an orphan
            ckpt.unlink(missing_ok=True)
            return
        self.provenance = merged_provenance(self.provenance, old.provenance)
        rows = load_checkpoint(ckpt)
        for program, state in zip(self.programs, self.states, strict=True):
            for m, index in enumerate(program.cells):
                row = rows.get(self.grid.cells[index].identity())
                if row is not None:
                    restore_row(state, m, row)
        self.outcome_only = restore_finished(old, self.grid, self.programs, self.states, set(rows))

    def run(self) -> Results:
        """Trains to the end, or raises Interrupted."""
        self.states = [s.to(self.engine.device) for s in self.states]
        self._steps_before = self._steps_done()
        if self.out is not None:
            self.save()  # before any work: an unwritable place is found now
        with _signals(self):
            self.progress.start(self._total(), self._accounted())
            try:
                for program, state in zip(self.programs, self.states, strict=True):
                    self._train(program, state)
            finally:
                self.progress.stop()
        results = self.save()
        if self.signum is not None:
            raise Interrupted(self.signum, self.out)
        return results

    def _train(self, program: Program, state: State) -> None:
        chunk, budget = self.engine.chunk, program.cell.steps
        while self.signum is None:
            left = torch.nonzero(~state.done(program))[:, 0]
            if not len(left):
                return
            at = state.step[left]
            until = min(budget, (int(at.min()) // chunk + 1) * chunk)
            left = left[at < until]
            self._base = self._accounted()
            self.engine.advance(program, state, left, until, self._tick)
            self.progress.update(self._accounted(), self._counts())
            pause = max(SAVE_EVERY, self._save_took / SAVE_SHARE)
            if self.out is not None and time.monotonic() - self._saved > pause:
                self.save()

    def _tick(self, done: int) -> bool:
        self.progress.update(self._base + done, None)
        return self.signum is not None

    def _total(self) -> int:
        return sum(p.num_cells * p.cell.steps for p in self.programs)

    def _steps_done(self) -> int:
        return sum(int(s.step.sum()) for s in self.states)

    def _accounted(self) -> int:
        """Cell-steps that need no more work: all of a finished cell's budget counts."""
        return sum(
            int(torch.where(s.done(p), p.cell.steps, s.step).sum())
            for p, s in zip(self.programs, self.states, strict=True)
        )

    def _counts(self) -> dict[str, int]:
        return self.results().counts() | {
            "diverged": sum(int((s.diverged_at >= 0).sum()) for s in self.states)
        }

    def results(self) -> Results:
        """What is known now."""
        return collect(self.grid, self.programs, self.states, self._provenance_now())

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
                checkpoint_path(self.out), self.grid, self.programs, self.states, self.outcome_only
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
