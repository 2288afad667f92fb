"""When cells memorised and generalised, against one axis of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Axis, Facets, arrange, axes_of
from grokfast.figures.numbers import is_log, is_number, number, ticks
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import TRAIN, VALIDATION, Paper, style

_MOMENTS: tuple[tuple[str, str, str, Any], ...] = (
    ("t_train", "T(train)", TRAIN, "-"),
    ("t_val", "T(val)", VALIDATION, "--"),
)

#: Inches of a panel, about.
_WIDTH, _HEIGHT = 2.7, 2.1


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
    several = facets.y is not None
    width = 6.9 if several else 4.4
    with style():
        figure = Paper((width, 1.2 + (_HEIGHT + 0.25) * facets.panels), layout="constrained")
        # T(train) and T(val) of several lines lie side by side.
        columns = 2 if several else 1
        grid = figure.subplots(facets.panels, columns, squeeze=False, sharex=True, sharey=True)
        for which, moment in enumerate(moments):
            for panel, ax in enumerate(grid[:, which % columns]):
                moment.draw(ax, panel, _places(facets.x), _looks(facets, which))
                name = [_MOMENTS[which][1]] * several
                ax.set_title("\n".join([*name, *facets.titles[panel : panel + 1]]))
        for ax in grid[:, 0]:
            ax.set_ylabel("steps")
        for ax in grid[-1]:
            _x_axis(ax, facets.x)
        low = min(moment.least(steps) for moment in moments)
        grid[0, 0].set(yscale="log", ylim=(low / 1.5, 2 * steps))
        handles = []
        if facets.y:
            _colour_bar(figure, grid, facets.y)
        else:
            handles = [Line2D([], [], color=c, linestyle=d, label=n) for _, n, c, d in _MOMENTS]
        note = "Open, with an arrow: not reached within the budget."
        if not any(np.isposinf(moment.middle).any() for moment in moments):
            note = ""
        finish(figure, title_of(results, title), _caption(results, width, note, steps), handles)
    return figure


@dataclass(frozen=True)
class _Look:
    """Of one line; its open markers are shifted to the right by points, because those of several
    lines have the same height."""

    colour: Any
    dash: str
    shift: float


def _looks(facets: Facets, which: int) -> list[_Look]:
    """Of the lines of one moment: a colour for each value, or the moment's own."""
    count = len(facets.y.values) if facets.y else len(_MOMENTS)
    room = min(16.0, 0.7 * 72 * _WIDTH / len(facets.x.values))
    shifts = (np.arange(count) - (count - 1) / 2) * room / count
    if facets.y:
        return [_Look(c, "-", s) for c, s in zip(_colours(facets.y), shifts, strict=True)]
    _, _, colour, dash = _MOMENTS[which]
    return [_Look(colour, dash, shifts[which])]


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

    def least(self, steps: float) -> float:
        """The smallest step that is drawn."""
        return float(self.low[np.isfinite(self.low)].min(initial=steps))

    def draw(self, ax: Axes, panel: int, x: NDArray[Any], looks: Sequence[_Look]) -> None:
        """The lines of one panel."""
        for line, look in enumerate(looks):
            middle, low, high, budget = (
                values[panel, line] for values in (self.middle, self.low, self.high, self.budget)
            )
            inside = np.where(np.isfinite(middle), middle, np.nan)
            ax.plot(x, inside, color=look.colour, linestyle=look.dash, marker="o", markersize=3)
            if (low < high).any():
                above = np.minimum(high, budget)
                there = np.isfinite(low)
                ax.fill_between(
                    x, low, above, where=there, color=look.colour, alpha=0.2, linewidth=0
                )
            beyond = np.isposinf(middle)
            if beyond.any():
                _open_markers(ax, x[beyond], budget[beyond], look)


def _open_markers(ax: Axes, x: NDArray[Any], y: NDArray[Any], look: _Look) -> None:
    ax.update_datalim(np.column_stack((x, y)))  # what is shifted has no say in the limits
    paper = ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure
    ax.errorbar(
        x,
        y,
        yerr=0.5 * y,
        lolims=True,
        fmt="o",
        markersize=4,
        markerfacecolor="white",
        color=look.colour,
        elinewidth=0.8,
        capsize=2,
        transform=offset_copy(ax.transData, paper, look.shift, units="points"),
    )


def _longest(results: Cells) -> str:
    """The axis of numbers with the most values, of equal ones the data fraction or the first; seeds
    only where nothing else is."""
    axes = [a for a in axes_of(results) if len(a.values) > 1 and all(map(is_number, a.values))]
    if not axes:
        raise UsageError(
            "steps are drawn against an axis of several numbers, and this file has none",
            hint="run with several values, e.g. --set=task.fraction=linspace:0.2:0.8:7",
        )

    def rank(axis: Axis) -> tuple[bool, int, bool]:
        return not axis.name.endswith("seed"), len(axis.values), axis.name == "task.fraction"

    return max(axes, key=rank).name


def _places(axis: Axis) -> NDArray[Any]:
    numeric = all(map(is_number, axis.values))
    return np.array(axis.values, float) if numeric else np.arange(float(len(axis.values)))


def _x_axis(ax: Axes, axis: Axis) -> None:
    ax.set_xlabel(axis.label)
    ax.margins(x=0.06)
    places = _places(axis)
    if not all(map(is_number, axis.values)):
        ax.set_xticks(places, [number(value) for value in axis.values])
    elif is_log(axis.values) and places[0] > 0:
        ax.set_xscale("log")
    elif is_log(axis.values):
        ax.set_xscale("symlog", linthresh=places[1])  # zero lies one place before the first


def _colours(axis: Axis) -> NDArray[Any]:
    """``[values, 4]``, all dark enough for a line."""
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.8, len(axis.values)))


def _colour_bar(figure: Figure, grid: NDArray[Any], axis: Axis) -> None:
    edges = np.arange(len(axis.values) + 1) - 0.5
    mappable = ScalarMappable(BoundaryNorm(edges, len(axis.values)), ListedColormap(_colours(axis)))
    bar = figure.colorbar(mappable, ax=grid, pad=0.02, aspect=25 * len(grid))
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
