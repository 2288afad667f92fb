"""Convergence steps: when each cell memorised, and when it generalised."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokfast.cells import Cells
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Facets, arrange
from grokfast.figures.page import options
from grokfast.figures.panels import (
    Mark,
    Size,
    draw_mark,
    finish,
    frame,
    hatch_never,
    hatch_status,
    mark_range,
    never_handle,
    paint,
    status_handles,
    title_of,
)
from grokfast.figures.style import style
from grokfast.results import DIVERGED


@options
def convergence_diagram(
    results: Cells,
    *,
    budget: int | None = None,
    x: str | None = None,
    y: str | None = None,
    title: str | None = None,
    mark: Mark | None = None,
) -> Figure:
    """T_train and T_val of each cell on one log scale, as "training convergence steps" of
    Shabalin et al. 2023; steps that were never reached are white and hatched. Of replicates the
    median, which was never reached where it is larger than the budget.

    Args:
        results, budget, x, y, title, mark: as for :func:`grokfast.figures.phase_diagram`.

    Raises:
        UsageError: a grid of a single cell, too many panels, a budget beyond the run, or a mark
            without cells.
    """
    facets, steps = arrange(results, x, y), check_budget(results, budget)
    status = facets.split(results, "status")
    box, sentence = mark_range(results, facets, mark)
    put_together = replicates(results, "Medians over {over}.")
    moments = (results.moments(name, budget) for name in ("t_train", "t_val"))
    both = np.stack([facets.split(results, values) for values in moments])
    reached, unknown = np.isfinite(both), np.isnan(both)
    lowest = max(1.0, float(both[reached].min())) if reached.any() else 1.0
    lowest = 10.0 ** np.floor(np.log10(lowest))  # a decade, so that the colour bar has labels
    highest = max(10 * lowest, float(steps))
    # The two lie side by side, or all of T(train) above all of T(val), as fills a page better.
    beside = facets.rows >= facets.columns and facets.shape[0] > 1
    rows, columns = facets.rows, facets.columns
    rows, columns = (rows, 2 * columns) if beside else (2 * rows, columns)
    places = _places(facets, beside)
    titles = [_title(facets, *place) for place in places]
    with style():
        size = Size.of(facets, rows, columns, right=1.0, tallest_label=0.8)
        paper, axes = frame(facets, size, rows, columns, titles)
        norm, cmap = LogNorm(lowest, highest), matplotlib.colormaps["viridis"]
        used = []
        for ax, (which, panel) in zip(axes, places, strict=True):
            if panel >= facets.panels:
                ax.remove()
                continue
            there = reached[which, panel]
            mesh = paint(ax, np.where(there, both[which, panel], np.nan), cmap, norm)
            hatch_never(ax, ~there & ~unknown[which, panel], status[panel])
            hatch_status(ax, np.where(there, status[panel], 0), unknown[which, panel])
            draw_mark(ax, box)
            used.append(ax)
        bar = paper.colorbar(mesh, ax=used, pad=0.02, aspect=25)
        bar.set_label("steps")
        handles = status_handles(status, unknown)
        if (~reached & ~unknown & (status != DIVERGED)).any():
            handles.insert(0, never_handle("never reached"))
        finish(
            paper,
            title_of(results, title),
            caption(results, size.figure[0], put_together, sentence, budget=steps),
            handles,
        )
    return paper


def _places(facets: Facets, beside: bool) -> list[tuple[int, int]]:
    """Of each place in the figure, row by row: which moment (0: T_train, 1: T_val), and which
    panel; panels that there are not leave theirs empty."""
    if not beside:
        return [(w, k) for w in range(2) for k in range(facets.rows * facets.columns)]
    row = range(facets.columns)
    return [
        (which, first + k)
        for first in range(0, facets.rows * facets.columns, facets.columns)
        for which in range(2)
        for k in row
    ]


def _title(facets: Facets, which: int, panel: int) -> str:
    return "\n".join([("T(train)", "T(val)")[which], *facets.titles[panel : panel + 1]])
