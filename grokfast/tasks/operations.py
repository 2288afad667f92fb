"""Binary operations: the twelve of Power et al. 2022 (arXiv 2201.02177, A.1.1), and x*y."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grokfast.registry import Registry
from grokfast.tasks.modular import evaluate

Table = NDArray[np.int64]

#: Elements that the permutations of S5 permute.
_FIVE = 5


@dataclass(frozen=True)
class Modular:
    """An operation on 0 .. p - 1.

    Attributes:
        answers: of x and y ``[n]`` and p: ``[n]``.
        divides: whether it divides by y, so that p must be prime.
        leaves_out_zero: whether pairs with y = 0 are none of its equations.
    """

    answers: Callable[[Table, Table, int], Table]
    divides: bool = False
    leaves_out_zero: bool = False


@dataclass(frozen=True)
class Permutations:
    """An operation on S5: a word of the letters x, y and X, the inverse of x, multiplied from left
    to right."""

    word: str


Operation = Modular | Permutations

#: Name -> operation; a product of permutations is written with a dot.
OPERATIONS: Registry[Operation] = Registry("operation")


def quotient(x: Table, y: Table, p: int) -> Table:
    """x / y modulo the prime p, for y that are not 0."""
    # By Fermat 1 / y is y^(p - 2).
    inverse = np.array([pow(k, p - 2, p) for k in range(p)])
    return x * inverse[y] % p


def _polynomial(text: str) -> Modular:
    return Modular(lambda x, y, p: evaluate(text, x, y, p))


def _odd_divides(x: Table, y: Table, p: int) -> Table:
    return np.where(y % 2 == 1, quotient(x, y, p), (x - y) % p)


_ALL: dict[str, Operation] = {
    "x+y": _polynomial("a + b"),
    "x-y": _polynomial("a - b"),
    "x*y": _polynomial("a * b"),
    "x/y": Modular(quotient, divides=True, leaves_out_zero=True),
    "x/y-or-x-y": Modular(_odd_divides, divides=True),  # the quotient where y is odd
    "x^2+y^2": _polynomial("a**2 + b**2"),
    "x^2+xy+y^2": _polynomial("a**2 + a*b + b**2"),
    "x^2+xy+y^2+x": _polynomial("a**2 + a*b + b**2 + a"),
    "x^3+xy": _polynomial("a**3 + a*b"),
    "x^3+xy^2+y": _polynomial("a**3 + a*b**2 + b"),
    "x.y": Permutations("xy"),
    "x.y.x^-1": Permutations("xyX"),
    "x.y.x": Permutations("xyx"),
}
for _name, _operation in _ALL.items():
    OPERATIONS.add(_name, _operation)


def factors(word: str, convention: str) -> str:
    """The permutations that a word applies, the first one first: letters x, y and X, Y of the
    inverses.

    Args:
        word: see :class:`Permutations`.
        convention: what x.y is: ``x-then-y``, y(x(i)) of i; ``x-after-y``, x(y(i));
            ``quotient``, y^-1(x(i)), for the word ``xy`` alone.

    Raises:
        ValueError: a convention that there is not, or not for this word.
    """
    match convention:
        case "x-then-y":
            return word
        case "x-after-y":
            return word[::-1]
        case "quotient" if word == "xy":
            return "xY"
        case "quotient":
            raise ValueError(
                "task.convention=quotient, the quotient of x by y, is of operation x.y alone; give "
                "x-then-y or x-after-y"
            )
    raise ValueError(f"task.convention is {convention!r}; give quotient, x-then-y or x-after-y")


def products(word: str, convention: str, x: Table, y: Table) -> Table:
    """What a word (see :func:`factors`) of permutations is: numbers ``[n]`` of permutations in
    lexicographic order, of which the first is the identity."""
    permutations = np.array(list(itertools.permutations(range(_FIVE))))  # [120, 5]
    inverses = permutations.argsort(axis=1)
    letters = {"x": permutations[x], "y": permutations[y], "X": inverses[x], "Y": inverses[y]}
    result = np.broadcast_to(np.arange(_FIVE), (len(x), _FIVE))  # [n, 5]
    for letter in factors(word, convention):
        result = np.take_along_axis(letters[letter], result, axis=1)
    number = {tuple(row): k for k, row in enumerate(permutations.tolist())}
    return np.array([number[tuple(row)] for row in result.tolist()], np.int64)
