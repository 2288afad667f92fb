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

from grokfast.checkpoint import restore_checkpoint, save_checkpoint
from grokfast.collect import collect, phases_now, restore_finished
from grokfast.engines import Engine
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError, counted
from grokfast.grid import Grid
from grokfast.observing import Observer
from grokfast.phases import counts, letters
from grokfast.preparing import Ready, as_grid, checked_cells, prepare
from grokfast.progress import Progress, make_progress
from grokfast.provenance import merged_provenance, provenance
from grokfast.results import Results
from grokfast.signals import handled
from grokfast.state import State
from grokfast.storage.files import (
    checkpoint_path,
    clear_leftovers,
    parts_folder,
    real_path,
    results_path,
)
from grokfast.storage.locks import locked

#: Seconds between writes of results and checkpoint, at least; more where writing would otherwise
#: take a larger share of the time than this.
SAVE_EVERY = 30.0
SAVE_SHARE = 0.05


class Interrupted(GrokfastError):
    """A signal asked to stop (:data:`grokfast.signals.STOPPING`); all done so far is on disk."""

    def __init__(self, signum: int, out: Path | None, checkpoint: bool = True) -> None:
        where = f"saved to {out}" if out else "nothing was saved (no output file)"
        again = "" if checkpoint else ", and trains unfinished cells again (there is no checkpoint)"
        super().__init__(
            f"interrupted by {signal.Signals(signum).name}; {where}",
            hint=f"the same command goes on{again}" if out else None,
        )
        self.exit_code = 128 + signum


def run(
    grid: Grid | str,
    *,
    out: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    checkpoint: bool = True,
    save_every: float | None = None,
    progress: bool | Progress | None = None,
) -> Results:
    """Trains every cell of a grid to its stop rule or budget.

    Args:
        grid: see :func:`grokfast.preset` and :class:`grokfast.Grid`; or the name of a preset.
        out: results file; an existing one is continued, extended or raised in budget. Without
            it nothing is written and nothing can be resumed.
        engine, device, threads: see :func:`grokfast.engines.choose_engine`.
        shard: ``(i, n)`` trains every n-th cell only: see :meth:`grokfast.Grid.shard`.
        overwrite: start anew over an existing file.
        checkpoint: whether the state of cells that can still be trained is kept beside the results,
            in ``<out>.ckpt``. Without it an interrupted run keeps its finished cells, and trains
            the others again from the start; a raised budget, all of them.
        save_every: seconds between writes of both, at least; 30 by default. More where writing
            would take a larger share of the time than 5%.
        progress: False for silence; None for a bar on a terminal and plain lines elsewhere;
            or what is told of it.

    Raises:
        UsageError: the grid does not fit the existing file, the engine or the data.
        EnvironmentProblem: missing data, compiled parts or disk space.
        Interrupted: a signal asked to stop, and everything was saved.
    """
    grid = as_grid(grid)
    path = real_path(results_path(out)) if out is not None else None
    if save_every is not None and not save_every >= 0:
        raise UsageError(f"save_every is {save_every!r}; give seconds, 0 or more")
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
        trainer = Trainer(ready, path, reporter, checkpoint=checkpoint, save_every=save_every)
        if path is not None:
            if ready.old is None:  # or --overwrite: a checkpoint without results is an orphan
                checkpoint_path(path).unlink(missing_ok=True)
            else:
                trainer.restore(ready.old)
        reporter.note(f"engine: {ready.why}")
        if path is not None:
            state = f", with {checkpoint_path(path).name} to go on from" if checkpoint else ""
            reporter.note(f"saved every {trainer.save_every:g} s to {path}{state}")
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

    def __init__(
        self,
        ready: Ready,
        out: Path | None,
        progress: Progress,
        *,
        checkpoint: bool = True,
        save_every: float | None = None,
    ) -> None:
        self.grid, self.buckets, self.engine = ready.grid, ready.buckets, ready.engine
        self.out, self.progress = out, progress
        self.checkpoint = checkpoint
        self.save_every = SAVE_EVERY if save_every is None else save_every
        self.observers = [Observer(b, self.engine.measures(b)) for b in self.buckets]
        self.states = [State.initial(b) for b in self.buckets]
        for observer, state in zip(self.observers, self.states, strict=True):
            observer.prepare(state)
        #: Of each bucket the cells that need no row in the checkpoint, bool ``[M]``: the results
        #: file holds their end, or their outcome alone is known.
        self.kept = [torch.zeros(p.num_cells, dtype=torch.bool) for p in self.buckets]
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
        self.kept = restore_finished(old, self.grid, self.buckets, self.states, rows)
        cells, steps = self._lost(old)
        if steps:
            why = "does not hold their state" if there else "is not there"
            warnings.warn(
                f"{counted(cells, 'unfinished cell')} to start again, "
                f"{counted(steps, 'model-step')} to train a second time: {checkpoint} {why}",
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
            # Before any work: an unwritable place is found now. The checkpoint is as it was, and
            # one of a larger budget never lies beside results of a smaller one.
            self._save_results(self.results())
        with handled(self._asked_to_stop):
            names = letters(bucket.cell.phase for bucket in self.buckets)
            self.progress.start(self._total(), self._accounted(), names)
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
            raise Interrupted(self.signum, self.out, self.checkpoint)
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
        pause = max(self.save_every, self._save_took / SAVE_SHARE)
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
        """The checkpoint, then the results: it is never behind them, and a process that is killed
        between the two has lost nothing."""
        start = time.monotonic()
        results = self.results()
        if self.out is not None:
            try:
                self._save_checkpoint()
            finally:  # where it cannot be written, what was found still can
                more = self._save_results(results)
            if more and results.complete:
                self._save_checkpoint()  # without the cells that it held for the results alone
        self._saved = time.monotonic()
        self._save_took = self._saved - start
        return results

    def _save_checkpoint(self) -> None:
        if not self.checkpoint:
            return
        assert self.out is not None
        path = checkpoint_path(self.out)
        save_checkpoint(path, self.grid, self.buckets, self.states, self.kept)

    def _save_results(self, results: Results) -> bool:
        """Whether there are cells whose end the file holds only now."""
        assert self.out is not None
        results.save(self.out)
        before, pairs = self.kept, zip(self.buckets, self.states, self.kept, strict=True)
        self.kept = [kept | state.frozen(bucket).cpu() for bucket, state, kept in pairs]
        return any((now & ~was).any() for now, was in zip(self.kept, before, strict=True))


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
