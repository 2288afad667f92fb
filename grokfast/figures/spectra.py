"""How periodic the neurons of single cells are: IPR, gamma of a BatchNorm, sums of phases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from grokfast.analyses.neurons import Neurons
from grokfast.analyses.norms import gamma_against_ipr
from grokfast.analyses.spectrum import (
    BINS,
    histogram,
    is_multiplicative,
    neuron_ipr,
    phase_sums,
)
from grokfast.figures.caption import caption
from grokfast.figures.cells import panels
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import INK, NEURON, style
from grokfast.results import Results

_IPR = "IPR of a neuron: mean of those of its vectors in U, V and W, r = 2, by rfft"


@options
def ipr_histograms(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Histogram of the IPR of the neurons of chosen cells, as [P24] Figs 2 and 4; the mean as a
    dashed line. Multiplication is taken in the order of discrete logarithms.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a run without weights, or nets of another kind.
    """
    chosen = choose(results, cells)
    values = [
        neuron_ipr(Neurons.of_cell(results, cell), multiplicative=is_multiplicative(results, cell))
        for cell in chosen
    ]
    with style():
        figure, axes, width = panels(
            results, chosen, [_summary(v) for v in values], ("IPR", "neurons")
        )
        for ax, ipr in zip(axes, values, strict=True):
            counts, edges = histogram(ipr)
            ax.stairs(counts, edges, fill=True, color=NEURON)
            if counts.any():
                ax.axvline(float(np.nanmean(ipr)), color=INK, linestyle="--", linewidth=0.8)
        axes[0].set_xlim(0, 1)
        axes[0].set_ylim(0, None)
        note = f"{_IPR}{_order(results, chosen)}; {BINS} bins, mean dashed."
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


@options
def gamma_scatter(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """|gamma| of the normalisation of each neuron against its IPR, as [P24] Fig 5. Arguments and
    errors as :func:`ipr_histograms`; also a net without a normalisation."""
    chosen = choose(results, cells)
    pairs = [
        gamma_against_ipr(
            Neurons.of_cell(results, cell), multiplicative=is_multiplicative(results, cell)
        )
        for cell in chosen
    ]
    with style():
        figure, axes, width = panels(
            results, chosen, [_summary(ipr) for _, ipr in pairs], ("IPR", r"$|\gamma|$")
        )
        for ax, (gamma, ipr) in zip(axes, pairs, strict=True):
            ax.scatter(ipr, gamma, s=5, color=NEURON, alpha=0.5, linewidth=0)
        axes[0].set_xlim(0, 1)
        axes[0].set_ylim(0, None)
        note = f"A dot is a neuron. {_IPR}{_order(results, chosen)}."
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


@options
def phase_histograms(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """Histogram of a + b - c, the phases of each neuron at its strongest frequency, as [P23] Fig 3:
    0 where a neuron adds. Arguments and errors as :func:`ipr_histograms`."""
    chosen = choose(results, cells)
    sums = [
        phase_sums(Neurons.of_cell(results, cell), multiplicative=is_multiplicative(results, cell))[
            1
        ]
        for cell in chosen
    ]
    near = [f"{np.mean(np.abs(s) < np.pi / 10):.0%} within π/10 of 0" for s in sums]
    with style():
        figure, axes, width = panels(results, chosen, near, ("a + b \N{MINUS SIGN} c", "neurons"))
        for ax, values in zip(axes, sums, strict=True):
            counts, edges = np.histogram(values[np.isfinite(values)], BINS, (-np.pi, np.pi))
            ax.stairs(counts, edges, fill=True, color=NEURON)
        axes[0].set_xlim(-np.pi, np.pi)
        axes[0].set_xticks([-np.pi, 0, np.pi], ["\N{MINUS SIGN}π", "0", "π"])
        axes[0].set_ylim(0, None)
        note = (
            "a, b, c: phases of a neuron's vectors in U, V and W at its strongest frequency"
            f"{_order(results, chosen)}; {BINS} bins."
        )
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


def _summary(ipr: np.ndarray) -> str:
    alive = ipr[np.isfinite(ipr)]
    return f"mean IPR {alive.mean():.3f}" if len(alive) else "all weights are zero"


def _order(results: Results, chosen: Sequence[int]) -> str:
    several = [is_multiplicative(results, cell) for cell in chosen]
    if not any(several):
        return ""
    which = "" if all(several) else " for multiplication"
    return f", over discrete logarithms{which}"
