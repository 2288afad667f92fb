"""Equations of binary operations as sequences of tokens (Power et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np

from grokfast.bounds import Bounds
from grokfast.tasks.base import Task, TaskData, task
from grokfast.tasks.operations import OPERATIONS, Modular, Table, factors, products

#: Permutations of S5; number 0 is the identity.
_S5 = 120


@task("algorithmic")
@dataclass(frozen=True, kw_only=True)
class Algorithmic(Task):
    """All equations x o y = z of an operation: tokens ``x o y =``, the label is z.

    By default division modulo 97 as in the reproduction (github.com/BendeguzToth/grokking), of
    which the permutations and the order of classes are, too. With n symbols, token n stands for
    the operation and n + 1 for "="; both are classes of their own, which are never right.

    Attributes:
        operation: one of :data:`grokfast.tasks.operations.OPERATIONS`: a name with dots is of
            the 120 permutations S5, the others are modulo p; ``x/y-or-x-y`` divides where y is odd.
        p: the modulus, ``None`` for 97; none for S5. Prime where the operation divides.
        fraction: share of the equations that are for training, read as the decimal that is shown:
            0.29 of 100 are 29.
        outliers: so many of the training equations, the first ones, have the answers of equations
            drawn at random with replacement.
        convention: x.y of S5: ``quotient`` is y^-1 o x, as in the reproduction; ``x-then-y`` is
            y o x, as in Power's code; ``x-after-y`` is x o y.
        identity: of S5, whether y may be the identity; the reproduction leaves it out.
        seed: of the permutation that splits, and then of the outliers.
    """

    operation: Annotated[str, OPERATIONS] = "x/y"
    p: Annotated[int | None, Bounds(2, 1000)] = None
    fraction: Annotated[float, Bounds(0, 1, above=True, below=True)] = 0.3
    outliers: Annotated[int, Bounds(0)] = 0
    convention: Literal["quotient", "x-then-y", "x-after-y"] = "quotient"
    identity: bool = False

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise ValueError(
                f"task.operation is {self.operation!r}; give one of {', '.join(OPERATIONS)}"
            )
        operation = OPERATIONS[self.operation]
        if isinstance(operation, Modular):
            p = self._symbols
            self.check_bounds("p")
            if operation.divides and any(p % d == 0 for d in range(2, p)):
                raise ValueError(f"task.p is {p}; {self.operation} divides, which needs a prime")
        else:
            if self.p is not None:
                raise ValueError(
                    f"task.p is {self.p}, but {self.operation} is of the permutations S5; give none"
                )
            factors(operation.word, self.convention)
        rows = self.rows()
        if not (0 < self.fraction < 1 and self.train_rows() >= 1):
            raise ValueError(
                f"task.fraction is {self.fraction}; give less than 1, and at least 1/{rows} for "
                f"one of the {rows} equations to train on"
            )
        if not 0 <= self.outliers <= self.train_rows():
            raise ValueError(
                f"task.outliers is {self.outliers}; give 0 to {self.train_rows()}, the training "
                "equations"
            )

    @property
    def _symbols(self) -> int:
        if isinstance(OPERATIONS[self.operation], Modular):
            return 97 if self.p is None else self.p
        return _S5

    @property
    def _first_y(self) -> int:
        """1 where the y of number 0, zero or the identity, is left out."""
        operation = OPERATIONS[self.operation]
        out = operation.leaves_out_zero if isinstance(operation, Modular) else not self.identity
        return int(out)

    def rows(self) -> int:
        """Number of equations."""
        return self._symbols * (self._symbols - self._first_y)

    def train_rows(self) -> int:
        """Number of training equations N."""
        return int(Fraction(repr(self.fraction)) * self.rows())

    def equations(self) -> tuple[Table, Table, Table]:
        """x, y and z of all equations in the order of x, then y: int64 ``[n]`` each."""
        operation, n, first = OPERATIONS[self.operation], self._symbols, self._first_y
        x, y = np.divmod(np.arange(self.rows()), n - first)
        y += first
        if isinstance(operation, Modular):
            return x, y, operation.answers(x, y, n)
        return x, y, products(operation.word, self.convention, x, y)

    def build(self) -> TaskData:
        import torch

        n = self._symbols
        x, y, answers = self.equations()
        rng = np.random.RandomState(self.seed)
        order = rng.permutation(len(x))
        tokens = np.stack([x, np.full_like(x, n), y, np.full_like(x, n + 1)], axis=1)[order]
        labels = torch.from_numpy(answers[order])
        train, k = self.train_rows(), self.outliers
        inputs, y_train = torch.from_numpy(tokens), labels[:train].clone()  # [n, 4], [N]
        y_train[:k] = torch.from_numpy(answers[rng.randint(len(x), size=k, dtype=np.int64)])
        return TaskData(
            x_train=inputs[:train],
            y_train=y_train,
            x_val=inputs[train:],
            y_val=labels[train:],
            num_classes=n + 2,
            vocabulary=n + 2,
            y_clean=labels[:train] if k else None,
            corrupted=torch.arange(train) < k if k else None,
        )
