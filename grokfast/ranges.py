"""Values of an axis from their command-line text: one, a list, or a range."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from grokfast.errors import UsageError
from grokfast.fields import parse_value, scalar_fields, short_name
from grokfast.grid import Grid
from grokfast.spacing import linspace, logspace


def parse_values(grid: Grid, name: str, text: str) -> Any:
    """The command-line text of a field or setting: one value, a list or a range.

    ``1e-3`` | ``1e-4,1e-3`` | ``logspace:-5:-2:21`` (exponents of 10, ends included) |
    ``linspace:0:20:21`` (ends included) | ``range:0:5`` (0 to 4).

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
    if word in ("logspace", "linspace", "range"):
        return [
            v if kind is not int else parse_value(path, kind, repr(v))
            for v in _parse_range(short_name(path), text, word, rest.split(":"))
        ]
    if "," in text:
        return [parse_value(path, kind, part.strip()) for part in text.split(",")]
    return parse_value(path, kind, text)


def _parse_range(name: str, text: str, word: str, parts: list[str]) -> Sequence[float]:
    examples = {
        "logspace": "logspace:-5:-2:21",
        "linspace": "linspace:0:20:21",
        "range": "range:0:5",
    }
    bad = UsageError(f"{name}={text!r} is no range", hint=f"an example: {examples[word]}")
    try:
        if word == "range":
            if not 2 <= len(parts) <= 3:
                raise bad
            values: Sequence[float] = range(*map(int, parts))
        else:
            if len(parts) != 3:
                raise bad
            make = logspace if word == "logspace" else linspace
            low, high, number = *map(str.strip, parts[:2]), int(parts[2])
            if number < 1 or not all(math.isfinite(float(end)) for end in (low, high)):
                raise bad
            values = make(low, high, number)
            if not all(map(math.isfinite, values)):
                raise UsageError(f"{name}={text!r} goes beyond {sys.float_info.max:.1e}")
    except (ValueError, OverflowError):
        raise bad from None
    if not values:
        raise bad
    return values
