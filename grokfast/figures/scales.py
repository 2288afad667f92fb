"""Logarithmic axes that always have labels."""

from __future__ import annotations

import math

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter

from grokfast.figures.numbers import number

#: Labels of an axis, at most.
_MOST = 5


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Labels of a log axis that goes from ``low`` to ``high``: powers of ten where two or more lie
    within, else multiples of them, in one notation; never at minor ticks, whose labels Matplotlib
    would otherwise add within a decade."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    axis.set_minor_locator(LogLocator(subs="auto", numticks=20))
    axis.set_minor_formatter(NullFormatter())
    within: list[float] = []
    for multiples in ((1,), (1, 2, 5), range(1, 10)):
        candidates = [float(f"{m}e{e}") for e in range(first, last + 1) for m in multiples]
        within = [v for v in candidates if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(within) >= 2:
            break
    if multiples == (1,) and within:
        axis.set_major_locator(LogLocator(numticks=_MOST))
        return
    whole = [int(v) if v.is_integer() else v for v in within or (low, high)]
    labels = [number(v) for v in whole]
    if any("10^" in label for label in labels):
        labels = [number(v, exponent_form=True) for v in whole]
    axis.set_ticks(whole, labels=labels)
