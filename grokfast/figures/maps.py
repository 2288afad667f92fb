"""Preactivations of a hidden neuron and of an output over all pairs, and their transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from grokfast.analyses.neurons import Floats, Neurons
from grokfast.analyses.preactivations import fourier_map, output_map, preactivation_map
from grokfast.analyses.spectrum import is_multiplicative, neuron_ipr
from grokfast.figures.caption import caption
from grokfast.figures.cells import headings
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import Paper, style
from grokfast.results import Results


@options
def preactivation_maps(
    results: Results,
    cells: Sequence[Cell] | None = None,
    *,
    neuron: int | None = None,
    output: int = 0,
    title: str | None = None,
) -> Figure:
    """Preactivation of a hidden neuron over all pairs (m, n) and of an output, each with its
    two-dimensional Fourier transform, as [P23] Fig 2; one row a cell.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        neuron: which hidden one; by default the one with the highest IPR.
        output: which class.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, neuron or output, a run without weights, or nets of another kind.
    """
    chosen = choose(results, cells)
    nets = [Neurons.of_cell(results, cell) for cell in chosen]
    if neuron is None:
        which = [strongest(results, *pair) for pair in zip(chosen, nets, strict=True)]
    else:
        which = [neuron] * len(nets)
    width = 6.9
    with style():
        figure = Paper((width, 0.85 + 1.95 * len(chosen)), layout="constrained")
        grid = figure.subplots(len(chosen), 4, squeeze=False)
        last = [f"hidden neuron {k}" for k in which]
        names = headings(results, chosen, width / 4, last)
        for row, net, k, name in zip(grid, nets, which, names, strict=True):
            hidden, written = preactivation_map(net, k), output_map(net, output)
            _map(row[0], hidden, name)
            _transform(row[1], hidden)
            _map(row[2], written, f"output {output}")
            _transform(row[3], written)
        note = (
            "Maps: red positive, blue negative, white 0, to the largest magnitude of each. "
            "Fourier: magnitude of the map without its mean, as a share of the largest, 0 in the "
            "middle."
        )
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


def strongest(results: Results, cell: int, net: Neurons) -> int:
    """The neuron with the highest IPR."""
    ipr = neuron_ipr(net, multiplicative=is_multiplicative(results, cell))
    return int(np.nan_to_num(ipr).argmax())


def _map(ax: Axes, values: Floats, title: str) -> None:
    most = np.abs(values).max() or 1.0
    ax.imshow(values.T, origin="lower", cmap="RdBu_r", vmin=-most, vmax=most)
    ax.set(title=title, xlabel="m", ylabel="n")
    _ticks(ax)


def _transform(ax: Axes, values: Floats) -> None:
    p = len(values)
    low = -(p // 2) - 0.5
    ax.imshow(
        fourier_map(values).T,
        origin="lower",
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(low, low + p, low, low + p),
        interpolation="nearest",
    )
    ax.set(title="Fourier", xlabel="frequency of m", ylabel="of n")
    _ticks(ax)


def _ticks(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
