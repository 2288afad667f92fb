"""Accuracy and loss of single cells against steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from grokfast.errors import UsageError
from grokfast.figures.caption import caption, steps_of
from grokfast.figures.cells import COLUMNS, PANEL, headings, mark_phase
from grokfast.figures.choice import Cell, choose
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import FAINT, INK, TRAIN, VALIDATION, Paper, plain, style
from grokfast.results import DIVERGED, Results

_LINES: tuple[tuple[str, str, Literal["-", "--"]], ...] = (
    ("train", TRAIN, "-"),
    ("val", VALIDATION, "--"),
)


def curves(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Accuracy (above) and loss (below) of chosen cells against steps, T_train and T_val marked;
    as the curves of an unstable MNIST cell in Shabalin et al. 2023.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, or a run without curves.
    """
    if "step" not in results or "train_acc" not in results:
        raise UsageError(
            "this run kept no curves",
            hint=f"run it again into a new file: grokfast run {plain(results.grid.name)} "
            "--set=record.curve_points=200",
        )
    chosen = choose(results, cells)
    columns = min(COLUMNS, len(chosen))
    blocks = math.ceil(len(chosen) / columns)
    width = max(0.75 + (PANEL + 0.1) * columns, 3.9)
    with style():
        figure = Paper((width, 1.1 + 3.2 * blocks), layout="constrained")
        grid = figure.subplots(2 * blocks, columns, squeeze=False)
        limits = _loss_limits(results, chosen)
        moments = [_moments(results, cell) for cell in chosen]
        titles = headings(results, chosen, PANEL, moments)
        for k, cell in enumerate(chosen):
            block, column = divmod(k, columns)
            above, below = grid[2 * block, column], grid[2 * block + 1, column]
            _accuracy(above, results, cell, titles[k])
            _loss(below, results, cell, limits)
            above.tick_params(labelbottom=False)
            below.set_xlabel("steps")
            if column == 0:
                above.set_ylabel("accuracy")
                below.set_ylabel("loss")
            else:
                above.tick_params(labelleft=False)
                below.tick_params(labelleft=False)
        for k in range(len(chosen), blocks * columns):
            block, column = divmod(k, columns)
            grid[2 * block, column].remove()
            grid[2 * block + 1, column].remove()
        figure.align_ylabels()
        finish(figure, title_of(results, title), caption(results, width), _legend(results, chosen))
    return figure


def _steps_axis(ax: Axes, results: Results, cell: int) -> None:
    """Log steps, with the two moments marked."""
    ax.set_xscale("log")
    ax.set_xlim(1, steps_of(results))
    ax.xaxis.set_major_locator(LogLocator(numticks=5))
    ax.xaxis.set_minor_locator(LogLocator(numticks=20))  # the decades between
    ax.xaxis.set_minor_formatter(NullFormatter())
    for name, colour, line in _LINES:
        moment = int(results[f"t_{name}"][cell])
        if moment >= 0:
            # Step 0 does not exist; a crossing before the axis would be lost.
            ax.axvline(max(moment, 1), color=colour, linestyle=line, linewidth=1, alpha=0.45)
    if results["status"][cell] == DIVERGED:
        at = max(int(results["diverged_at"][cell]), 1)
        ax.axvline(at, color=INK, linewidth=2, linestyle=":")


def _lines(ax: Axes, results: Results, cell: int, what: str) -> None:
    step = results["step"]
    for name, colour, line in _LINES:
        values = results[f"{name}_{what}"][cell]
        there = np.isfinite(values) & (step >= 1)
        ax.plot(step[there], values[there], color=colour, linestyle=line)


def _accuracy(ax: Axes, results: Results, cell: int, title: str) -> None:
    _lines(ax, results, cell, "acc")
    _steps_axis(ax, results, cell)
    ax.axhline(results.rule.threshold, color=FAINT, linewidth=0.6, linestyle=":")
    ax.set_ylim(-0.03, 1.03)
    ax.set_title(title, linespacing=1.3)
    mark_phase(ax, results, cell)


def _moments(results: Results, cell: int) -> str:
    def shown(name: str) -> str:
        moment = int(results[name][cell])
        return f"{moment:,}" if moment >= 0 else "never"

    return f"T(train) {shown('t_train')}, T(val) {shown('t_val')}"


def _loss(ax: Axes, results: Results, cell: int, limits: tuple[float, float] | None) -> None:
    _lines(ax, results, cell, "loss")
    _steps_axis(ax, results, cell)
    if limits is not None:
        ax.set_yscale("log")
        ax.set_ylim(*limits)


def _loss_limits(results: Results, chosen: Sequence[int]) -> tuple[float, float] | None:
    """One log scale for all cells; None where no loss is positive."""
    values = np.concatenate([results[f"{name}_loss"][list(chosen)].ravel() for name, *_ in _LINES])
    values = values[np.isfinite(values) & (values > 0)].astype(float)
    if not len(values):
        return None
    # A diverging cell ends at 1e38 and would press all others flat.
    low, high = float(values.min()), min(float(values.max()), 1e6 * float(np.median(values)))
    return low / 1.5, high * 1.5


def _legend(results: Results, chosen: Sequence[int]) -> list[Line2D]:
    """Of the lines that occur."""
    handles = []
    for (_, colour, line), label in zip(_LINES, ("training", "validation"), strict=True):
        handles.append(Line2D([], [], color=colour, linestyle=line, label=label))
    marks = [(f"t_{name}", colour, f"T({name})") for name, colour, _ in _LINES]
    marks.append(("diverged_at", INK, "diverged"))
    for name, colour, label in marks:
        if (results[name][list(chosen)] < 0).all():
            continue
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                alpha=1 if name == "diverged_at" else 0.45,
                linestyle="none",
                marker="|",
                markersize=9,
                markeredgewidth=1.2,
                label=label,
            )
        )
    return handles
