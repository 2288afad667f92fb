"""State: parameters, slots, buffers, counters and records of all cells of a bucket.

Canonical and unpadded, in the layout of the module, so that it moves between engines and into
files unchanged. An engine may pack it into a private layout for the length of a call.

Letters of shapes, here and in all that trains: ``M`` cells, ``N`` training samples, ``V``
validation samples, ``B`` batch, ``I`` inputs, ``H`` hidden width, ``O`` outputs, ``C`` classes,
``P`` tokens of the vocabulary, ``K`` tokens of a sample, ``G`` parameter tensors, ``T`` curve
steps, ``S`` observed steps, ``D`` data sets, ``R`` orders of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.measuring import initial_curves
from grokfast.outcomes import CROSSINGS, CURVES, PROGRESS


@dataclass(eq=False)
class State:
    """All tensors of a bucket of M cells; G parameter tensors, H thresholds, T curve steps.

    Every table is also there by name: ``state.t_train`` is ``state.progress["t_train"]``, and
    ``state.exp_avg`` the list ``state.slots["exp_avg"]``.
    """

    params: list[Tensor]  # G of [M, ...]
    slots: dict[str, list[Tensor]]  # of the optimizer, each as params
    buffers: dict[str, Tensor]  # of the model, [M, ...]
    progress: dict[str, Tensor]  # outcomes.PROGRESS, [M] int64, or float64 where not whole
    crossings: dict[str, Tensor]  # outcomes.CROSSINGS, [M, H] int64
    curves: dict[str, Tensor]  # outcomes.CURVES, [M, T] float32, NaN where not (yet) measured
    observed: dict[str, Tensor]  # [M, S, ...] float32, NaN where not (yet) measured

    @classmethod
    def initial(cls, bucket: Bucket) -> State:
        """Every cell before its first step."""
        m, dtype = bucket.num_cells, bucket.dtype
        params = [
            torch.stack([model[g] for model in bucket.init])[bucket.init_index]
            for g in range(len(bucket.parameters))
        ]
        state = cls(
            params=params,
            slots={
                name: [torch.zeros_like(p, dtype=dtype) for p in params] for name in bucket.slots
            },
            buffers={
                name: torch.stack([model[name] for model in bucket.init_buffers])[bucket.init_index]
                for name in bucket.init_buffers[0]
            },
            progress={
                x.name: torch.full(
                    (m,),
                    x.initial,
                    dtype=torch.int64 if isinstance(x.initial, int) else torch.float64,
                )
                for x in PROGRESS
            },
            crossings={
                name: torch.full((m, len(bucket.thresholds)), -1, dtype=torch.int64)
                for name in CROSSINGS
            },
            curves={name: torch.full((m, len(bucket.curve_steps)), torch.nan) for name in CURVES},
            observed={},
        )
        if 0 in bucket.curve_index:
            for name, values in initial_curves(bucket).items():
                state.curves[name][:, 0] = values
        return state

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # while it is being copied or unpickled there are no tables
            raise AttributeError(name)
        for table in (self.progress, self.slots, self.crossings, self.curves, self.observed):
            if name in table:
                return table[name]
        raise AttributeError(f"a State has no {name!r}")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything, for checkpoints and comparisons: ``params.0`` etc."""
        for name, tensors in {"params": self.params, **self.slots}.items():
            for g, tensor in enumerate(tensors):
                yield f"{name}.{g}", tensor
        for name, tensor in self.buffers.items():
            yield f"buffers.{name}", tensor
        for table in (self.progress, self.crossings, self.curves, self.observed):
            yield from table.items()

    def frozen(self, bucket: Bucket) -> Tensor:
        """Cells whose stop rule has fired or that diverged, whatever the budget: bool ``[M]``."""
        both = (self.t_train >= 0) & (self.t_val >= 0)
        return (self.diverged_at >= 0) | (both & bucket.stop_at_both)

    def done(self, bucket: Bucket) -> Tensor:
        """Cells that will not be trained further: bool ``[M]``."""
        return self.frozen(bucket) | (self.step >= bucket.cell.steps)

    def to(self, device: torch.device | str) -> State:
        """A copy on ``device`` (self where it is there already)."""
        return self._mapped(lambda tensor: tensor.to(device))

    def clone(self) -> State:
        """A copy with memory of its own."""
        return self._mapped(torch.Tensor.clone)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> State:
        def table(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(tensor) for name, tensor in values.items()}

        return State(
            params=[change(p) for p in self.params],
            slots={name: [change(t) for t in own] for name, own in self.slots.items()},
            buffers=table(self.buffers),
            progress=table(self.progress),
            crossings=table(self.crossings),
            curves=table(self.curves),
            observed=table(self.observed),
        )
