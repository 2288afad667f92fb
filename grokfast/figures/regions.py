"""The heart of a region: where its one letter goes, and which cell stands for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def largest_square(mask: NDArray[Any]) -> tuple[int, int, int] | None:
    """Row and column of the first cell of the largest all-true square of a 2-d mask, and its side;
    None where nothing is true. Of several, the most central one."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1)

    def corners(side: int) -> NDArray[Any]:
        inside = (
            sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
        )
        return np.argwhere(inside == side * side)

    low, high = 0, min(mask.shape)  # a square of side ``low`` exists, none above ``high``
    while low < high:
        middle = (low + high + 1) // 2
        if len(corners(middle)):
            low = middle
        else:
            high = middle - 1
    if low == 0:
        return None
    found = corners(low)
    row, column = found[((found - found.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return row, column, low


def heart(mask: NDArray[Any]) -> tuple[int, int] | None:
    """The cell in the middle of the largest square of a mask; None where nothing is true."""
    square = largest_square(mask)
    if square is None:
        return None
    row, column, side = square
    return row + (side - 1) // 2, column + (side - 1) // 2
