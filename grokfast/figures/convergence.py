"""Convergence steps: when each cell memorised, and when it generalised."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from grokfast.cells import Cells
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import arrange
from grokfast.figures.page import options
from grokfast.figures.panels import (
    DIVERGED_HATCH,
    GREY,
    NEVER_HATCH,
    Mark,
    Size,
    draw_mark,
    finish,
    frame,
    hatch,
    hatch_status,
    mark_range,
    paint,
    status_handles,
    title_of,
)
from grokfast.figures.style import style
from grokfast.results import DIVERGED

_NEVER_INK = "#B5B5B5"


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
    # One row of panels: the two lie side by side; several: all of T(train), then all of T(val).
    side_by_side = facets.panels == 1 and facets.shape[0] > 1
    rows, columns = (1, 2) if side_by_side else (2 * facets.rows, facets.columns)
    blank = [""] * (facets.rows * facets.columns - facets.panels)
    titles = [
        f"{name}{chr(10) if t else ''}{t}"
        for name in ("T(train)", "T(val)")
        for t in [*(facets.titles or ("",)), *blank]
    ]
    with style():
        size = Size.of(
            facets, rows, columns, right=1.0, tallest_label=0.8, title_lines=1 + bool(facets.titles)
        )
        paper, axes = frame(facets, size, rows, columns, titles)
        norm, cmap = LogNorm(lowest, highest), matplotlib.colormaps["cividis"]
        used = []
        for k, ax in enumerate(axes):
            which, panel = divmod(k, len(axes) // 2)
            if panel >= facets.panels:
                ax.remove()
                continue
            there = reached[which, panel]
            mesh = paint(ax, np.where(there, both[which, panel], np.nan), cmap, norm)
            never = ~there & ~unknown[which, panel]
            diverged = never & (status[panel] == DIVERGED)
            hatch(ax, never & ~diverged, NEVER_HATCH, _NEVER_INK)
            hatch(ax, diverged, DIVERGED_HATCH, "#FFFFFF", GREY)
            hatch_status(ax, np.where(there, status[panel], 0), unknown[which, panel])
            draw_mark(ax, box)
            used.append(ax)
        bar = paper.colorbar(mesh, ax=used, pad=0.02, aspect=25)
        bar.set_label("steps")
        handles = status_handles(status, unknown)
        if (~reached & ~unknown & (status != DIVERGED)).any():
            handles.insert(0, _never_handle())
        finish(
            paper,
            title_of(results, title),
            caption(results, size.figure[0], put_together, sentence, budget=steps),
            handles,
        )
    return paper


def _never_handle() -> Patch:
    return Patch(
        facecolor="white",
        edgecolor=_NEVER_INK,
        linewidth=0,
        hatch=NEVER_HATCH,
        label="never reached",
    )
