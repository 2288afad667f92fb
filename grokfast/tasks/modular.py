"""Modular arithmetic with corrupted labels (Gromov 2023; Doshi, Das, He, Gromov 2024)."""

from __future__ import annotations

import ast
import math
import operator
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from grokfast.bounds import SEED, Bounds
from grokfast.errors import UsageError
from grokfast.tasks.base import Task, TaskData, task

_NAMED = {"addition": "a + b", "multiplication": "a * b"}
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def evaluate(operation: str, a: Any, b: Any, p: int) -> Any:
    """The value of an operation modulo ``p``, in ``0..p-1``; nothing on the way exceeds ``p**2``.

    Args:
        operation: ``addition``, ``multiplication``, or a polynomial in ``a`` and ``b`` with
            integer coefficients, such as ``(4*a + b**2)**3``; ``^`` is a power, too.
        a: integer, or int64 array or tensor of any shape.
        b: the same, of a shape that goes with that of ``a``.
        p: the modulus; with arrays less than 2**31.

    Raises:
        ValueError: the operation is none of these.
    """
    try:
        value = _value(_parse(operation), {"a": a % p, "b": b % p}, p)
    except (_NoPolynomial, RecursionError) as problem:
        raise ValueError(
            f"task.operation is {operation!r}: {problem}; give {', '.join(_NAMED)} or a polynomial "
            "in a and b such as (4*a + b**2)**3"
        ) from None
    return value + 0 * (a + b)  # a constant takes their shape


class _NoPolynomial(Exception):
    """Says which part is not understood."""


def _parse(operation: str) -> ast.expr:
    # Text, whatever was given: a wrong type is for the experiment's own check to name.
    text = str(_NAMED.get(operation, operation)).replace("^", "**").strip()
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError):
        raise _NoPolynomial("it cannot be read") from None


def _value(node: ast.expr, names: dict[str, Any], p: int) -> Any:
    match node:
        case ast.Name(id=name):
            if name not in names:
                raise _NoPolynomial(f"{name!r} is neither a nor b")
            return names[name]
        case ast.Constant(value=number) if type(number) is int:
            return number % p
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names, p) % p
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            if not (isinstance(exponent, ast.Constant) and type(exponent.value) is int):
                raise _NoPolynomial(f"the exponent {ast.unparse(exponent)!r} is not 0, 1, 2, ...")
            return _power(_value(base, names, p), exponent.value, p)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, names, p), _value(right, names, p)) % p
        case _:
            raise _NoPolynomial(
                f"{ast.unparse(node)!r} is no integer, sum, difference, product or power"
            )


def _power(base: Any, exponent: int, p: int) -> Any:
    """By squaring: the built-in takes no array with a modulus."""
    result = 1 % p
    while exponent:
        if exponent & 1:
            result = result * base % p
        base = base * base % p
        exponent >>= 1
    return result


@task("modular")
@dataclass(frozen=True, kw_only=True)
class Modular(Task):
    """All p^2 pairs (m, n); the label is their sum, product or a polynomial of them, modulo p.

    As ``noisy_dataset`` of the authors' code (github.com/d-doshi/Grokking) has them, draw for draw:
    the pairs, row by row, are shuffled by Python's generator; the first are for training, the rest,
    always with true labels, for validation; of the first training samples the labels are redrawn
    among all p, so that about one in p of these is right by chance. A larger fraction or corruption
    extends the same sets.

    Attributes:
        p: the modulus, prime or not.
        operation: ``addition``, ``multiplication``, or a polynomial in a and b with integer
            coefficients, such as ``(4*a + b**2)**3`` (:func:`evaluate`).
        fraction: share of the pairs that are for training (alpha of the papers).
        corruption: share of the training labels that are redrawn (xi).
        corruption_seed: of torch's CPU generator, which draws those labels. In the authors' code
            the initial weights follow from the same stream, hence ``TaskData.generator``.
        seed: of the shuffle.
    """

    p: Annotated[int, Bounds(2, 1000)] = 97
    operation: str = "addition"
    fraction: Annotated[float, Bounds(0, 1, above=True, below=True)] = 0.5
    corruption: Annotated[float, Bounds(0, 1)] = 0.0
    corruption_seed: Annotated[int, SEED] = 0
    seed: Annotated[int, SEED] = 420

    def __post_init__(self) -> None:
        self.check_bounds("p", "corruption", "corruption_seed", "seed")
        evaluate(self.operation, 1, 1, self.p)
        if not (0 < self.fraction < 1 and self.train_rows() >= 1):
            raise ValueError(
                f"task.fraction is {self.fraction}; give less than 1, and at least "
                f"1/{self.p**2} for one of the {self.p**2} pairs to train on"
            )

    def train_rows(self) -> int:
        """Number of training samples N."""
        return int(self.fraction * self.p**2)

    def corrupted_rows(self) -> int:
        """Number of redrawn training labels, which are the first ones."""
        return int(self.corruption * self.train_rows())

    @cached_property
    def is_multiplication(self) -> bool:
        """Whether the operation is multiplication, however it is written."""
        m, n = np.indices((self.p, self.p))
        return np.array_equal(evaluate(self.operation, m, n, self.p), m * n % self.p)

    def build(self) -> TaskData:
        import torch

        order = list(range(self.p**2))
        random.Random(self.seed).shuffle(order)
        m, n = np.divmod(np.array(order), self.p)  # [p^2] each
        x = torch.from_numpy(np.stack([m, self.p + n], axis=1))  # [p^2, 2]
        y = torch.from_numpy(evaluate(self.operation, m, n, self.p))  # [p^2]

        train, redrawn = self.train_rows(), self.corrupted_rows()
        # Seeded and kept where nothing is corrupted, too: the initial weights follow from it.
        generator = torch.Generator().manual_seed(self.corruption_seed)
        y_train = y[:train].clone()
        y_train[:redrawn] = torch.randint(0, self.p, (redrawn,), generator=generator)
        return TaskData(
            x_train=x[:train],
            y_train=y_train,
            x_val=x[train:],
            y_val=y[train:],
            num_classes=self.p,
            targets=torch.eye(self.p),
            vocabulary=2 * self.p,
            y_clean=y[:train],
            corrupted=torch.arange(train) < redrawn,
            generator=generator.get_state(),
        )


def primitive_root(p: int) -> int:
    """The smallest g whose powers are all of 1 .. p - 1 modulo the prime p.

    Raises:
        UsageError: p is no prime.
    """
    if p < 2 or any(p % d == 0 for d in range(2, math.isqrt(p) + 1)):
        raise UsageError(
            f"p is {p}; discrete logarithms need a prime", hint="addition does without them"
        )
    factors = [d for d in range(2, p) if (p - 1) % d == 0]
    # g generates unless a power g^((p - 1) / d) is 1 before its turn.
    return next(g for g in range(1, p) if all(pow(g, (p - 1) // d, p) != 1 for d in factors))


def discrete_log_order(p: int) -> NDArray[np.int64]:
    """The symbols 1 .. p - 1 as g^0, g^1, ... modulo the prime p, ``[p - 1]``, g its smallest
    primitive root: along it multiplication is addition modulo p - 1 ([POLY] Eqs 6-8). The symbol
    0 has no logarithm and is left out.

    Raises:
        UsageError: p is no prime.
    """
    g = primitive_root(p)
    return np.array([pow(g, i, p) for i in range(p - 1)], np.int64)
