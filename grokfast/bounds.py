"""The numbers that a field admits: said once, in its annotation, for the check and for the help::

lr: Annotated[float, Bounds(0.0)] = 1e-3
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """Finite numbers from ``low`` to ``high``; of a tuple, each of them.

    Attributes:
        low, high: the ends, infinite for none; they belong to it.
        above: but not ``low`` itself.
        below: but not ``high`` itself.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def admits(self, value: float) -> bool:
        """Whether it is in there; NaN never is."""
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        return over and under and not (isinstance(value, float) and math.isinf(value))

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "any finite"
        if math.isinf(self.high):
            return f"{self.low} or more"
        return f"{self.low} or more, {self._limit}" if self._limit else self.written("x")

    def written(self, name: str) -> str:
        """Both ends in a formula, or in words where they belong to it."""
        if not (self.above or self.below):
            return f"{self.low} to {self.high}"
        first, second = "<" if self.above else "<=", "<" if self.below else "<="
        return f"{self.low} {first} {name} {second} {self.high}"

    def asked(self, name: str, value: float) -> str:
        """What to give instead of a value that is not admitted."""
        if self._limit and value >= self.high:
            return self._limit
        if math.isinf(self.high) or self._limit:
            some = f"value of {self.low} or more" if math.isfinite(self.low) else "number"
            return f"a finite {some}"
        return self.written(name)

    @property
    def _limit(self) -> str:
        """An upper end that is there because of how numbers are kept: a power of two."""
        if self.below and isinstance(self.high, int) and self.high >= 2**16:
            return f"less than 2**{self.high.bit_length() - 1}"
        return ""


#: NumPy's RandomState takes 32 bits.
SEED = Bounds(0, 2**32, below=True)
BELOW_ONE = Bounds(0, 1, below=True)
SHARE = Bounds(0, 1, above=True)


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field -> annotation of a class, bounds and registries included."""
    return typing.get_type_hints(cls, include_extras=True)


def bounds_of(kind: Any) -> Bounds | None:
    """The bounds in an annotation."""
    return next((x for x in getattr(kind, "__metadata__", ()) if isinstance(x, Bounds)), None)


@functools.cache
def _bounded(cls: type) -> dict[str, tuple[Bounds, bool]]:
    """Field -> its bounds, and whether it may be None, of those that have bounds."""
    found = {name: (kind, bounds_of(kind)) for name, kind in hints(cls).items()}
    return {
        name: (bounds, type(None) in typing.get_args(kind.__origin__))
        for name, (kind, bounds) in found.items()
        if bounds is not None
    }


def check_bounds(value: Any, called: Callable[[str], str], *names: str) -> None:
    """Looks at the numbers of a dataclass; what is no number is for a check of types.

    Args:
        called: what messages call a field of this name.
        names: fields to look at; all where not given.

    Raises:
        ValueError: one is out of bounds; the message names it and what would do.
    """
    found = _bounded(type(value))  # type: ignore[arg-type]
    for name in names or found:
        bounds, optional = found[name]
        given = getattr(value, name)
        several = isinstance(given, tuple)
        for number in given if several else (given,):
            if isinstance(number, int | float) and not bounds.admits(number):
                wanted = bounds.asked("each" if several else name, number)
                says = f"{called(name)} {'has' if several else 'is'} {number!r}"
                raise ValueError(f"{says}; give {wanted}{', or none' * optional}")
