"""What figures of single cells share: panels side by side, what stands above them, their phase."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.figures.caption import describe
from grokfast.figures.panels import wrap_title
from grokfast.figures.style import Paper, palette
from grokfast.results import DIVERGED

#: Panels side by side at most, and inches of one.
COLUMNS, PANEL = 4, 1.95


def side_by_side(count: int) -> int:
    """Panels in a row: up to four, or five where that leaves no gap and four would."""
    return 5 if count % 5 == 0 and count % COLUMNS else min(COLUMNS, count)


def headings(results: Cells, chosen: Sequence[int], width: float, last: Sequence[str]) -> list[str]:
    """Phase, axis values and a last line for each cell, each wrapped to a width in inches; as many
    lines each."""
    titles = []
    for cell, line in zip(chosen, last, strict=True):
        name = phase_of(results, cell)
        if "diverged_at" in results and results["status"][cell] == DIVERGED:
            name += f", diverged at {int(results['diverged_at'][cell]):,}"
        titles.append(wrap_title(f"{name}\n{describe(results, cell)}\n{line}", width))
    most = max(title.count("\n") for title in titles)
    return ["\n" * (most - title.count("\n")) + title for title in titles]


def phase_of(results: Cells, cell: int) -> str:
    """The name of a cell's phase, of replicates with the votes for it."""
    phase = int(results.phases()[cell])
    if phase < 0:
        return "not finished"
    name = results.rule.phases[phase]
    if isinstance(results, Aggregate):
        name += f" ({results['votes'][cell, phase]} of {results['replicates'][cell]})"
    return name


def mark_phase(ax: Axes, results: Cells, cell: int) -> None:
    """The upper edge of a panel in the colour of its cell's phase."""
    phase = int(results.phases()[cell])
    if phase >= 0:
        colour = palette(results.rule.phases)[phase]
        ax.spines["top"].set(color=colour, linewidth=3, capstyle="butt")


def panels(
    results: Cells, chosen: Sequence[int], last: Sequence[str], labels: tuple[str, str]
) -> tuple[Paper, list[Axes], float]:
    """A figure with a panel for each cell, four in a row, under its heading; labels of x and y
    stand at the outer panels only. Also the figure's width in inches."""
    columns = min(COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    width = max(0.75 + (PANEL + 0.1) * columns, 3.9)
    figure = Paper((width, 0.9 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    axes: list[Axes] = grid.ravel().tolist()
    for ax in axes[len(chosen) :]:
        ax.remove()
    titles = headings(results, chosen, PANEL, last)
    for k, (cell, title) in enumerate(zip(chosen, titles, strict=True)):
        axes[k].set_title(title, linespacing=1.3)
        mark_phase(axes[k], results, cell)
        if k + columns >= len(chosen):  # no panel follows below
            axes[k].set_xlabel(labels[0])
            axes[k].tick_params(labelbottom=True)
        if k % columns == 0:
            axes[k].set_ylabel(labels[1])
    return figure, axes[: len(chosen)], width
