"""Which axis of a grid lies along x, which along y, and which make panels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.fields import short_name
from grokfast.figures.labels import label_of, with_value
from grokfast.figures.numbers import is_number, number
from grokfast.figures.style import plain
from grokfast.grid import Grid

MAX_PANELS = 64


@dataclass(frozen=True)
class Axis:
    """One axis of a figure: ``order`` are the positions in the grid's axis, ascending in value;
    ``titles`` the values as parts of a title: ``weight decay 5``, ``relu``, ``batch 8``."""

    name: str
    label: str
    values: tuple[Any, ...]
    order: tuple[int, ...]
    titles: tuple[str, ...]

    def titled(self, value: Any) -> str:
        return self.titles[self.values.index(value)]


@dataclass(frozen=True)
class Facets:
    """The arrangement of a grid on paper.

    Attributes:
        x, y: the axes of each panel; no y where the grid has one axis only.
        rows, columns: of panels.
        titles: one a panel, row by row; empty for a single panel.
        order: for each axis of the grid (as ``np.ix_``), its values in the order drawn.
        permutation: of the axes of the grid: those of panels first, then y, then x.
    """

    x: Axis
    y: Axis | None
    rows: int
    columns: int
    titles: tuple[str, ...]
    order: tuple[tuple[int, ...], ...]
    permutation: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells of one panel: along y, along x."""
        return (len(self.y.values) if self.y else 1), len(self.x.values)

    @property
    def downward(self) -> bool:
        """Whether y grows downward: weight decay as in the publications, and names as read."""
        return self.y is None or self.y.name == "weight_decay" or not is_number(self.y.values[0])

    @property
    def panels(self) -> int:
        return max(1, len(self.titles))

    def split(self, results: Cells, values: str | NDArray[Any]) -> NDArray[Any]:
        """A variable over cells as ``[panel, y, x]``; absent cells as ``Cells.on_grid`` says."""
        full = results.on_grid(values)[np.ix_(*self.order)]
        return full.transpose(self.permutation).reshape(self.panels, *self.shape)


def _axis(name: str, values: tuple[Any, ...], grid: Grid) -> Axis:
    order = tuple(range(len(values)))
    if all(map(is_number, values)):
        order = tuple(sorted(order, key=lambda i: values[i]))
    ordered = tuple(values[i] for i in order)
    if all(isinstance(v, str) and v[:1].isalpha() for v in values):  # these need no label
        titles = tuple(map(number, ordered))
    else:
        titles = tuple(with_value(name, value, grid) for value in ordered)
    return Axis(name, label_of(name, grid).on_axis, ordered, order, titles)


def axes_of(results: Cells) -> list[Axis]:
    """Every axis of the grid, in its order."""
    return [_axis(name, values, results.trained) for name, values in results.axes.items()]


def arrange(results: Cells, x: str | None = None, y: str | None = None) -> Facets:
    """Learning rate along x, weight decay along y, other axes as panels, as in the publications.

    Without one of the two, the longest numerical axis takes its place, seeds and names last;
    without learning rates, weight decay has its place only if it is one of the two longest axes.

    Args:
        x, y: names of axes that shall lie there.

    Raises:
        UsageError: a single cell, no such axis, or too many panels.
    """
    axes = axes_of(results)
    varied = {a.name: a for a in axes if len(a.values) > 1}
    if not varied:
        raise UsageError(
            "a diagram needs an axis, and this file holds a single cell",
            hint="run with several values, e.g. --lr=logspace:-5:-2:21, or plot --kind=curves",
        )

    def rank(axis: Axis) -> tuple[bool, bool, int]:
        return not is_number(axis.values[0]), axis.name.endswith("seed"), -len(axis.values)

    free = sorted(varied.values(), key=rank)
    usual = [[a for a in free if a.name == name] for name in ("lr", "weight_decay")]
    if "lr" not in varied and varied.get("weight_decay") not in free[:2]:
        usual = [[], []]
        free[:2] = sorted(free[:2], key=lambda axis: axis.name != "task.fraction")
    along: list[Axis | None] = [_chosen(varied, "x", x), _chosen(varied, "y", y)]
    if x is not None and along[0] is along[1]:
        raise UsageError(f"{x} cannot be both x and y")
    for k, axes_for_it in [*enumerate(usual), (0, free), (1, free)]:
        along[k] = along[k] or next((a for a in axes_for_it if a not in along), None)
    if along[0] is None:  # one axis lies along x
        along.reverse()
    assert along[0] is not None
    outer = [a for a in varied.values() if a not in along]
    return _facets(axes, outer, along[1], along[0])


def _chosen(varied: dict[str, Axis], side: str, name: str | None) -> Axis | None:
    if name is None:
        return None
    axis = varied.get(short_name(name))
    if axis is None:
        known = ", ".join(map(plain, varied))
        raise UsageError(f"{side}={name!r} is no axis of several values; there are {known}")
    return axis


def _facets(axes: list[Axis], outer: list[Axis], y: Axis | None, x: Axis) -> Facets:
    count = math.prod(len(a.values) for a in outer)
    if count > MAX_PANELS:
        sizes = ", ".join(f"{plain(a.name)} ({len(a.values)})" for a in outer)
        raise UsageError(
            f"{count} panels do not fit in one figure (over {sizes}); at most {MAX_PANELS} do",
            hint="run or export fewer values of these axes",
        )
    if len(outer) >= 2:
        columns = len(outer[-1].values)
    else:
        columns = count if count <= 4 else math.ceil(count / math.ceil(count / 4))
    titles = [
        ", ".join(a.titled(v) for a, v in zip(outer, values, strict=True))
        for values in itertools.product(*(a.values for a in outer))
    ]
    named = {a.name: i for i, a in enumerate(axes)}
    fixed = [a for a in axes if len(a.values) == 1]
    drawn = [*fixed, *outer, *([y] if y else []), x]
    return Facets(
        x=x,
        y=y,
        rows=math.ceil(count / columns),
        columns=columns,
        titles=tuple(titles) if outer else (),
        order=tuple(a.order for a in axes),
        permutation=tuple(named[a.name] for a in drawn),
    )
