"""When cells memorised and generalised, against one axis of the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Axis, Facets, arrange, axes_of
from grokfast.figures.numbers import is_log, is_number, number, ticks
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import TRAIN, VALIDATION, Paper, style

_MOMENTS = (("t_train", "T(train)", TRAIN, "-"), ("t_val", "T(val)", VALIDATION, "--"))

#: Inches of a row of panels.
_HEIGHT = 2.1


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
    facets = arrange(results, x or _longest(results))
    moments = [_Moment.of(results, facets, name, budget) for name, *_ in _MOMENTS]
    low = min(float(m.low[np.isfinite(m.low)].min(initial=steps)) for m in moments)
    # T(train) and T(val) of several lines lie side by side.
    columns = 2 if facets.y else 1
    width = 6.9 if facets.y else 4.4
    with style():
        figure = Paper((width, 1.2 + (_HEIGHT + 0.25) * facets.panels), layout="constrained")
        grid = figure.subplots(facets.panels, columns, squeeze=False, sharex=True, sharey=True)
        colours = _colours(facets.y)
        for which, (moment, (_, name, colour, dash)) in enumerate(
            zip(moments, _MOMENTS, strict=True)
        ):
            for panel, ax in enumerate(grid[:, which % columns]):
                for line in range(facets.shape[0]):
                    look = (colours[line], "-") if facets.y else (colour, dash)
                    moment.draw(ax, (panel, line), _places(facets.x), *look)
                above = [*([name] if facets.y else []), *facets.titles[panel : panel + 1]]
                ax.set_title("\n".join(above))
        for ax in grid[:, 0]:
            ax.set_ylabel("steps")
        for ax in grid[-1]:
            _x_axis(ax, facets.x)
        grid[0, 0].set(yscale="log", ylim=(low / 1.5, 2 * steps))
        handles = []
        if facets.y:
            _colour_bar(figure, grid, facets.y, colours)
        else:
            handles = [Line2D([], [], color=c, linestyle=d, label=n) for _, n, c, d in _MOMENTS]
        note = "Open, with an arrow: not reached within the budget."
        if not any(np.isposinf(m.middle).any() for m in moments):
            note = ""
        finish(figure, title_of(results, title), _caption(results, width, note, steps), handles)
    return figure


@dataclass(frozen=True)
class _Moment:
    """T_train or T_val ``[panel, line, x]``: inf where it was never reached, NaN where it is not
    known."""

    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    budget: NDArray[np.float64]

    @classmethod
    def of(cls, results: Cells, facets: Facets, name: str, budget: int | None) -> _Moment:
        middle = results.moments(name, budget)
        low = high = middle
        if isinstance(results, Aggregate):
            low, high = results[f"{name}_low"], results[f"{name}_high"]
            ends = results["budget"]
        else:
            ends = np.array([results.grid.cells[run].steps for run in results["run"].tolist()])
            ends = np.minimum(ends, np.inf if budget is None else budget)
        arrays = (middle, low, high, ends.astype(float))
        return cls(*(facets.split(results, values) for values in arrays))

    def draw(self, ax: Axes, at: tuple[int, int], x: NDArray[Any], colour: Any, dash: str) -> None:
        """The line of one panel and value."""
        middle, low, high, budget = (
            np.maximum(values[at], 1.0)
            for values in (self.middle, self.low, self.high, self.budget)
        )
        inside = np.where(np.isfinite(middle), middle, np.nan)
        ax.plot(x, inside, color=colour, linestyle=dash, marker="o", markersize=3)
        if (low < high).any():
            ax.fill_between(
                x,
                low,
                np.minimum(high, budget),
                where=np.isfinite(low),
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
        beyond = np.isposinf(middle)
        ax.errorbar(
            x[beyond],
            budget[beyond],
            yerr=0.5 * budget[beyond],
            lolims=True,
            fmt="o",
            markersize=4,
            markerfacecolor="white",
            color=colour,
            elinewidth=0.8,
            capsize=2,
        )


def _longest(results: Cells) -> str:
    """The first of the axes of numbers with the most values; seeds only where nothing else is."""
    axes = [a for a in axes_of(results) if len(a.values) > 1 and all(map(is_number, a.values))]
    if not axes:
        raise UsageError(
            "steps are drawn against an axis of several numbers, and this file has none",
            hint="run with several values, e.g. --set=task.fraction=linspace:0.2:0.8:7",
        )
    return max(axes, key=lambda a: (not a.name.endswith("seed"), len(a.values))).name


def _places(axis: Axis) -> NDArray[Any]:
    numeric = all(map(is_number, axis.values))
    return np.array(axis.values, float) if numeric else np.arange(float(len(axis.values)))


def _x_axis(ax: Axes, axis: Axis) -> None:
    ax.set_xlabel(axis.label)
    places = _places(axis)
    if not all(map(is_number, axis.values)):
        ax.set_xticks(places, [number(value) for value in axis.values])
    elif is_log(axis.values):
        # Zero comes before the first decade.
        ax.set_xscale("symlog", linthresh=places[places > 0][0])


def _colours(axis: Axis | None) -> NDArray[Any]:
    count = len(axis.values) if axis else 1
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.8, count))


def _colour_bar(figure: Figure, grid: NDArray[Any], axis: Axis, colours: NDArray[Any]) -> None:
    edges = np.arange(len(axis.values) + 1) - 0.5
    mappable = ScalarMappable(BoundaryNorm(edges, len(colours)), ListedColormap(colours))
    bar = figure.colorbar(mappable, ax=grid, pad=0.02, aspect=25)
    marks = ticks(axis.values, _HEIGHT * len(grid), horizontal=False)
    bar.set_ticks(marks.positions, labels=marks.labels)
    bar.ax.minorticks_off()
    bar.set_label(axis.label)


def _caption(results: Cells, width: float, note: str, steps: int) -> str:
    put_together = replicates(results, "Medians over {over}")
    if isinstance(results, Aggregate):
        low, high = (f"{q:.0%}" for q in results.quantiles)
        put_together += f"; bands: {low} to {high}."
    return caption(results, width, put_together, note, budget=steps)
