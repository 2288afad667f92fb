"""Values of an axis from their command-line text: one, a list, or a range."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from grokfast.errors import UsageError
from grokfast.fields import parse_value, scalar_fields, short_name
from grokfast.grid import Grid
from grokfast.spacing import geomspace, linspace, logspace


def parse_values(grid: Grid, name: str, text: str) -> Any:
    """The command-line text of a field or setting: one value, a list or a range.

    ``1e-3`` | ``1e-4,1e-3`` | ``logspace:-5:-2:21`` (exponents of 10, ends included) |
    ``geomspace:1e-5:1e-2:21`` (the same by its ends) | ``linspace:0:20:21`` (ends included) |
    ``range:0:5`` (0 to 4).

    Returns:
        A scalar, or a list where the text names several values.

    Raises:
        UsageError: unknown field, malformed text, or a value of the wrong type.
    """
    path = grid.resolve(name)
    if path in grid.settings:
        values = [part.strip() for part in text.split(",")]
        return values if len(values) > 1 else values[0]
    kind = scalar_fields(grid.experiment)[path]
    word, _, rest = text.partition(":")
    if word in _EXAMPLES:
        return [
            v if kind is not int else parse_value(path, kind, repr(v))
            for v in _parse_range(short_name(path), text, word, rest.split(":"))
        ]
    if "," in text:
        return [parse_value(path, kind, part.strip()) for part in text.split(",")]
    return parse_value(path, kind, text)


#: What begins a range -> an example.
_EXAMPLES = {
    "logspace": "logspace:-5:-2:21",
    "geomspace": "geomspace:1e-5:1e-2:21",
    "linspace": "linspace:0:20:21",
    "range": "range:0:5",
}
_SPACED: dict[str, Callable[[str, str, int], tuple[float, ...]]] = {
    "logspace": logspace,
    "geomspace": geomspace,
    "linspace": linspace,
}

#: Exponents of ten nearer to 0 than the first, or further than the second, are probably meant as
#: the values themselves.
_NO_EXPONENT = 0.1, 20.0


def _parse_range(name: str, text: str, word: str, parts: list[str]) -> Sequence[float]:
    bad = UsageError(f"{name}={text!r} is no range", hint=f"an example: {_EXAMPLES[word]}")
    try:
        if word == "range":
            if not 2 <= len(parts) <= 3:
                raise bad
            values: Sequence[float] = range(*map(int, parts))
        else:
            if len(parts) != 3:
                raise bad
            low, high, number = *map(str.strip, parts[:2]), int(parts[2])
            if number < 1 or not all(math.isfinite(float(end)) for end in (low, high)):
                raise bad
            if word == "geomspace" and not (float(low) > 0 and float(high) > 0):
                raise UsageError(f"{name}={text!r}: both ends must be positive")
            values = _SPACED[word](low, high, number)
            if not all(map(math.isfinite, values)):
                raise UsageError(f"{name}={text!r} goes beyond {sys.float_info.max:.1e}")
            if word == "logspace":
                _warn_of_values(name, text, (low, high), values)
    except (ValueError, OverflowError):
        raise bad from None
    if not values:
        raise bad
    return values


def _warn_of_values(name: str, text: str, ends: tuple[str, str], values: Sequence[float]) -> None:
    """Warns where the exponents of ten look like the values that were meant."""
    near, far = _NO_EXPONENT
    if any(0 < abs(float(end)) < near or abs(float(end)) > far for end in ends):
        warnings.warn(
            f"{name}={text!r} takes powers of ten: {values[0]:.4g} to {values[-1]:.4g}; "
            f"geomspace{text.removeprefix('logspace')} takes the ends themselves",
            stacklevel=4,
        )
