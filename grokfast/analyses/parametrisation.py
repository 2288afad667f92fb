"""Two ways to write the same quadratic net: Gromov's mean-field form and the authors' later one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grokfast.errors import UsageError


def absorbing_factor(p: int, width: int) -> float:
    """(D N)^(-1/3) with D = 2p, by which weights of f = W2 (W1 x)^2 / (D N) ([P23] Eqs 1-4) are
    multiplied to become those of f = W (U x)^2.

    Raises:
        UsageError: p or width below 1.
    """
    for name, value in (("p", p), ("width", width)):
        if value < 1:
            raise UsageError(f"{name} is {value}; give 1 or more")
    return float((2 * p * width) ** (-1 / 3))


def absorbed(
    weights: Mapping[str, Any], lr: float, *, p: int, width: int
) -> tuple[dict[str, Any], float]:
    """Mean-field weights (initially N(0, 1)) and learning rate -> those of the net without
    prefactor whose outputs are the same before and after every step of gradient descent: weights
    times (D N)^(-1/3), learning rate times (D N)^(-2/3).

    With momentum, too; but not under AdamW, nor does its weight decay carry over.

    Args:
        weights: arrays or tensors, by name.

    Raises:
        UsageError: p or width below 1.
    """
    factor = absorbing_factor(p, width)
    return {name: value * factor for name, value in weights.items()}, lr * factor**2


def mean_field(
    weights: Mapping[str, Any], lr: float, *, p: int, width: int
) -> tuple[dict[str, Any], float]:
    """The inverse of :func:`absorbed`.

    Raises:
        UsageError: p or width below 1.
    """
    factor = absorbing_factor(p, width)
    return {name: value / factor for name, value in weights.items()}, lr / factor**2
