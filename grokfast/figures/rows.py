"""What the most periodic neuron of single cells reads of a symbol, before and after training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from grokfast.analyses.neurons import Floats, Neurons
from grokfast.analyses.spectrum import is_multiplicative
from grokfast.errors import UsageError
from grokfast.figures.caption import caption
from grokfast.figures.cells import headings, mark_phase
from grokfast.figures.choice import Cell, choose
from grokfast.figures.maps import strongest
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import NEURON, Paper, style
from grokfast.results import Results
from grokfast.tasks.modular import discrete_log_order

#: Colours of a row before and after training.
_BEFORE, _AFTER = "#B5B5B5", NEURON


@options
def neuron_rows(
    results: Results,
    cells: Sequence[Cell] | None = None,
    *,
    neuron: int | None = None,
    title: str | None = None,
) -> Figure:
    """The row U[k] of a hidden neuron over the first symbol m, and its |rfft|, before and after
    training, as [P24] Fig 2; one row a cell. Multiplication is taken in the order of discrete
    logarithms. The initial values are drawn again from the seed.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        neuron: which hidden one; by default the one with the highest IPR after training.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell or neuron, a run without weights, or nets of another kind.
    """
    chosen = choose(results, cells)
    nets = [Neurons.of_cell(results, cell) for cell in chosen]
    if neuron is None:
        which = [strongest(results, *pair) for pair in zip(chosen, nets, strict=True)]
    else:
        which = [neuron] * len(nets)
    rows = [
        [_row(results, cell, net, k) for net in (_initial(results, cell), trained)]
        for cell, trained, k in zip(chosen, nets, which, strict=True)
    ]
    width = 6.9
    with style():
        figure = Paper((width, 1.1 + 1.95 * len(chosen)), layout="constrained")
        grid = figure.subplots(
            len(chosen), 2, squeeze=False, sharex="col", sharey="col", width_ratios=(1.6, 1)
        )
        names = headings(results, chosen, 0.55 * width, [f"hidden neuron {k}" for k in which])
        for (left, right), cell, name, pair in zip(grid, chosen, names, rows, strict=True):
            for row, colour in zip(pair, (_BEFORE, _AFTER), strict=True):
                left.plot(row, color=colour)
                right.plot(np.abs(np.fft.rfft(row)), color=colour)
            left.set_title(name, linespacing=1.3)
            left.set_ylabel("U[k, m]")
            right.set_ylabel("|rfft|")
            for ax in (left, right):
                mark_phase(ax, results, cell)
        for ax, label in zip(grid[-1], (_symbols(results, chosen), "frequency"), strict=True):
            ax.set_xlabel(label)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.margins(x=0.01)
        handles = [
            Line2D([], [], color=_BEFORE, label="before training"),
            Line2D([], [], color=_AFTER, label="after training"),
        ]
        note = "k: the hidden neuron with the highest IPR after training." * (neuron is None)
        finish(figure, title_of(results, title), caption(results, width, note), handles)
    return figure


def _initial(results: Results, cell: int) -> Neurons:
    """The net of a cell before its first step."""
    from grokfast.bucketing import initial_model  # imports torch, which reading a file does without

    experiment = results.grid.cells[int(results["run"][cell])]
    return Neurons.of(initial_model(experiment.model, experiment.task.build()).module)


def _row(results: Results, cell: int, net: Neurons, neuron: int) -> Floats:
    """U[k], ``[p]``, or ``[p - 1]`` over discrete logarithms."""
    if not 0 <= neuron < net.width:
        raise UsageError(f"no neuron {neuron}; there are {net.width}, counted from 0")
    row: Floats = net.u[neuron]
    return row[discrete_log_order(net.p)] if is_multiplicative(results, cell) else row


def _symbols(results: Results, chosen: Sequence[int]) -> str:
    several = [is_multiplicative(results, cell) for cell in chosen]
    if not any(several):
        return "symbol m"
    logarithm = "discrete logarithm of m"
    return logarithm if all(several) else f"symbol m, or {logarithm}"
