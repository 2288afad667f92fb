"""Blocks: a grid cut into parts of about equal work, each a grid itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from grokfast.grid import Grid

#: Blocks for each worker: as one of them is what a worker may still be at when all others are idle,
#: that is at most about a sixteenth of the run.
BLOCKS_A_WORKER = 16


@dataclass(frozen=True)
class Block:
    """Every so-many-th value of each axis: a coarser picture of the whole diagram, so that what a
    block takes is about what any other takes, however much single cells differ.

    Attributes:
        number: among the blocks of its grid.
        whole: the grid.
        starts, strides: of each axis, in its order.
    """

    number: int
    whole: Grid
    starts: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.number:05d}"

    @cached_property
    def grid(self) -> Grid:
        axes = {
            path: values[start::stride]
            for (path, values), start, stride in zip(
                self.whole.axes.items(), self.starts, self.strides, strict=True
            )
        }
        return replace(self.whole, axes=axes)

    @cached_property
    def cells(self) -> list[int]:
        """Flat indices in the whole grid, in the order of the block's own."""
        sizes = [len(v) for v in self.whole.axes.values()]
        places = [
            range(start, size, stride)
            for size, start, stride in zip(sizes, self.starts, self.strides, strict=True)
        ]
        if not sizes:
            return [0]
        return np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), sizes).ravel().tolist()


def strides(grid: Grid, workers: int, least: int) -> dict[str, int]:
    """Of each axis the stride of a block: so that there are :data:`BLOCKS_A_WORKER` for each of so
    many workers, but none of fewer cells than ``least``.

    Settings stay whole: which names the cells of a file have depends on all of their values.
    """
    wanted = min(BLOCKS_A_WORKER * workers, grid.size // max(1, least))
    found = dict.fromkeys(grid.axes, 1)
    while math.prod(found.values()) < wanted:
        room = {
            path: len(values) / found[path]
            for path, values in grid.axes.items()
            if path not in grid.settings and found[path] < len(values)
        }
        if not room:
            break
        found[max(room, key=room.__getitem__)] += 1
    return found


def blocks(grid: Grid, by: Mapping[str, int]) -> list[Block]:
    """All blocks of a grid with these :func:`strides`; together they have each cell once."""
    step = tuple(by[path] for path in grid.axes)
    starts = itertools.product(*map(range, step))
    return [Block(number, grid, start, step) for number, start in enumerate(starts)]


def operations(grid: Grid) -> Grid:
    """A small grid of all that differs in more than numbers: what an engine must know to train the
    whole."""
    numbers = ("optimizer.", "task.")
    names: tuple[Any, ...] = ("model.seed", "steps", "batch_size")

    def first(path: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        number = path.startswith(numbers) and not isinstance(values[0], str)
        return values[:1] if number or path in names else values

    return replace(grid, axes={path: first(path, v) for path, v in grid.axes.items()})
