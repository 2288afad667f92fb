"""Logarithmic axes that always have labels."""

from __future__ import annotations

import math

from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from grokfast.figures.numbers import number


def log_ticks(axis: Axis, low: float, high: float, most: int = 5) -> None:
    """Labels of a log axis from ``low`` to ``high``: powers of ten where two or more lie within,
    else also their multiples by 2 and 5 (or all, where these are fewer than two); never more than
    about ``most``, and none at minor ticks."""
    decades = math.floor(math.log10(high) + 1e-9) - math.ceil(math.log10(low) - 1e-9) + 1
    axis.set_minor_formatter(NullFormatter())
    if decades >= 2:
        axis.set_major_locator(LogLocator(numticks=most))
        axis.set_minor_locator(
            LogLocator(numticks=20) if decades > most else LogLocator(subs="all")
        )
        return
    # As many labels as there are, from the fewest candidates that give two.
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for subs in ((1, 2, 5), tuple(range(1, 10))):
        if sum(low <= s * 10.0**e <= high for e in exponents for s in subs) >= 2:
            axis.set_major_locator(LogLocator(subs=subs, numticks=20))
            axis.set_minor_locator(LogLocator(subs="all", numticks=20))
            break
    else:
        axis.set_major_locator(FixedLocator([low, high]))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
