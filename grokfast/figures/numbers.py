"""Numbers as labels, and the few positions of an index axis that get one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grokfast.figures.page import page
from grokfast.figures.style import plain

#: Inches that one character of a tick label takes, and the gap between two labels.
_CHARACTER, _LINE, _GAP = 0.068, 0.14, 0.14


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value: Any, *, exponent_form: bool = False) -> str:
    """A value as a short label: ``$10^{-5}$``, ``$4.6\\times10^{-4}$``, ``0.5``, ``10,000``,
    ``tanh``; decimal from 0.01 on. Numbers of up to four digits are exact, longer ones have two or
    three."""
    if not is_number(value):
        return "none" if value is None else plain(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) < 1e6 and not exponent_form:
        return f"{value:,}"
    exact = float(f"{value:.3e}") == value
    mantissa, exponent = (float(part) for part in f"{value:.{3 if exact else 1}e}".split("e"))
    if -2 <= exponent <= 4 and not exponent_form:
        return f"{value:,.{6 if exponent >= 3 else 4 if exact else 3}g}"
    if math.isclose(value, float(f"1e{exponent:.0f}"), rel_tol=1e-6):
        return power(int(exponent))
    return f"${mantissa:g}\\times10^{{{exponent:.0f}}}$"


def series(values: Sequence[Any]) -> list[str]:
    """Labels of all values of an axis, in one notation."""
    labels = [number(v) for v in values]
    if all(map(is_number, values)) and is_log(values) and any("10^" in t for t in labels):
        return [number(v, exponent_form=True) for v in values]
    return labels


def power(exponent: int) -> str:
    return f"$10^{{{exponent}}}$"


def is_log(values: Sequence[Any]) -> bool:
    """Whether ascending values (after an optional leading 0) are spaced like a geometric series."""
    tail = np.asarray(values[1:] if values[0] == 0 else values, float)
    if len(tail) < 2 or tail[0] <= 0 or tail[-1] < 10 * tail[0]:
        return False
    if len(tail) == 2:
        return True
    steps, ratios = np.diff(tail), np.diff(np.log(tail))
    return bool(ratios.std() / ratios.mean() < steps.std() / steps.mean())


@dataclass(frozen=True)
class Ticks:
    """Where an index axis has labels; positions may lie between cells."""

    positions: list[float]
    labels: list[str]
    slanted: bool = False


def ticks(values: Sequence[Any], room: float, *, horizontal: bool) -> Ticks:
    """As many readable labels as fit.

    Few cells are labelled one by one. Many cells get powers of ten (placed by interpolation, as
    on the logarithmic axis that the indices stand for) or round numbers.

    Args:
        values: of the cells along the axis, numbers ascending.
        room: length of the axis in inches, of which labels take what the page's letters do.
        horizontal: labels stand side by side, not one above the other.
    """

    def fits(labels: list[str]) -> bool:
        if horizontal:
            return sum(inches(t) + _GAP for t in labels) <= room + _GAP
        return len(labels) * _LINE <= room

    own = series(values)
    room /= page().letters
    every = list(map(float, range(len(values))))
    if len(values) == 1 or (len(values) <= 8 and fits(own)):
        return Ticks(every, own)
    if not all(map(is_number, values)):
        if len(values) <= 24:  # names cannot be left out: the reader could not guess them
            return Ticks(every, own, slanted=horizontal)
    else:
        for marks in _round_values(values):
            if len(marks[0]) >= 2 and fits(marks[1]):
                return Ticks(*marks)
    for stride in range(1, len(values) + 1):
        if fits(own[::stride]):
            return Ticks(every[::stride], own[::stride])
    return Ticks([0.0], own[:1])


def _round_values(values: Sequence[Any]) -> list[tuple[list[float], list[str]]]:
    """Candidate sets of ticks, the densest first."""
    numbers = np.asarray(values, float)
    index = np.arange(len(numbers), dtype=float)
    found = []
    if is_log(values):
        first = 1 if numbers[0] == 0 else 0
        logs = np.log10(numbers[first:])
        low, high = math.ceil(logs[0] - 1e-6), math.floor(logs[-1] + 1e-6)
        for stride in (1, 2, 3, 4, 6, 8, 12):
            exponents = [e for e in range(low, high + 1) if e % stride == 0]
            at = np.interp(exponents, logs, index[first:]).tolist()
            found.append(([0.0] * first + at, ["0"] * first + [power(e) for e in exponents]))
        return [f for f in found if len(f[0]) <= 8]
    span = numbers[-1] - numbers[0]
    if span < np.finfo(float).tiny:  # too small to divide by
        return []
    base = 10.0 ** math.floor(math.log10(span))
    for step in (base * f for f in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10)):
        first_mark = math.ceil(numbers[0] / step - 1e-9)
        marks = np.arange(first_mark, math.floor(numbers[-1] / step + 1e-9) + 1) * step
        whole = all(float(v).is_integer() for v in values)
        if len(marks) > 7 or (whole and not float(step).is_integer()):
            continue
        labels = [f"{round(m, 12):,.6g}" for m in marks.tolist()]
        found.append((np.interp(marks, numbers, index).tolist(), labels))
    return found


def inches(label: str) -> float:
    """The length of a label on paper, about; exponents are set smaller."""
    exponents = "".join(re.findall(r"\^\{(.*?)\}", label))
    rest = re.sub(r"\^\{.*?\}|\$", "", label)
    rest = re.sub(r"\\[a-z]+", "x", rest)
    return (len(rest) + 0.7 * len(exponents)) * _CHARACTER
