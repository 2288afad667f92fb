"""One quantity against one axis of the grid: what figures of such lines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.facets import Axis, Facets, axes_of
from grokfast.figures.numbers import is_log, is_number, number, ticks
from grokfast.figures.scales import log_ticks
from grokfast.figures.style import SERIES

#: Inches of a panel, about.
WIDTH, HEIGHT = 2.7, 2.1

Dash = Literal["-", "--", ":"]

_DASHES: tuple[Dash, ...] = ("-", "--", ":")
_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Look:
    """Of one line; its open markers are shifted to the right by points, because those of several
    lines have the same height."""

    colour: Any
    dash: Dash
    shift: float = 0.0
    marker: str = "o"


def shifts(count: int, places: int) -> NDArray[np.float64]:
    """Of the open markers of some lines with so many places along x."""
    room = min(16.0, 0.7 * 72 * WIDTH / places)
    return (np.arange(count) - (count - 1) / 2) * room / count


def looks(axis: Axis, places: int) -> list[Look]:
    """Of a line for each value of an axis: colours in order for numbers, of a kind for names."""
    count = len(axis.values)
    if all(map(is_number, axis.values)):
        pairs = zip(colours(axis), shifts(count, places), strict=True)
        return [Look(colour, "-", shift) for colour, shift in pairs]
    colour, round_ = len(SERIES), np.arange(count) // len(SERIES)
    return [
        Look(
            SERIES[k % colour],
            _DASHES[round_[k] % len(_DASHES)],
            shift,
            _MARKERS[round_[k] % len(_MARKERS)],
        )
        for k, shift in enumerate(shifts(count, places))
    ]


@dataclass(frozen=True)
class Moment:
    """Steps of an event ``[panel, line, x]``: inf where it was never reached, NaN where it is not
    known."""

    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    budget: NDArray[np.float64]

    @classmethod
    def of(cls, results: Cells, facets: Facets, name: str, budget: int | None) -> Moment:
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

    @property
    def censored(self) -> bool:
        """Whether an event did not happen in some cell."""
        return bool(np.isposinf(self.middle).any())

    def draw(self, ax: Axes, panel: int, x: NDArray[Any], looks: Sequence[Look]) -> None:
        """The lines of one panel."""
        for line, look in enumerate(looks):
            middle, low, high, budget = (
                values[panel, line] for values in (self.middle, self.low, self.high, self.budget)
            )
            inside = np.where(np.isfinite(middle), middle, np.nan)
            ax.plot(
                x,
                inside,
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                markersize=3,
            )
            if (low < high).any():
                above = np.minimum(high, budget)
                there = np.isfinite(low)
                ax.fill_between(
                    x, low, above, where=there, color=look.colour, alpha=0.2, linewidth=0
                )
            beyond = np.isposinf(middle)
            if beyond.any():
                _open_markers(ax, x[beyond], budget[beyond], look)


def _open_markers(ax: Axes, x: NDArray[Any], y: NDArray[Any], look: Look) -> None:
    ax.update_datalim(np.column_stack((x, y)))  # what is shifted has no say in the limits
    paper = ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure
    ax.errorbar(
        x,
        y,
        yerr=0.5 * y,
        lolims=True,
        fmt=look.marker,
        markersize=4,
        markerfacecolor="white",
        color=look.colour,
        elinewidth=0.8,
        capsize=2,
        transform=offset_copy(ax.transData, paper, look.shift, units="points"),
    )


def longest(results: Cells) -> str:
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


def places(axis: Axis) -> NDArray[Any]:
    """Where the values of an axis lie: numbers as they are, names one after the other."""
    numeric = all(map(is_number, axis.values))
    return np.array(axis.values, float) if numeric else np.arange(float(len(axis.values)))


def x_axis(ax: Axes, axis: Axis) -> None:
    """Label, scale and marks of an axis along x."""
    ax.set_xlabel(axis.label)
    ax.margins(x=0.06)
    at = places(axis)
    if not all(map(is_number, axis.values)):
        ax.set_xticks(at, [number(value) for value in axis.values])
    elif is_log(axis.values) and at[0] > 0:
        ax.set_xscale("log")
        log_ticks(ax.xaxis, at[0], at[-1])
    elif is_log(axis.values):
        ax.set_xscale("symlog", linthresh=at[1])  # zero lies one place before the first


def colours(axis: Axis) -> NDArray[Any]:
    """``[values, 4]``, all dark enough for a line."""
    found: NDArray[Any] = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, len(axis.values)))
    return found


def colour_bar(figure: Figure, grid: NDArray[Any], axis: Axis) -> None:
    """Beside a grid of panels: the colours of the lines of an axis of numbers."""
    edges = np.arange(len(axis.values) + 1) - 0.5
    mappable = ScalarMappable(BoundaryNorm(edges, len(axis.values)), ListedColormap(colours(axis)))
    bar = figure.colorbar(mappable, ax=grid, pad=0.02, aspect=25 * len(grid))
    marks = ticks(axis.values, HEIGHT * len(grid), horizontal=False)
    bar.set_ticks(marks.positions, labels=marks.labels)
    bar.ax.minorticks_off()
    bar.set_label(axis.label)
