"""What was measured of the parameters of single cells, against steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokfast.aggregate import Aggregate
from grokfast.analyses.analytic import solution
from grokfast.analyses.spectrum import neuron_ipr
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.along import Unit
from grokfast.figures.choice import Cell, choose
from grokfast.figures.histories import (
    Band,
    Panel,
    View,
    curve_panels,
    draw_line,
    has_curves,
    stacked,
)
from grokfast.figures.labels import words
from grokfast.figures.page import options
from grokfast.figures.style import INK, NEURON, SERIES, plain
from grokfast.models import Mlp
from grokfast.observables import OBSERVABLES, Observable
from grokfast.retyping import again
from grokfast.tasks.modular import Modular

#: An observable of more entries than this has a band instead of a line each.
LINES = 12

#: Largest value over the median from which on an observable is drawn on a log scale.
_EXPLODED = 1e3


@options
def observables(
    results: Cells,
    cells: Sequence[Cell] | None = None,
    *,
    x: Unit = "steps",
    band: Band = "sd",
    title: str | None = None,
) -> Figure:
    """Every recorded observable of chosen cells against steps, below their accuracies and losses:
    norms that grow at the onset of grokking or collapse, as [P23] Fig 1, [P24] Fig 8 and Figs 4 and
    6 of the parity blog, and the mean IPR, as [P23] Fig 5, with that of the analytic solution as a
    dashed line. An observable of up to 12 entries has a line for each, of more their median and
    quartiles. Of replicates the means, with bands of one standard deviation.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        x: ``steps`` or ``epochs``; the initial state, 0, has no place on its log scale.
        band: of replicates: ``sd``, or ``none`` for the means alone.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a run that recorded none (or, of replicates, none whose entries
            correspond), or another ``x`` or ``band``.
    """
    names = _measured(results)
    view = View.of(results, choose(results, cells), x, band)
    panels = curve_panels(view) if has_curves(results) else []
    panels += [_panel(view, name) for name in names]
    notes = [view.said]
    if any(results[name][0, 0].size > LINES for name in names):
        notes.append("Bands: quartiles, around the median.")
    if "ipr" in names and any(_solution_ipr(results, cell) for cell in view.chosen):
        notes.append("Dashed: mean IPR of the analytic solution.")
    return stacked(view, panels, title, *notes)


def _measured(results: Cells) -> list[str]:
    """Names of the recorded observables.

    Raises:
        UsageError: there is none.
    """
    names = [n for n, (dims, _) in results.variables.items() if dims[:2] == ("run", "observed")]
    derived = {f"{name}_{kind}" for name in names for kind in ("std", "count")}  # of replicates
    names = [name for name in names if name not in derived]
    if names:
        return names
    if isinstance(results, Aggregate):
        raise UsageError(
            "these replicates have no observable that could be averaged",
            hint="without --over there are those of single cells, if the run recorded any",
        )
    raise UsageError(
        "this run recorded no observables",
        hint=again(results.grid, **{"record.observables": ("norms",)}),
    )


def _panel(view: View, name: str) -> Panel:
    results, chosen = view.results, view.chosen
    known: Observable | None = OBSERVABLES.get(name)  # none where its code is not here
    label = plain(known.label) if known and known.label != name else words(name)
    units = f" [{plain(known.units)}]" if known and known.units else ""
    named = [_entries(results, cell, name) for cell in chosen]

    def draw(ax: Axes, cell: int) -> None:
        entries = named[chosen.index(cell)]
        _lines(ax, view, name, cell, entries)
        # One legend for all, unless their models differ.
        if len(ax.lines) > 1 and (cell == chosen[0] or entries != named[0]):
            ax.legend(loc="best", fontsize="small", handlelength=1.5, labelspacing=0.2)
        if name == "ipr" and (goal := _solution_ipr(results, cell)) is not None:
            ax.axhline(goal, color=INK, linestyle="--", linewidth=0.8)

    return Panel(label + units, draw, *_scale(view, name))


def _lines(ax: Axes, view: View, name: str, cell: int, entries: Sequence[str]) -> None:
    """An observable of a cell."""
    step, values = view.results["observed"], view.results[name][cell]  # [S], [S, ...]
    x, spread = view.along.at(cell, step), view.spread(name, cell)
    values = np.where(np.isfinite(values), values, np.nan).reshape(len(step), -1)  # [S, E]
    there = ~np.isnan(values) & (step >= 1)[:, None]  # the log axis has no step 0
    if not there.any():
        return
    if values.shape[1] > LINES:
        some = there.any(axis=1)
        low, middle, high = np.nanpercentile(values[some], (25, 50, 75), axis=1)
        ax.plot(x[some], middle, color=NEURON)
        ax.fill_between(x[some], low, high, color=NEURON, alpha=0.25, linewidth=0)
        return
    bands = None if spread is None else spread.reshape(len(step), -1)
    for k, entry in enumerate(entries):
        colour, dash = SERIES[k % len(SERIES)], "--" if k >= len(SERIES) else "-"
        known, band = there[:, k], None if bands is None else bands[:, k]
        if known.any():
            draw_line(ax, x, values[:, k], known, band, colour, linestyle=dash, label=entry)


def _entries(results: Cells, cell: int, name: str) -> tuple[str, ...]:
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


def _scale(view: View, name: str) -> tuple[tuple[float, float] | None, Literal["linear", "log"]]:
    """The limits for all chosen cells, and linear, unless one that explodes would press all others
    flat."""
    values = view.results[name][list(view.chosen)].astype(float)
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


def _solution_ipr(results: Cells, cell: int) -> float | None:
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
