"""Toy addition (Liu et al. 2022; Shabalin et al. 2023): a + b for a <= b < p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from grokfast.bounds import SEED, Bounds
from grokfast.tasks.base import Task, TaskData, task


@task("addition")
@dataclass(frozen=True, kw_only=True)
class Addition(Task):
    """All p (p + 1) / 2 pairs a <= b; the label is a + b, in 0 .. 2p - 2.

    Attributes:
        p: number of symbols.
        val_size: pairs held out, drawn by ``numpy.random.RandomState(seed)`` as scikit-learn's
            ``train_test_split`` does.
        target_dim: width of the random regression target of each sum, drawn from torch's
            CPU generator; 0 for classification.
        seed: the data seed: of the split, and of the targets.
    """

    p: Annotated[int, Bounds(2, 1000)] = 10
    val_size: Annotated[int, Bounds(1)] = 10
    target_dim: Annotated[int, Bounds(0)] = 0
    seed: Annotated[int, SEED] = 42

    def __post_init__(self) -> None:
        self.check_bounds("p", "target_dim")
        pairs = self.p * (self.p + 1) // 2
        if not 1 <= self.val_size < pairs:
            raise ValueError(
                f"task.val_size is {self.val_size}; give 1 to {pairs - 1} of the {pairs} pairs"
            )

    def build(self) -> TaskData:
        import torch

        pairs = np.array([(a, b) for b in range(self.p) for a in range(b + 1)])  # [55, 2]
        perm = np.random.RandomState(self.seed).permutation(len(pairs))
        val, train = perm[: self.val_size], perm[self.val_size :]
        x = torch.from_numpy(pairs)
        y = x.sum(dim=1)
        classes = 2 * self.p - 1
        targets = None
        if self.target_dim:
            generator = torch.Generator().manual_seed(self.seed)
            targets = torch.randn(classes, self.target_dim, generator=generator)
        return TaskData(
            x_train=x[train],
            y_train=y[train],
            x_val=x[val],
            y_val=y[val],
            num_classes=classes,
            targets=targets,
            vocabulary=self.p,
        )
