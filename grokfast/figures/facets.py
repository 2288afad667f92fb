"""Which axis of a grid lies along x, which along y, and which make panels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures.numbers import is_log, is_number, number
from grokfast.figures.style import plain
from grokfast.results import Results

MAX_PANELS = 64

_LABELS = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "data_seed": "data seed",
    "model_seed": "model seed",
    "init_scale": "init scale",
}


@dataclass(frozen=True)
class Axis:
    """One axis of a figure: ``order`` are the positions in the grid's axis, ascending in value."""

    name: str
    label: str
    values: tuple[Any, ...]
    order: tuple[int, ...]

    @property
    def log(self) -> bool:
        return all(map(is_number, self.values)) and is_log(self.values)


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
    def panels(self) -> int:
        return max(1, len(self.titles))

    def split(self, results: Results, values: str | NDArray[Any]) -> NDArray[Any]:
        """A variable over cells as ``[panel, y, x]``; absent cells as ``Results.on_grid`` says."""
        full = results.on_grid(values)[np.ix_(*self.order)]
        return full.transpose(self.permutation).reshape(self.panels, *self.shape)


def label_of(name: str, experiment: Experiment) -> str:
    """The words on an axis. Where early layers have a learning rate of their own, the one that
    is swept is the decoder's (Liu et al. 2022)."""
    label = _LABELS.get(name, plain(name.replace("_", " ")))
    optimizer = experiment.optimizer
    own_decay = optimizer.encoder_weight_decay is not None
    if optimizer.encoder != "none" and (name == "lr" or (name == "weight_decay" and own_decay)):
        return f"decoder {label}"
    return label


def _axis(name: str, values: tuple[Any, ...], experiment: Experiment) -> Axis:
    order = tuple(range(len(values)))
    if all(map(is_number, values)):
        order = tuple(sorted(order, key=lambda i: values[i]))
    return Axis(name, label_of(name, experiment), tuple(values[i] for i in order), order)


def arrange(results: Results) -> Facets:
    """Learning rate along x, weight decay along y, other axes as panels, as in the publications.

    Without one of the two, the longest numerical axis takes its place, seeds and names last.

    Raises:
        UsageError: a single cell, or too many panels.
    """
    experiment = results.grid.experiment
    axes = [_axis(name, values, experiment) for name, values in results.axes.items()]
    varied = [a for a in axes if len(a.values) > 1]
    if not varied:
        raise UsageError(
            "a diagram needs an axis, and this file holds a single cell",
            hint="run with several values, e.g. --lr=logspace:-5:-2:21, or plot --kind=curves",
        )

    def rank(axis: Axis) -> tuple[bool, bool, int]:
        return not is_number(axis.values[0]), axis.name.endswith("seed"), -len(axis.values)

    rest = sorted(varied, key=rank)
    x = next((a for a in rest if a.name == "lr"), None)
    y = next((a for a in rest if a.name == "weight_decay"), None)
    if x is None:
        x = next((a for a in rest if a is not y), y)
        y = None if x is y else y
    assert x is not None
    if y is None:
        y = next((a for a in rest if a is not x), None)
    outer = [a for a in varied if a is not x and a is not y]
    return _facets(axes, outer, y, x)


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
        ", ".join(
            number(v) if isinstance(v, str) else f"{a.label} {number(v)}"
            for a, v in zip(outer, values, strict=True)
        )
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
