"""Accuracy of the analytic solution and of trained cells against the number of neurons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from grokfast.analyses.analytic import width_table
from grokfast.errors import UsageError
from grokfast.figures.caption import caption
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import INK, NEURON, VALIDATION, Paper, style
from grokfast.results import Results
from grokfast.tasks.modular import Modular

#: Widths of the analytic curve, and seeds of its phases.
_POINTS, _SEEDS = 24, 3


@options
def width_accuracy(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Accuracy of the analytic solution on all pairs against its width, as [P23] Fig 4b, and the
    final validation accuracy of trained cells where the file has it.

    Args:
        cells: positions, or axis values, of the trained cells; by default all that are finished.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, or cells of several tasks or of one without an analytic solution.
    """
    chosen = list(range(len(results))) if cells is None else choose(results, cells)
    p, operation = _task(results, chosen)
    widths = np.unique(np.geomspace(max(1, p / 8), 8 * p, _POINTS).astype(int))
    accuracy, _ = width_table(p, widths.tolist(), operation=operation, seeds=_SEEDS)
    width = 4.4
    with style():
        figure = Paper((width, 3.5), layout="constrained")
        ax = figure.subplots()
        ax.fill_between(
            widths,
            accuracy.min(axis=1),
            accuracy.max(axis=1),
            color=NEURON,
            alpha=0.25,
            linewidth=0,
        )
        lines = ax.plot(widths, accuracy.mean(axis=1), color=NEURON, label="analytic solution")
        lines += ax.plot(
            *_trained(results, chosen),
            linestyle="none",
            marker="o",
            markersize=3,
            color=VALIDATION,
            alpha=0.6,
            label="trained, validation",
        )
        ax.axvline(p, color=INK, linestyle=":", linewidth=0.8)
        ax.set(xscale="log", ylim=(-0.03, 1.03), xlabel="width N", ylabel="accuracy")
        ax.xaxis.set_major_formatter(ScalarFormatter())
        note = (
            f"Analytic: {operation} modulo {p}, all pairs, mean and range of {_SEEDS} seeds of the "
            f"phases; dotted: N = p = {p}."
        )
        handles = [line for line in lines if len(np.atleast_1d(line.get_xdata()))]
        finish(figure, title_of(results, title), caption(results, width, note), handles)
    return figure


def _task(results: Results, chosen: Sequence[int]) -> tuple[int, str]:
    """The p and the operation of all chosen cells."""
    tasks = [results.grid.cells[int(results["run"][cell])].task for cell in chosen]
    found = {(t.operation, t.p) if isinstance(t, Modular) else (t.name, 0) for t in tasks}
    ((operation, p), *others) = sorted(found)
    if others or p == 0:
        names = (f"{name} mod {p}" if p else name for name, p in sorted(found))
        raise UsageError(
            "the analytic solution is of one p and operation of the task modular; these are of "
            f"{', '.join(names)}"
        )
    return p, operation


def _trained(results: Results, chosen: Sequence[int]) -> tuple[list[int], list[float]]:
    """Width and final accuracy of the cells that have one."""
    if "final_val_acc" not in results:
        return [], []
    widths, accuracies = [], []
    for cell in chosen:
        value = float(results["final_val_acc"][cell])
        if np.isfinite(value):
            model = results.grid.cells[int(results["run"][cell])].model
            widths.append(getattr(model, "width", 0))
            accuracies.append(value)
    return widths, accuracies
