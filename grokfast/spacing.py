"""Evenly spaced numbers, correctly rounded: the same on every processor.

NumPy's ``logspace`` differs in the last bit from one instruction set to another, and what defines a
run must not: cells are known by their values, and curves by their steps. Here every number is the
double nearest to the exact one.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

#: Digits of the computation: with more than twice those of a double, the last rounding decides.
#: Nothing is trapped: beyond the range of a double there is infinity or 0, as in NumPy.
_CONTEXT = Context(prec=50, traps=[])

Number = str | int | float | Decimal


def linspace(low: Number, high: Number, count: int) -> tuple[float, ...]:
    """``count`` numbers from ``low`` to ``high``, both included; ``low`` alone for a count of 1.

    Text is taken as the decimal that it is: ``linspace("0", "0.3", 4)[1]`` is 0.1.
    """
    return tuple(map(float, _between(low, high, count)))


@lru_cache(maxsize=64)
def logspace(low: Number, high: Number, count: int) -> tuple[float, ...]:
    """Ten to the power of the numbers of :func:`linspace`, whose exact values are the exponents."""
    return tuple(float(_CONTEXT.power(Decimal(10), x)) for x in _between(low, high, count))


def geomspace(low: Number, high: Number, count: int) -> tuple[float, ...]:
    """``count`` positive numbers from ``low`` to ``high``, both included, each the same multiple of
    the one before it; ``low`` alone for a count of 1."""
    a, b, c = Decimal(low), Decimal(high), _CONTEXT
    logs = _between(c.ln(a), c.ln(b), count)
    inner = (float(c.exp(x)) for x in logs[1:-1])
    return (float(a), *inner, *((float(b),) if count > 1 else ()))


def log10(x: int) -> Decimal:
    """The exponent of ten for :func:`logspace` to end at ``x``."""
    return _CONTEXT.log10(Decimal(x))


def _between(low: Number, high: Number, count: int) -> list[Decimal]:
    a, b, c = Decimal(low), Decimal(high), _CONTEXT
    if count == 1:
        return [a]
    gaps = Decimal(count - 1)
    weighted = ((c.multiply(a, count - 1 - i), c.multiply(b, i)) for i in range(count))
    # The sum before the quotient, which is then exact wherever a double is.
    return [c.divide(c.add(*terms), gaps) for terms in weighted]
