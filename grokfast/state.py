"""State: parameters, moments, counters and records of all cells of a bucket.

Canonical and unpadded, in the layout of ``nn.Linear``, so that it moves between engines and
into files unchanged. An engine may pack it into a private layout for the length of a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from grokfast.bucket import Bucket

CURVES = ("train_loss", "val_loss", "train_acc", "val_acc")


@dataclass(eq=False)
class State:
    """All tensors of a bucket of M cells; G parameter tensors, T curve steps, S snapshots."""

    params: list[Tensor]  # G of [M, ...]
    exp_avg: list[Tensor]  # first moments, as params
    exp_avg_sq: list[Tensor]  # second moments, as params
    step: Tensor  # [M] int64: updates done
    t_train: Tensor  # [M] int64, -1 for never
    t_val: Tensor  # [M] int64, -1 for never
    diverged_at: Tensor  # [M] int64: step whose loss was not finite, -1 for none
    epoch_correct: Tensor  # [M] int64: correct training predictions so far in this epoch
    epoch_loss: Tensor  # [M] float64: sum of the epoch's batch losses so far
    train_loss: Tensor  # [M, T] float32, NaN where not (yet) measured
    val_loss: Tensor  # [M, T]
    train_acc: Tensor  # [M, T] fractions
    val_acc: Tensor  # [M, T]
    embeddings: Tensor  # [M, S, P, E] float32; S = 0 where not recorded

    @classmethod
    def initial(cls, bucket: Bucket) -> State:
        """Every cell before its first step."""
        m, dtype = bucket.num_cells, bucket.dtype
        params = [
            torch.stack([model[g] for model in bucket.init])[bucket.init_index]
            for g in range(len(bucket.names))
        ]

        def never() -> Tensor:
            return torch.full((m,), -1, dtype=torch.int64)

        def curve() -> Tensor:
            return torch.full((m, len(bucket.curve_steps)), torch.nan)

        s = bucket.num_snapshots
        shape = bucket.shapes[0] if s else (0, 0)
        embeddings = torch.full((m, s, *shape), torch.nan)
        if s:
            embeddings[:, 0] = params[0]
        return cls(
            params=params,
            exp_avg=[torch.zeros_like(p, dtype=dtype) for p in params],
            exp_avg_sq=[torch.zeros_like(p, dtype=dtype) for p in params],
            step=torch.zeros(m, dtype=torch.int64),
            t_train=never(),
            t_val=never(),
            diverged_at=never(),
            epoch_correct=torch.zeros(m, dtype=torch.int64),
            epoch_loss=torch.zeros(m, dtype=torch.float64),
            train_loss=curve(),
            val_loss=curve(),
            train_acc=curve(),
            val_acc=curve(),
            embeddings=embeddings,
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything, for checkpoints and comparisons: ``params.0`` etc."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                yield f.name, value
            else:
                for g, tensor in enumerate(value):
                    yield f"{f.name}.{g}", tensor

    def frozen(self, bucket: Bucket) -> Tensor:
        """Cells whose stop rule has fired or that diverged, whatever the budget: bool ``[M]``."""
        both = (self.t_train >= 0) & (self.t_val >= 0)
        return (self.diverged_at >= 0) | (both & bucket.stop_at_both)

    def done(self, bucket: Bucket) -> Tensor:
        """Cells that will not be trained further: bool ``[M]``."""
        return self.frozen(bucket) | (self.step >= bucket.cell.steps)

    def to(self, device: torch.device | str) -> State:
        """A copy on ``device`` (self where it is there already)."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            several = isinstance(value, list)
            moved[f.name] = [t.to(device) for t in value] if several else value.to(device)
        return State(**moved)
