"""Sparse parity (Barak et al. 2022; Merrill, Tsilivis and Shukla 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from grokfast.bounds import Bounds
from grokfast.tasks.base import Task, TaskData, task

if TYPE_CHECKING:
    import torch

#: Of the test set that all runs share, in the code of Merrill et al. (Tsili42/parity-nn).
_TEST_SEED = 2001


@task("parity")
@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """Vectors of n independent signs; the label is the product of the first k of them.

    Samples are drawn with replacement, so that with a small n a validation sample may be a training
    sample. Inputs and flips come from ``numpy.random.RandomState`` in streams of their own: a
    larger set begins with the smaller one, and a larger ``flip`` flips what a smaller one does.

    Attributes:
        n: signs of an input.
        k: how many of them matter, the first.
        train_size: training samples.
        val_size: validation samples.
        flip: probability with which each training label is turned into the other one; validation
            labels are clean.
        redraw: ``train``, the training set follows from the seed and the validation set is the same
            for all seeds, as in the code of Merrill et al.; ``both`` follow from the seed.
        seed: of the data. A model without a seed of its own takes this one for its initial values
            and the order of its batches, so that one seed is one run, as in that code.
    """

    n: Annotated[int, Bounds(1, 2**16, below=True)] = 50
    k: Annotated[int, Bounds(1)] = 2
    train_size: Annotated[int, Bounds(1, 2**24, below=True)] = 300
    val_size: Annotated[int, Bounds(1, 2**24, below=True)] = 100
    flip: Annotated[float, Bounds(0, 1)] = 0.0
    redraw: Literal["train", "both"] = "train"

    def __post_init__(self) -> None:
        self.check_bounds("n", "train_size", "val_size", "flip")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"task.k is {self.k}; give 1 to {self.n}, which task.n is")

    def build(self) -> TaskData:
        import torch

        x_train = self._signs([self.seed, 0], self.train_size)
        match self.redraw:
            case "train":
                x_val = self._signs(_TEST_SEED, self.val_size)
            case "both":
                x_val = self._signs([self.seed, 2], self.val_size)
            case other:
                raise ValueError(f"unknown redraw {other!r}")
        clean = self._labels(x_train)
        drawn = np.random.RandomState([self.seed, 1]).random_sample(self.train_size)
        flipped = torch.from_numpy(drawn < self.flip)
        return TaskData(
            x_train=torch.from_numpy(x_train),
            y_train=torch.where(flipped, 1 - clean, clean),
            x_val=torch.from_numpy(x_val),
            y_val=self._labels(x_val),
            num_classes=2,
            targets=torch.tensor([[-1.0], [1.0]]),
            y_clean=clean,
            corrupted=flipped,
            generator=torch.Generator().manual_seed(self.seed).get_state(),
        )

    def _signs(self, seed: int | list[int], rows: int) -> NDArray[np.float32]:
        """Inputs ``[rows, n]`` of -1 and 1, row by row."""
        bits = np.random.RandomState(seed).randint(0, 2, (rows, self.n))
        return (2 * bits - 1).astype(np.float32)

    def _labels(self, x: NDArray[np.float32]) -> torch.Tensor:
        """1 where the product of the first k signs is 1, else 0: int64 ``[rows]``."""
        import torch

        return torch.from_numpy((x[:, : self.k].prod(axis=1) > 0).astype(np.int64))
