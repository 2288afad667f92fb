"""Accuracy of single cells when neurons are removed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from grokfast.analyses.pruning import Curve, Pruning, pruning_of_cell
from grokfast.figures.caption import caption
from grokfast.figures.cells import headings, mark_phase
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import CORRUPTED, FAINT, TRAIN, UNCORRUPTED, VALIDATION, Paper, style
from grokfast.results import Results

#: Points of a curve, and random orders behind a band.
_POINTS, _CONTROLS = 101, 5

_LINES: tuple[tuple[str, str, str, Any], ...] = (
    ("train", "training", TRAIN, "-"),
    ("val", "validation", VALIDATION, "--"),
    ("corrupted", "corrupted", CORRUPTED, "-."),
    ("uncorrupted", "uncorrupted", UNCORRUPTED, ":"),
)


@options
def pruning_curves(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Accuracies against the share of neurons removed, the lowest IPR first (left) and the highest
    first (right), as [P24] Figs 6 and 17; a band spans five random orders. One row a cell.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a run without weights, nets of another kind, or a task other than
            ``modular``.
    """
    chosen = choose(results, cells)
    found = [pruning_of_cell(results, cell, looks=_POINTS, controls=_CONTROLS) for cell in chosen]
    width = 6.9
    with style():
        figure = Paper((width, 1.0 + 2.2 * len(chosen)), layout="constrained")
        grid = figure.subplots(len(chosen), 2, squeeze=False, sharex=True, sharey=True)
        names = headings(results, chosen, width / 2, ["lowest IPR first"] * len(chosen))
        for row, cell, name, pruned in zip(grid, chosen, names, found, strict=True):
            row[0].set_title(name, linespacing=1.3)
            row[1].set_title("highest IPR first")
            row[0].set_ylabel("accuracy")
            _panel(row[0], pruned, pruned.ascending)
            _panel(row[1], pruned, pruned.descending)
            for ax in row:
                mark_phase(ax, results, cell)
        for ax in grid[-1]:
            ax.set_xlabel("share of neurons removed")
        grid[0, 0].set(xlim=(0, 1), ylim=(-0.03, 1.03))
        note = (
            "Corrupted: training labels that were redrawn, against these; uncorrupted: the other "
            f"training labels. Bands: smallest to largest of {_CONTROLS} random orders."
        )
        finish(figure, title_of(results, title), caption(results, width, note), _legend(found))
    return figure


def _panel(ax: Axes, pruned: Pruning, curve: Curve) -> None:
    share = curve.removed / pruned.width
    for name, _, colour, line in _LINES:
        if name in curve.accuracy:
            random = np.array([control.accuracy[name] for control in pruned.controls])
            ax.fill_between(
                share, random.min(axis=0), random.max(axis=0), color=colour, alpha=0.15, linewidth=0
            )
            ax.plot(share, curve.accuracy[name], color=colour, linestyle=line)


def _legend(found: Sequence[Pruning]) -> list[Line2D | Patch]:
    """Of the lines that occur."""
    there = {name for pruned in found for name in pruned.ascending.accuracy}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, linestyle=line, label=label)
        for name, label, colour, line in _LINES
        if name in there
    ]
    return [*handles, Patch(facecolor=FAINT, alpha=0.3, linewidth=0, label="random orders")]
