"""When cells memorised and generalised, against one axis of the grid."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.figures.against import (
    HEIGHT,
    WIDTH,
    Look,
    Moment,
    colour_bar,
    colours,
    longest,
    places,
    shifts,
    x_axis,
)
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Facets, arrange
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of, wrap_title
from grokfast.figures.scales import log_ticks
from grokfast.figures.style import TRAIN, VALIDATION, Paper, style

_MOMENTS: tuple[tuple[str, str, str, Any], ...] = (
    ("t_train", "T(train)", TRAIN, "-"),
    ("t_val", "T(val)", VALIDATION, "--"),
)

CENSORED = "Open, with an arrow: not reached within the budget."


@options
def grokking_times(
    results: Cells, *, budget: int | None = None, x: str | None = None, title: str | None = None
) -> Figure:
    """T_train and T_val against one axis, as the grokking time against the data fraction in [P23]
    Fig 4a: a line for each value of a second axis, a row of panels for each value of further ones.
    A step that was never reached is an open marker with an arrow, at the budget. Of replicates the
    medians, with bands between their quantiles.

    Args:
        results: of a whole grid, of a shard or of a run under way, or an aggregate.
        budget: read them as of this many steps.
        x: name of the axis along x; by default the longest of numbers.
        title: instead of the name of the grid.

    Raises:
        UsageError: no axis of numbers, no such axis, too many panels, or a budget beyond the run.
    """
    steps = check_budget(results, budget)
    facets = arrange(results, x or longest(results))
    moments = [Moment.of(results, facets, name, budget) for name, *_ in _MOMENTS]
    several = facets.y is not None
    width = 6.9 if several else 4.4
    with style():
        figure = Paper((width, 1.2 + (HEIGHT + 0.25) * facets.panels), layout="constrained")
        # T(train) and T(val) of several lines lie side by side.
        columns = 2 if several else 1
        grid = figure.subplots(facets.panels, columns, squeeze=False, sharex=True, sharey=True)
        for which, moment in enumerate(moments):
            for panel, ax in enumerate(grid[:, which % columns]):
                moment.draw(ax, panel, places(facets.x), _looks(facets, which))
                name = [_MOMENTS[which][1]] * several
                named = "\n".join([*name, *facets.titles[panel : panel + 1]])
                ax.set_title(wrap_title(named, WIDTH))
        for ax in grid[:, 0]:
            ax.set_ylabel("steps")
        for ax in grid[-1]:
            x_axis(ax, facets.x)
        low = min(moment.least(steps) for moment in moments)
        grid[0, 0].set(yscale="log", ylim=(low / 1.5, 2 * steps))
        log_ticks(grid[0, 0].yaxis, low / 1.5, 2 * steps)  # the others share it
        handles = []
        if facets.y:
            colour_bar(figure, grid, facets.y)
        else:
            handles = [Line2D([], [], color=c, linestyle=d, label=n) for _, n, c, d in _MOMENTS]
        note = CENSORED if any(moment.censored for moment in moments) else ""
        said = caption(results, width, medians(results), note, budget=steps)
        finish(figure, title_of(results, title), said, handles)
    return figure


def _looks(facets: Facets, which: int) -> list[Look]:
    """Of the lines of one moment: a colour for each value, or the moment's own."""
    count = len(facets.y.values) if facets.y else len(_MOMENTS)
    aside = shifts(count, len(facets.x.values))
    if facets.y:
        return [Look(c, "-", s) for c, s in zip(colours(facets.y), aside, strict=True)]
    _, _, colour, dash = _MOMENTS[which]
    return [Look(colour, dash, aside[which])]


def medians(results: Cells) -> str:
    """What the lines and bands of steps are; nothing where every cell is shown."""
    said = replicates(results, "Medians over {over}")
    if isinstance(results, Aggregate):
        low, high = (f"{q:.0%}" for q in results.quantiles)
        said += f"; bands: {low} to {high}."
    return said
