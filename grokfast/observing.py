"""When observables are measured, and where their values go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.errors import GrokfastError
from grokfast.experiment import Recording
from grokfast.observables import OBSERVABLES, Observable, Snapshot
from grokfast.spacing import logspace
from grokfast.state import State
from grokfast.tasks import Task

#: Log-spaced points of an observable without steps of its own, to a budget of 10^6.
_POINTS = 100


def observed_steps(record: Recording, budget: int) -> dict[str, np.ndarray]:
    """Observable -> the steps after which it is measured, 0 (the initial state) included: sorted
    int64 ``[S]``. Those of a larger budget begin with those of a smaller one."""
    found: dict[str, np.ndarray] = {}
    if record.embeddings:
        found["embeddings"] = np.arange(0, budget + 1, record.embeddings, dtype=np.int64)
    for entry in record.observables:
        name, _, every = entry.partition(":")
        if every:
            steps = np.arange(0, budget + 1, int(every), dtype=np.int64)
        else:
            spaced = np.array(logspace(0, 6, _POINTS)).astype(np.int64)
            steps = np.unique([0, *spaced[spaced <= budget]])
        found[name] = steps
    return found


@dataclass(frozen=True)
class Observer:
    """The measurements of one bucket."""

    bucket: Bucket

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """See :func:`observed_steps`."""
        return observed_steps(self.bucket.cell.record, self.bucket.cell.steps)

    @cached_property
    def _all_steps(self) -> np.ndarray:
        return np.unique(np.concatenate([[], *self.steps.values()])).astype(np.int64)

    def next_step(self, step: int) -> int | None:
        """The first step after this one at which something is measured."""
        at = int(np.searchsorted(self._all_steps, step, side="right"))
        return int(self._all_steps[at]) if at < len(self._all_steps) else None

    def check(self) -> None:
        """Looks at whether everything can be measured, on one initial model.

        Raises:
            UsageError: an observable that this network does not have.
        """
        params = {
            name: p[None] for name, p in zip(self.bucket.names, self.bucket.init[0], strict=True)
        }
        for name in self.steps:
            self._shape(name, params)

    def _shape(self, name: str, params: dict[str, Tensor]) -> torch.Size:
        """Of the values of a cell, whose parameters may have overflowed."""
        finite = {parameter: torch.nan_to_num(p, 0.0, 1.0, -1.0) for parameter, p in params.items()}
        here = Snapshot(finite, self.bucket.cell, self._tasks([0]))
        return OBSERVABLES[name].compute(here).shape[1:]

    def prepare(self, state: State) -> None:
        """Makes room in the state, and measures its cells, which are at step 0."""
        m = self.bucket.num_cells
        for name, steps in self.steps.items():
            values = self._measured(name, state, torch.arange(m))
            room = torch.full((m, len(steps), *values.shape[1:]), torch.nan)
            room[:, 0] = values
            state.observed[name] = room

    def record(self, state: State, cells: Tensor) -> None:
        """Measures the cells ``[K]`` that are now at a step at which something is measured."""
        if not self.steps:
            return
        at = state.step[cells]
        for step in at.unique().tolist():
            here = cells[(at == step).to(cells.device)]
            for name, steps in self.steps.items():
                s = int(np.searchsorted(steps, step))
                if s < len(steps) and steps[s] == step:
                    state.observed[name][here, s] = self._measured(name, state, here)

    def _measured(self, name: str, state: State, cells: Tensor) -> Tensor:
        """Values of these cells ``[K, ...]``; NaN in those in which they cannot be computed, as of
        parameters that have overflowed."""
        try:
            return self._computed(name, state, cells)
        except GrokfastError:
            raise
        except (RuntimeError, ArithmeticError, ValueError) as error:
            rows, reason = [self._alone(name, state, cell) for cell in cells.split(1)], error
        first = {n: p[cells[:1]] for n, p in zip(self.bucket.names, state.params, strict=True)}
        nothing = torch.full((1, *self._shape(name, first)), torch.nan, device=cells.device)
        missing = sum(row is None for row in rows)
        warnings.warn(
            f"observable {name} failed in {missing} cells, and is NaN there: "
            f"{str(reason).splitlines()[0]}",
            stacklevel=2,
        )
        return torch.cat([nothing if row is None else row for row in rows])

    def _alone(self, name: str, state: State, cell: Tensor) -> Tensor | None:
        """Values of one cell ``[1, ...]``, if it has some."""
        try:
            return self._computed(name, state, cell)
        except (RuntimeError, ArithmeticError, ValueError):
            return None

    def _computed(self, name: str, state: State, cells: Tensor) -> Tensor:
        observable: Observable = OBSERVABLES[name]
        params = {
            parameter: p[cells]
            for parameter, p in zip(self.bucket.names, state.params, strict=True)
        }
        tasks = self._tasks(cells.tolist())
        return observable.compute(Snapshot(params, self.bucket.cell, tasks)).float()

    def _tasks(self, cells: list[int]) -> list[Task]:
        return [self.bucket.tasks[d] for d in self.bucket.data_index[cells].tolist()]
