"""The driver: plans, hands out blocks, watches, and joins the parts. It trains nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokfast.cluster import extensions
from grokfast.cluster.blocks import Block, operations, strides
from grokfast.cluster.engine import Cluster, Lost, connected
from grokfast.cluster.kinds import choose
from grokfast.cluster.parts import Parts, read_json
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
from grokfast.grid import Grid
from grokfast.phases import letters
from grokfast.preparing import checked_cells, existing, same_run
from grokfast.progress import Progress, make_progress
from grokfast.results import DIVERGED, OK, Results
from grokfast.signals import handled
from grokfast.storage.files import (
    checkpoint_path,
    clear_leftovers,
    parts_folder,
    real_path,
    results_path,
)
from grokfast.storage.locks import locked
from grokfast.trainer import SAVE_EVERY, Interrupted

#: Lives of a block that may end without a single step before it is given up.
LIVES = 3
#: Tasks handed to Ray beyond what its machines hold, so that none waits for the driver.
_AHEAD = 2
#: Seconds between looks at diaries and machines, at least, and for new machines to answer.
_LOOK_EVERY, _ANSWER = 2.0, 120.0
#: Shares of the time that looking and joining may take.
_LOOK_SHARE, _JOIN_SHARE = 0.005, 0.01
#: Seconds that tasks may take to save when all is to stop.
_GRACE = 120.0
#: Cells that failed, characters of the reason, and reasons that a file names, at most: HDF5 takes
#: 64 kB an attribute.
_CELLS, _REASONS = 500, 10
#: Fewest cells of a block: a GPU trains as many at once as it has multiprocessors, and more.
_LEAST = {"cpu": 1, "cuda": 264}


class SomeFailed(GrokfastError):
    """Some cells cannot be trained; all others are done, and saved."""

    exit_code = 4


def run(
    grid: Grid,
    *,
    out: str | Path,
    address: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    save_every: float | None = None,
    progress: bool | Progress | None = None,
) -> Results:
    """Trains every cell of a grid on the machines of a Ray cluster, as :func:`grokfast.run` does on
    one; the file is the same.

    Args:
        grid: its own tasks, models and so on travel as the files that register them.
        out: results file, on storage that all machines share under the same path.
        address: ``HOST:PORT`` of a cluster that this machine belongs to, or ``auto``; without it
            that of RAY_ADDRESS, or a Ray of this machine alone, which ends with the run.
        engine: as of :func:`grokfast.run`.
        device: ``cpu``, or ``cuda`` for one GPU a task; ``auto`` for GPUs where there are any.
        threads: cores of a task, 1 by default.
        overwrite, save_every, progress: as of :func:`grokfast.run`.

    Raises:
        UsageError, EnvironmentProblem: as of :func:`grokfast.run`; Ray is not installed, no cluster
            is at the address, or none of its machines can train this.
        SomeFailed: all other cells are done.
        Interrupted: a signal asked to stop, and everything was saved.
    """
    path = real_path(results_path(out))
    if device.startswith("cuda:"):
        raise UsageError(f"--device={device} is for one machine", hint="--device=cuda: Ray chooses")
    indices = checked_cells(grid, "cpu" if device == "cuda" else device, threads, None)
    reporter = make_progress(progress)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(path))
        clear_leftovers(path)
        old = existing(path, overwrite)
        if old is not None:
            grid = grid.aligned(old.grid)
            same_run(old, grid, indices, path)
            if _complete(old, grid) and not parts_folder(path).exists():
                reporter.note(f"{path} is complete")
                return old
            if device == "auto":
                device = str(old.provenance.get("device", device)).partition(":")[0]
        if device == "auto" and engine == "native":
            device = "cpu"
        cluster = stack.enter_context(connected(address, device, threads or 1))
        if overwrite:
            _remove(path)
        return Driver(cluster, grid, path, old, engine, threads or 1, save_every, reporter).run()


def _complete(old: Results, grid: Grid) -> bool:
    same = old.grid.to_json() == grid.to_json() and len(old) == grid.size
    return old.complete and same


def _remove(path: Path) -> None:
    """What lies of an earlier run beside a file that begins anew."""
    checkpoint_path(path).unlink(missing_ok=True)
    shutil.rmtree(parts_folder(path), ignore_errors=True)


class Driver:
    """One run, from the first look at the machines to the last part."""

    def __init__(
        self,
        cluster: Cluster,
        grid: Grid,
        out: Path,
        old: Results | None,
        engine: str,
        threads: int,
        save_every: float | None,
        progress: Progress,
    ) -> None:
        self.cluster, self.grid, self.out, self.old = cluster, grid, out, old
        self.threads, self.save_every, self.progress = threads, save_every, progress
        was = dict(old.provenance) if old is not None else {}
        self.engine = str(was.get("engine", engine)) if engine == "auto" else engine
        self.signum: int | None = None
        self.refused: dict[str, str] = {}  # nodes that cannot take part, and why
        self.kind: dict[str, str] = {}
        self.running: dict[Any, Block] = {}
        self.failed: dict[int, str] = {}  # blocks that were given up, and why
        self._room = 0  # tasks that all machines hold at once
        self._lives: dict[int, tuple[int, int]] = {}  # how many since which step
        self._diaries: dict[int, dict[str, Any]] = {}
        self._looked = self._joined = -1e9
        self._look_took = self._join_took = 0.0

    def run(self) -> Results:
        with handled(self._asked_to_stop):
            self._begin()
            left = [b for b in self.parts.blocks if not self.parts.done(b)]
            left.sort(key=self._work_of, reverse=True)  # the longest first: the rest fills the gaps
            self.waiting = deque(left)
            names = letters([self.grid.experiment.phase])
            self.progress.start(self._total(), self._accounted(), names)
            try:
                while (self.waiting or self.running) and self.signum is None:
                    self._hand_out()
                    self._take_in(self.cluster.ended(self.running, 1.0))
                    self._look()
                if self.signum is not None:
                    self._stop()
            finally:
                self._tell()
                self.progress.stop()
        return self._end()

    def _asked_to_stop(self, signum: int, frame: Any) -> None:
        self.signum = self.signum or signum

    # Before the first task.

    def _begin(self) -> None:
        workers = sum(m.slots for m in self.cluster.machines())
        if not workers:
            what = "a GPU" if self.cluster.device == "cuda" else f"{self.threads} cores"
            raise EnvironmentProblem(f"no machine of the Ray cluster has {what} for a task")
        least = _LEAST[self.cluster.device]
        self.parts = Parts(self.out, self.grid, strides(self.grid, workers, least), self.old)
        told = read_json(self.parts.folder / "run.json")
        if self.parts.same_as(told, workers):
            self.parts = Parts(self.out, self.grid, told["strides"], self.old)
        else:
            if told:
                self._fold(told)
            self.parts.begin()
        try:
            self.files = extensions.pack(self.grid, self.parts.folder)
            self.token = read_json(self.parts.folder / "run.json")["token"]
            self._choose_machines()
        except GrokfastError:
            if not told:  # nothing has been trained
                shutil.rmtree(self.parts.folder, ignore_errors=True)
            raise
        self._steps = {b.number: self._budget(b) for b in self.parts.blocks}
        self._known = {b.number: self.parts.accounted(b) for b in self.parts.blocks}
        self._diaries = {b.number: read_json(self.parts.diary(b)) for b in self.parts.blocks}
        self._trained_before = {number: _trained(d) for number, d in self._diaries.items()}

    def _fold(self, told: Mapping[str, Any]) -> None:
        """Makes one file of the parts of an earlier run, of other cells or fewer blocks."""
        before = Parts(self.out, Grid.from_dict(told["grid"]), told["strides"], self.old)
        if not any(before.results(block) for block in before.blocks):
            return
        before.joined().save(self.out)
        before.finish()
        self.old = existing(self.out, False)
        assert self.old is not None
        self.grid = self.grid.aligned(self.old.grid)
        same_run(self.old, self.grid, list(range(self.grid.size)), self.out)
        self.parts = Parts(self.out, self.grid, self.parts.by, self.old)

    def _order(self, grid: Grid) -> dict[str, Any]:
        """What every task is told."""
        return {
            "grid": grid.to_dict(),
            "folder": str(self.parts.folder.absolute()),
            "token": self.token,
            "extensions": self.files,
            "threads": self.threads,
            "save_every": self.save_every,
        }

    def _choose_machines(self) -> None:
        """Those that give the bits of the file; of the others a line says why not."""
        order = self._order(operations(self.grid))
        order |= {"engine": self.engine, "device": self.cluster.device}
        machines = self.cluster.machines()
        told = self.cluster.look(machines, json.dumps(order), _ANSWER)
        choice = choose({m: json.loads(text) for m, text in told.items()}, self._was(), self.out)
        for machine, why in choice.others.items():
            self._refuse(machine.node, machine.host, why)
        self.kind = choice.kind
        slots, number = sum(m.slots for m in choice.machines), len(choice.machines)
        self.progress.note(f"engine: {choice.why}")
        self.progress.note(
            f"ray: {len(self.parts.blocks)} blocks of cells, {slots} at a time on {number} "
            f"machine{'s' * (number > 1)}"
        )

    def _was(self) -> dict[str, str]:
        """By what the parts, or the file before them, were trained; nothing where they were not."""
        of_parts = (self.parts.results(block) for block in self.parts.blocks)
        found = next((r for r in of_parts if r is not None), self.old)
        if found is None:
            return {}
        names = ("engine", "device", "engine_detail")
        was = {name: str(found.provenance.get(name, "")) for name in names}
        return was | {"device": was["device"].partition(":")[0]}

    def _refuse(self, node: str, host: str, why: str) -> None:
        if node not in self.refused:
            self.refused[node] = why
            self.progress.note(f"ray: without {host}, which {why}")

    # While it goes on.

    def _hand_out(self) -> None:
        room = sum(m.slots for m in self.cluster.machines() if m.node not in self.refused)
        if not room and self._room:
            self.progress.note("ray: no machine is left; waiting for one")
        self._room = room
        while self.waiting and len(self.running) < room + _AHEAD:
            block = self.waiting.popleft()
            order = self._order(block.grid) | {
                "part": str(self.parts.path(block).absolute()),
                "diary": str(self.parts.diary(block).absolute()),
                "kind": self.kind,
            }
            self.running[self.cluster.train(json.dumps(order), self.refused)] = block

    def _take_in(self, ended: list[Any]) -> None:
        for reference in ended:
            block = self.running.pop(reference)
            self._read(block)
            try:
                told = json.loads(self.cluster.outcome(reference))
            except Lost as error:
                self._again(block, str(error), lost=True)
                continue
            match told["end"]:
                case "done":
                    self._known[block.number] = self._steps[block.number]
                case "stopped":
                    self.waiting.appendleft(block)
                case "refused":
                    self._refuse(told["node"], told["host"], f"is of another kind: {told['why']}")
                    self.waiting.appendleft(block)
                case "failed" if told["final"]:
                    self._give_up(block, told["why"])
                case "failed":
                    self._again(block, f"{told['why']} on {told['host']}", lost=False)
                case other:
                    raise ValueError(f"unknown end {other!r}")

    def _again(self, block: Block, why: str, lost: bool) -> None:
        """Has another worker go on with a block, as long as it comes any further."""
        steps = _trained(read_json(self.parts.diary(block)))
        lives, since = self._lives.get(block.number, (0, -1))
        lives = lives + 1 if steps <= since else 1
        self._lives[block.number] = lives, max(since, steps)
        if lives >= LIVES:
            self._give_up(block, why)
            return
        self.progress.note(f"ray: block {block.number} goes on elsewhere: {why}")
        part = self.parts.path(block)
        # Its holder is dead by Ray's word. Should it be only cut off, both write the same bits.
        part.with_name(part.name + ".lock").unlink(missing_ok=True)
        (self.waiting.appendleft if lost else self.waiting.append)(block)

    def _give_up(self, block: Block, why: str) -> None:
        self.failed[block.number] = why
        self.progress.note(f"ray: block {block.number} is given up: {why}")

    def _look(self) -> None:
        """Progress, and now and then the file of all parts."""
        now = time.monotonic()
        if now - self._looked > max(_LOOK_EVERY, self._look_took / _LOOK_SHARE):
            self._tell()
            self._looked = time.monotonic()
            self._look_took = self._looked - now
        every = SAVE_EVERY if self.save_every is None else self.save_every
        if now - self._joined > max(every, self._join_took / _JOIN_SHARE):
            try:
                self._results().save(self.out)
            except EnvironmentProblem as error:
                warnings.warn(f"{error}; training goes on, and saving is tried again", stacklevel=2)
            self._joined = time.monotonic()
            self._join_took = self._joined - now

    def _tell(self) -> None:
        for block in self.running.values():
            self._read(block)
        counts: dict[str, int] = {}
        trained = 0
        for number, told in self._diaries.items():
            trained += _trained(told) - self._trained_before[number]
            for name, cells in told.get("counts", {}).items():
                counts[name] = counts.get(name, 0) + cells
        self.progress.update(self._accounted(), trained, counts or None)

    def _read(self, block: Block) -> None:
        if told := read_json(self.parts.diary(block)):
            self._diaries[block.number] = told
            self._known[block.number] = told.get("done", 0)

    def _budget(self, block: Block) -> int:
        return sum(self.grid.cells[cell].steps for cell in block.cells)

    def _work_of(self, block: Block) -> int:
        return self._steps[block.number] - self._known[block.number]

    def _total(self) -> int:
        return sum(self._steps.values())

    def _accounted(self) -> int:
        return sum(self._known.values())

    # At the end.

    def _stop(self) -> None:
        """Has all tasks save what they have."""
        self.cluster.cancel(self.running)
        until = time.monotonic() + _GRACE
        while self.running and time.monotonic() < until:
            for reference in self.cluster.ended(self.running, 1.0):
                self._read(self.running.pop(reference))

    def _results(self) -> Results:
        whole = self.parts.joined()
        # Of a run that was stopped before its first part, nothing else tells the kind.
        whole.provenance = self.kind | whole.provenance | {"launcher": "ray"}
        whole.provenance["machines"] = self._machines()
        if self.failed:
            told = list(self._failures(whole).items())
            whole.provenance["failed"] = [
                {"cells": cells[:_CELLS], "number": len(cells), "why": why[:_CELLS]}
                for why, cells in told[:_REASONS]
            ]
        return whole

    def _failures(self, whole: Results) -> dict[str, list[int]]:
        """Why cells could not be trained to their end -> these cells."""
        ended = set(whole["run"][np.isin(whole["status"], (OK, DIVERGED))].tolist())
        found: dict[str, list[int]] = {}
        for number, why in self.failed.items():
            cells = self.parts.blocks[number].cells
            found.setdefault(why, []).extend([c for c in cells if c not in ended] or cells)
        return found

    def _machines(self) -> list[dict[str, Any]]:
        """All that had a hand in it, those of a kind together."""
        was = self.old.provenance.get("machines", []) if self.old is not None else []
        kinds: dict[str, dict[str, None]] = {}
        for entry in json.loads(was) if isinstance(was, str) else was:
            key = json.dumps({n: v for n, v in entry.items() if n != "hosts"}, sort_keys=True)
            kinds.setdefault(key, {}).update(dict.fromkeys(entry["hosts"]))
        for block in self.parts.blocks:
            for host, told in read_json(self.parts.diary(block)).get("hosts", {}).items():
                kinds.setdefault(json.dumps(told["kind"], sort_keys=True), {})[host] = None
        return [json.loads(kind) | {"hosts": list(hosts)} for kind, hosts in kinds.items()]

    def _end(self) -> Results:
        results = self._results()
        results.save(self.out)
        if self.signum is not None:
            raise Interrupted(self.signum, self.out)
        if self.failed:
            failures = self._failures(results)
            why, cells = next(iter(failures.items()))
            number = sum(map(len, failures.values()))
            raise SomeFailed(
                f"{number} of {len(results)} cells could not be trained, cell {cells[0]} first: "
                f"{why}; the others are in {self.out}, and which failed is in its provenance",
                hint="the same command tries them again",
            )
        self.parts.finish()
        return results


def _trained(diary: Mapping[str, Any]) -> int:
    """Model-steps that a block has taken, in all of its lives."""
    return sum(int(host["trained"]) for host in diary.get("hosts", {}).values())
