"""When observables are measured, and where their values go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from grokfast.bucket import Bucket
from grokfast.errors import GrokfastError
from grokfast.experiment import Recording
from grokfast.models.loading import load
from grokfast.observables import OBSERVABLES, Observable, Samples, Snapshot
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
    """The measurements of one bucket.

    Attributes:
        by_engine: observables that the engine measures itself, without a stop.
    """

    bucket: Bucket
    by_engine: frozenset[str] = frozenset()

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """See :func:`observed_steps`."""
        return observed_steps(self.bucket.cell.record, self.bucket.cell.steps)

    @cached_property
    def _stops(self) -> dict[str, np.ndarray]:
        return {name: steps for name, steps in self.steps.items() if name not in self.by_engine}

    @cached_property
    def _all_stops(self) -> np.ndarray:
        return np.unique(np.concatenate([[], *self._stops.values()])).astype(np.int64)

    def next_step(self, step: int) -> int | None:
        """The first step after this one at which the engine must stop for a measurement."""
        at = int(np.searchsorted(self._all_stops, step, side="right"))
        return int(self._all_stops[at]) if at < len(self._all_stops) else None

    def check(self) -> None:
        """Looks at whether everything can be measured, on one initial model.

        Raises:
            UsageError: an observable that this network does not have.
        """
        _ = self.shapes

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Observable -> shape of its values in a cell at a step, measured on one initial model, of
        which a number that has overflowed is replaced.

        Raises:
            UsageError: an observable that this network does not have.
        """
        if not self.steps:
            return {}
        first = [torch.nan_to_num(p[None], 0.0, 1.0, -1.0) for p in self.bucket.init[0]]
        buffers = {name: b[None] for name, b in self.bucket.init_buffers[0].items()}
        snapshot = self._snapshot(first, buffers, [0])
        return {name: OBSERVABLES[name].compute(snapshot).shape[1:] for name in self.steps}

    @property
    def sizes(self) -> dict[str, int]:
        """Observable -> how many values a cell has at a step."""
        return {name: shape.numel() for name, shape in self.shapes.items()}

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
        if not self._stops:
            return
        at = state.step[cells]
        for step in at.unique().tolist():
            here = cells[(at == step).to(cells.device)]
            for name, steps in self._stops.items():
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
        nothing = torch.full((1, *self.shapes[name]), torch.nan, device=state.params[0].device)
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
        params = [p[cells] for p in state.params]
        buffers = {name: b[cells] for name, b in state.buffers.items()}
        return observable.compute(self._snapshot(params, buffers, cells.tolist())).float()

    def _snapshot(
        self, params: list[Tensor], buffers: dict[str, Tensor], cells: list[int]
    ) -> Snapshot:
        """Of cells of the bucket, from their parameters and buffers ``[K, ...]``."""
        bucket, named = self.bucket, dict(zip(self.bucket.names, params, strict=True))
        data = bucket.data_index[cells].tolist()

        def module(k: int) -> nn.Module:
            net = self._module.to(params[0].device)
            load(net, {name: t[k] for name, t in (named | buffers).items()})
            return net

        def samples(k: int) -> Samples:
            parts = (bucket.x_train, bucket.y_train, bucket.x_val, bucket.y_val)
            return Samples(*(part[data[k]].to(params[0].device) for part in parts))

        tasks: list[Task] = [bucket.tasks[d] for d in data]
        return Snapshot(named, bucket.cell, tasks, bucket.shape, module, samples)

    @cached_property
    def _module(self) -> nn.Module:
        return self.bucket.module().eval()
