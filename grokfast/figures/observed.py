"""What was measured of the parameters of single cells, against steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokfast.analyses.analytic import solution
from grokfast.analyses.spectrum import neuron_ipr
from grokfast.errors import UsageError
from grokfast.figures.choice import Cell, choose
from grokfast.figures.facets import words
from grokfast.figures.histories import Panel, curve_panels, has_curves, stacked
from grokfast.figures.style import INK, NEURON, SERIES, plain
from grokfast.models import Mlp
from grokfast.observables import OBSERVABLES, Observable
from grokfast.results import Results
from grokfast.tasks.modular import Modular

#: An observable of more entries than this has a band instead of a line each.
LINES = 12

#: Largest value over the median from which on an observable is drawn on a log scale.
_EXPLODED = 1e3


def observables(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Every recorded observable of chosen cells against steps, below their accuracies and losses:
    norms that grow at the onset of grokking or collapse, as [P23] Fig 1 and [P24] Fig 8, and the
    mean IPR, as [P23] Fig 5, with that of the analytic solution as a dashed line. An observable of
    up to 12 entries has a line for each, of more their median and quartiles.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, or a run that recorded none.
    """
    names = [n for n, (dims, _) in results.variables.items() if dims[:2] == ("run", "observed")]
    if not names:
        raise UsageError(
            "this run recorded no observables",
            hint=f"run it again into a new file: grokfast run {plain(results.grid.name)} "
            "--record=norms,ipr,curves:200",
        )
    chosen = choose(results, cells)
    panels = curve_panels(results, chosen) if has_curves(results) else []
    panels += [_panel(results, chosen, name) for name in names]
    note = ""
    if any(results[name][0, 0].size > LINES for name in names):
        note = "Bands: quartiles, around the median."
    if "ipr" in names and any(_solution_ipr(results, cell) for cell in chosen):
        note = f"{note} Dashed: mean IPR of the analytic solution.".lstrip()
    return stacked(results, chosen, panels, title, note)


def _panel(results: Results, chosen: Sequence[int], name: str) -> Panel:
    known: Observable | None = OBSERVABLES.get(name)  # none where its code is not here
    label = plain(known.label) if known and known.label != name else words(name)
    units = f" [{plain(known.units)}]" if known and known.units else ""
    named = [_entries(results, cell, name) for cell in chosen]

    def draw(ax: Axes, cell: int) -> None:
        entries = named[chosen.index(cell)]
        _lines(ax, results["observed"], results[name][cell], entries)
        # One legend for all, unless their models differ.
        if len(ax.lines) > 1 and (cell == chosen[0] or entries != named[0]):
            ax.legend(loc="best", fontsize=6.5, handlelength=1.5, labelspacing=0.2)
        if name == "ipr" and (goal := _solution_ipr(results, cell)) is not None:
            ax.axhline(goal, color=INK, linestyle="--", linewidth=0.8)

    return Panel(label + units, draw, *_scale(results, chosen, name))


def _lines(ax: Axes, step: NDArray[Any], values: NDArray[Any], entries: Sequence[str]) -> None:
    """Values ``[S, ...]`` of a cell at steps ``[S]``."""
    values = np.where(np.isfinite(values), values, np.nan).reshape(len(step), -1)  # [S, E]
    there = ~np.isnan(values) & (step >= 1)[:, None]  # the log axis has no step 0
    if not there.any():
        return
    if values.shape[1] > LINES:
        some = there.any(axis=1)
        low, middle, high = np.nanpercentile(values[some], (25, 50, 75), axis=1)
        ax.plot(step[some], middle, color=NEURON)
        ax.fill_between(step[some], low, high, color=NEURON, alpha=0.25, linewidth=0)
        return
    for k, entry in enumerate(entries):
        colour, dash = SERIES[k % len(SERIES)], "--" if k >= len(SERIES) else "-"
        known = there[:, k]
        if known.any():
            ax.plot(step[known], values[known, k], color=colour, linestyle=dash, label=entry)


def _entries(results: Results, cell: int, name: str) -> tuple[str, ...]:
    """A name for each line of a cell: the observable's own, where they are as many as it has."""
    dims, values = results.variables[name]
    count = values[0, 0].size
    known: Observable | None = OBSERVABLES.get(name)
    named: tuple[str, ...] = ()
    if known and known.entries:
        named = tuple(known.entries(results.grid.cells[int(results["run"][cell])]))
    measured = np.isfinite(values[cell]).any(axis=0).reshape(-1).nonzero()[0]
    if named and len(named) <= count and (not len(measured) or measured[-1] < len(named)):
        return tuple(map(plain, named))
    what = " ".join(map(words, dims[2:]))
    return tuple(f"{what} {k}" for k in range(count))


def _scale(
    results: Results, chosen: Sequence[int], name: str
) -> tuple[tuple[float, float] | None, Literal["linear", "log"]]:
    """The limits for all chosen cells, and linear, unless one that explodes would press all others
    flat."""
    values = results[name][list(chosen)].astype(float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None, "linear"
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > _EXPLODED * np.median(values):
        return (low / 1.5, high * 1.5), "log"
    if name == "ipr":
        high = max(high, 1.0)
    margin = 0.05 * (high - min(low, 0.0)) or 1.0
    return (min(low, 0.0) - margin, high + margin), "linear"


def _solution_ipr(results: Results, cell: int) -> float | None:
    """Mean IPR, in the order of the symbols as the observable has it, of the analytic solution of
    a cell's task; None where there is none."""
    experiment = results.grid.cells[int(results["run"][cell])]
    task, model = experiment.task, experiment.model
    if not (isinstance(task, Modular) and isinstance(model, Mlp)):
        return None
    try:
        net = solution(task.p, model.embedding_dim or model.width, operation=task.operation)
    except UsageError:  # an operation without one
        return None
    return float(neuron_ipr(net).mean())
