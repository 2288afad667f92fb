"""The Trainer: the loop over chunks. Advance, collect, checkpoint, report, drop finished cells."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokfast.checkpoint import checkpoint_path, restore_checkpoint, save_checkpoint
from grokfast.collect import collect, phases_now, restore_finished
from grokfast.engines import Engine
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
from grokfast.files import clear_leftovers, parts_folder, real_path, writable
from grokfast.grid import Grid
from grokfast.locks import locked
from grokfast.observing import Observer
from grokfast.phases import counts
from grokfast.preparing import Ready, checked_cells, prepare
from grokfast.progress import Progress, make_progress
from grokfast.provenance import merged_provenance, provenance
from grokfast.results import Results
from grokfast.signals import handled
from grokfast.state import State

#: Seconds between writes of results and checkpoint, at least; more where writing would otherwise
#: take a larger share of the time than this.
SAVE_EVERY = 30.0
SAVE_SHARE = 0.05


class Interrupted(GrokfastError):
    """A signal asked to stop (:data:`grokfast.signals.STOPPING`); all done so far is on disk."""

    def __init__(self, signum: int, out: Path | None) -> None:
        where = f"saved to {out}" if out else "nothing was saved (no output file)"
        super().__init__(
            f"interrupted by {signal.Signals(signum).name}; {where}",
            hint="the same command goes on" if out else None,
        )
        self.exit_code = 128 + signum


def run(
    grid: Grid,
    *,
    out: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: bool | Progress | None = None,
) -> Results:
    """Trains every cell of a grid to its stop rule or budget.

    Args:
        grid: see :func:`grokfast.preset` and :class:`grokfast.Grid`.
        out: results file; an existing one is continued, extended or raised in budget. Without
            it nothing is written and nothing can be resumed.
        engine, device, threads: see :func:`grokfast.engines.choose_engine`.
        shard: ``(i, n)`` trains every n-th cell only; numbered from 0 or from 1.
        overwrite: start anew over an existing file.
        progress: False for silence; None for a bar on a terminal and plain lines elsewhere;
            or what is told of it.

    Raises:
        UsageError: the grid does not fit the existing file, the engine or the data.
        EnvironmentProblem: missing data, compiled parts or disk space.
        Interrupted: a signal asked to stop, and everything was saved.
    """
    path = real_path(writable(out)) if out is not None else None
    indices = checked_cells(grid, device, threads, shard)
    with contextlib.ExitStack() as stack:
        if path is not None:
            stack.enter_context(locked(path))
            clear_leftovers(path)
            clear_leftovers(checkpoint_path(path))
            _not_of_several(path, overwrite)
        ready = prepare(grid, indices, path, engine, device, threads, overwrite)
        reporter = make_progress(progress)
        if ready.complete:
            assert ready.old is not None
            reporter.note(f"{path} is complete")
            return ready.old
        trainer = Trainer(ready, path, reporter)
        if path is not None:
            if ready.old is None:  # or --overwrite: a checkpoint without results is an orphan
                checkpoint_path(path).unlink(missing_ok=True)
            else:
                trainer.restore(ready.old)
        reporter.note(f"engine: {ready.why}")
        return trainer.run()


def _not_of_several(path: Path, overwrite: bool) -> None:
    """Refuses to go on with what several machines have begun: its state is elsewhere."""
    parts = parts_folder(path)
    if overwrite or not (parts / "run.json").exists():
        shutil.rmtree(parts, ignore_errors=True)
    else:
        raise UsageError(
            f"{path} is of a run with --launcher=ray that has not ended; its state is in "
            f"{parts.name}",
            hint="go on with --launcher=ray; or remove that folder, and unfinished cells start "
            "again",
        )


class Trainer:
    """State and loop of one run."""

    def __init__(self, ready: Ready, out: Path | None, progress: Progress) -> None:
        self.grid, self.buckets, self.engine = ready.grid, ready.buckets, ready.engine
        self.out, self.progress = out, progress
        self.observers = [Observer(b, self.engine.measures(b)) for b in self.buckets]
        self.states = [State.initial(b) for b in self.buckets]
        for observer, state in zip(self.observers, self.states, strict=True):
            observer.prepare(state)
        self.outcome_only = [torch.zeros(p.num_cells, dtype=torch.bool) for p in self.buckets]
        self.provenance = provenance(self.engine, self.grid, self.buckets)
        self.known: Results | None = None  # what the file said when the run was taken up again
        self.signum: int | None = None
        self._begun = time.monotonic()
        self._steps_before = 0
        self._base = (0, 0)  # cell-steps accounted for and trained when an engine was last called
        self._saved = time.monotonic()
        self._save_took = 0.0

    def restore(self, old: Results) -> None:
        """Takes up what results file and checkpoint hold. Where both know a cell, the checkpoint
        is right: lockstep engines must regroup the cells that trained together."""
        assert self.out is not None
        self.known = old
        self.provenance = merged_provenance(self.provenance, old.provenance)
        checkpoint = checkpoint_path(self.out)
        there = checkpoint.exists()
        rows = restore_checkpoint(checkpoint, self.grid, self.buckets, self.states)
        self.outcome_only = restore_finished(old, self.grid, self.buckets, self.states, rows)
        cells, steps = self._lost(old)
        if steps:
            why = "does not hold their state" if there else "has gone"
            warnings.warn(
                f"{cells} unfinished cells start again, {steps:,} model-steps are trained a second "
                f"time: {checkpoint} {why}",
                stacklevel=3,
            )

    def _lost(self, old: Results) -> tuple[int, int]:
        """Cells that the file knows further than they are now, and the steps between."""
        keys = [old.grid.keys[i] for i in old["run"].tolist()]
        was = dict(zip(keys, old["steps_done"].tolist(), strict=True))
        behind = [
            was.get(self.grid.keys[index], 0) - step
            for bucket, state in zip(self.buckets, self.states, strict=True)
            for index, step in zip(bucket.cells, state.step.tolist(), strict=True)
        ]
        lost = [steps for steps in behind if steps > 0]
        return len(lost), sum(lost)

    def run(self) -> Results:
        """Trains to the end, or raises Interrupted."""
        self.states = [s.to(self.engine.device) for s in self.states]
        self._steps_before = self._steps_done()
        if self.out is not None:
            self.save()  # before any work: an unwritable place is found now
        with handled(self._asked_to_stop):
            self.progress.start(self._total(), self._accounted())
            try:
                for observer, state in zip(self.observers, self.states, strict=True):
                    self._train(observer, state)
            except Exception:
                # Ctrl+C reaches the compilers that a chunk waits for, too; such a chunk counts for
                # nothing, and the state is that before it.
                if self.signum is None or self.engine.keeps_partial:
                    raise
            finally:
                self.progress.stop()
            results = self.save()
        if self.signum is not None:
            raise Interrupted(self.signum, self.out)
        return results

    def _asked_to_stop(self, signum: int, frame: Any) -> None:
        """The first signal counts: a second one does not cut the save short."""
        self.signum = self.signum or signum

    def _train(self, observer: Observer, state: State) -> None:
        while self.signum is None:
            call = next_call(self.engine, observer, state)
            if call is None:
                return
            left, until = call
            self._base = self._accounted(), self._trained()
            self.engine.advance(observer.bucket, state, left, until, self._tick)
            observer.record(state, left)
            self.progress.update(self._accounted(), self._trained(), self._counts())
            if self._save_is_due():
                self._save_or_go_on()

    def _save_is_due(self) -> bool:
        pause = max(SAVE_EVERY, self._save_took / SAVE_SHARE)
        return self.out is not None and time.monotonic() - self._saved > pause

    def _tick(self, done: int) -> bool:
        """Whether the engine shall return early."""
        accounted, trained = self._base
        self.progress.update(accounted + done, trained + done, None)
        return self.signum is not None or (self.engine.keeps_partial and self._save_is_due())

    def _total(self) -> int:
        return sum(p.num_cells * p.cell.steps for p in self.buckets)

    def _steps_done(self) -> int:
        return sum(int(s.step.sum()) for s in self.states)

    def _trained(self) -> int:
        """Cell-steps of this run itself."""
        return self._steps_done() - self._steps_before

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
        steps = self._trained()
        return {
            **self.provenance,
            "wall_seconds": round(self.provenance.get("wall_seconds", 0.0) + took, 3),
            "model_steps_per_second": round(steps / took, 1) if took and steps else 0.0,
            "updated_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _save_or_go_on(self) -> None:
        """A save that only bounds what a crash may cost costs no run itself."""
        try:
            self.save()
        except EnvironmentProblem as error:
            warnings.warn(f"{error}; training goes on, and saving is tried again", stacklevel=2)
            self._saved = time.monotonic()

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


def next_call(engine: Engine, observer: Observer, state: State) -> tuple[Tensor, int] | None:
    """Which cells the engine is to train next, and up to which step: to the end of its chunk, or to
    where something is measured. None where all are done."""
    bucket = observer.bucket
    left = torch.nonzero(~state.done(bucket))[:, 0]
    if not len(left):
        return None
    at, budget = state.step[left], bucket.cell.steps
    first = int(at.min())
    chunk = (first // engine.chunk + 1) * engine.chunk
    until = min(budget, chunk, observer.next_step(first) or budget)
    return left[at < until], until
