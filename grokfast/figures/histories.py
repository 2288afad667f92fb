"""Single cells against steps: accuracy and loss, and the columns that other quantities join."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerLine2D
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.along import Along, Unit, ended
from grokfast.figures.caption import caption, replicates, wrap
from grokfast.figures.cells import PANEL, headings, mark_phase, side_by_side
from grokfast.figures.choice import Cell, choose
from grokfast.figures.numbers import number
from grokfast.figures.page import options, page
from grokfast.figures.panels import finish, title_of
from grokfast.figures.scales import log_ticks
from grokfast.figures.style import FAINT, INK, TRAIN, VALIDATION, Paper, style
from grokfast.results import DIVERGED, OK
from grokfast.retyping import again

_LINES: tuple[tuple[str, str, Literal["-", "--"]], ...] = (
    ("train", TRAIN, "-"),
    ("val", VALIDATION, "--"),
)

#: Of the upright line where a cell diverged.
_DIVERGED: dict[str, Any] = {"color": INK, "linewidth": 2, "linestyle": ":"}

Band = Literal["sd", "none"]

#: How much further the axis goes than the curves, so that a mark at their end is seen.
_ROOM = 1.12

#: Inches that a line of a label may be long beside its panel.
_LABEL = 1.25


@options
def curves(
    results: Cells,
    cells: Sequence[Cell] | None = None,
    *,
    x: Unit = "steps",
    band: Band = "sd",
    title: str | None = None,
) -> Figure:
    """Accuracy (above) and loss (below) of chosen cells against steps, T_train and T_val marked;
    as the curves of an unstable MNIST cell in Shabalin et al. 2023, as [P24] Figs 1 and 19, and as
    Figs 1, 5, 7 and 8 of the parity blog. Of replicates the means, with bands of one standard
    deviation, and the medians of the two moments.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        x: ``steps`` or ``epochs``; the initial state, 0, has no place on its log scale.
        band: of replicates: ``sd``, or ``none`` for the means alone.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a run without curves, or another ``x`` or ``band``.
    """
    if not has_curves(results):
        over = results.over if isinstance(results, Aggregate) else {}
        grid = results.grid.grid(**{name: list(values) for name, values in over.items()})
        raise UsageError(
            "this run kept no curves",
            hint=again(grid, **{"record.curve_points": 200}),
        )
    view = View.of(results, choose(results, cells), x, band)
    return stacked(view, curve_panels(view), title, view.said)


def has_curves(results: Cells) -> bool:
    return "step" in results and "train_acc" in results


@dataclass(frozen=True)
class View:
    """Which cells are drawn, and how.

    Attributes:
        chosen: their positions.
        along: what lies along x.
        band: whether replicates have bands.
    """

    results: Cells
    chosen: Sequence[int]
    along: Along
    band: bool

    @classmethod
    def of(cls, results: Cells, chosen: Sequence[int], x: Unit, band: Band) -> View:
        """Raises UsageError for an ``x`` or ``band`` that there is not."""
        if band not in ("sd", "none"):
            raise UsageError(f"band is {band!r}; give sd or none")
        return cls(results, chosen, Along.of(results, chosen, x), band == "sd")

    @property
    def said(self) -> str:
        """A sentence on replicates."""
        bands = "bands: one standard deviation; " if self.band else ""
        return replicates(self.results, f"Means over {{over}}; {bands}medians of T.")

    def spread(self, name: str, cell: int) -> NDArray[Any] | None:
        """Standard deviations of a variable of a cell, where they are to be drawn."""
        there = self.band and f"{name}_std" in self.results
        return self.results[f"{name}_std"][cell] if there else None


@dataclass(frozen=True)
class Panel:
    """One quantity of a cell against steps.

    Attributes:
        label: of y.
        draw: into axes, that of the cell at a position; all else is drawn already.
        limits: of y, the same for all cells.
        scale: of y.
    """

    label: str
    draw: Callable[[Axes, int], None]
    limits: tuple[float, float] | None = None
    scale: Literal["linear", "log"] = "linear"


def curve_panels(view: View) -> list[Panel]:
    """Accuracy and loss."""
    losses = _loss_limits(view.results, view.chosen)
    return [
        Panel("accuracy", partial(_accuracy, view), (-0.03, 1.03)),
        Panel("loss", partial(_loss, view, losses), losses, "log" if losses else "linear"),
    ]


def stacked(view: View, panels: Sequence[Panel], title: str | None, *notes: str) -> Figure:
    """Panels one above the other, a column for each cell, four or five columns side by side."""
    results, chosen = view.results, view.chosen
    high, columns = len(panels), side_by_side(len(chosen))
    blocks = math.ceil(len(chosen) / columns)
    width = max(0.75 + (PANEL + 0.1) * columns, 3.9)
    with style():
        figure = Paper((width, 1.1 + blocks * (0.6 + 1.3 * high)), layout="constrained")
        grid = figure.subplots(high * blocks, columns, squeeze=False)
        grid = grid.reshape(blocks, high, columns).transpose(0, 2, 1).reshape(-1, high)
        titles = headings(results, chosen, PANEL, [_moments(view, cell) for cell in chosen])
        for k, (cell, axes) in enumerate(zip(chosen, grid, strict=False)):
            axes[0].set_title(titles[k], linespacing=1.3)
            mark_phase(axes[0], results, cell)
            axes[-1].set_xlabel(view.along.unit)
            for ax, panel in zip(axes, panels, strict=True):
                panel.draw(ax, cell)
                _x_axis(ax, view, cell)
                ax.set(yscale=panel.scale, ylim=panel.limits)
                if panel.scale == "log" and panel.limits:
                    log_ticks(ax.yaxis, *panel.limits)
                ax.tick_params(which="both", labelbottom=ax is axes[-1])
                if k % columns:
                    ax.tick_params(which="both", labelleft=False)
                else:
                    ax.set_ylabel(
                        wrap(
                            panel.label,
                            _LABEL * page().height,
                            matplotlib.rcParams["axes.labelsize"],
                        )
                    )
        for ax in grid[len(chosen) :].flat:
            ax.remove()
        figure.align_ylabels()
        note = caption(results, width, *notes)
        handles = _legend(results, chosen)
        finish(figure, title_of(results, title), note, handles, {_Mark: _Upright()})
    return figure


def _x_axis(ax: Axes, view: View, cell: int) -> None:
    """Log steps or epochs, with the two moments marked."""
    results = view.results
    end = _ROOM * view.along.end(results, cell)
    ax.set(xscale="log", xlim=(1, end))
    log_ticks(ax.xaxis, 1, end)

    def place(step: float) -> float:
        """Step 0 does not exist; a crossing before the axis would be lost."""
        return max(float(view.along.at(cell, step)), 1.0)

    for name, *_ in _LINES:
        moment = results.moments(f"t_{name}")[cell]
        if np.isfinite(moment):
            ax.axvline(place(moment), **_moment_look(name))
    if "diverged_at" in results and results["status"][cell] == DIVERGED:
        at = place(results["diverged_at"][cell])
        ax.axvline(at, **_DIVERGED)


def _moment_look(name: str) -> dict[str, Any]:
    """Of the upright line at T_train or T_val."""
    colour, line = next((colour, line) for own, colour, line in _LINES if own == name)
    return {"color": colour, "linestyle": line, "linewidth": 1, "alpha": 0.45}


def _lines(view: View, what: str, ax: Axes, cell: int) -> None:
    for name, colour, line in _LINES:
        step, values = view.results["step"], view.results[f"{name}_{what}"][cell]
        spread = view.spread(f"{name}_{what}", cell)
        if what == "acc" and "steps_done" in view.results:
            step, values = _with_end(view.results, cell, name, step, values)
        there = np.isfinite(values) & (step >= 1)
        draw_line(ax, view.along.at(cell, step), values, there, spread, colour, linestyle=line)


def _with_end(
    results: Cells, cell: int, name: str, step: NDArray[Any], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A curve of accuracy and, behind it, that at which the cell ended: where it has generalised it
    stops between two recorded steps, and without its end the rise would not be seen. Of a file
    without last accuracies the threshold, if that is where it ended."""
    end, last = ended(results, cell), np.nan
    if f"final_{name}_acc" in results and results["status"][cell] == OK:
        last = float(results[f"final_{name}_acc"][cell])
    if np.isnan(last) and results[f"t_{name}"][cell] == end:
        last = results.grid.cells[int(results["run"][cell])].phase.threshold
    if np.isnan(last):
        return step, values
    before = step < end
    return np.append(step[before], end), np.append(values[before], last)


def _loss(view: View, limits: tuple[float, float] | None, ax: Axes, cell: int) -> None:
    """Losses; of a cell that has none between the limits, what they are."""
    _lines(view, "loss", ax, cell)
    values = np.stack([view.results[f"{name}_loss"][cell] for name, *_ in _LINES])
    values = values[np.isfinite(values)]
    if len(values) and (limits is None or (values <= limits[1]).any()):
        return
    said = "no finite loss\nwas recorded"
    if len(values):
        said = f"beyond the axis:\n{number(float(values.min()), exponent_form=True)} or more"
    look: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "color": FAINT,
        "transform": ax.transAxes,
    }
    ax.text(0.5, 0.5, said, fontsize="small", **look)


def draw_line(
    ax: Axes,
    x: NDArray[Any],
    values: NDArray[Any],
    there: NDArray[np.bool_],
    spread: NDArray[Any] | None,
    colour: str,
    **options: Any,
) -> None:
    """Values ``[S]`` at x ``[S]``, those that are there, with a band around them."""
    ax.plot(x[there], values[there], color=colour, **options)
    if spread is not None:
        below, above = values - spread, values + spread
        ax.fill_between(x, below, above, where=there, color=colour, alpha=0.2, linewidth=0)


def _accuracy(view: View, ax: Axes, cell: int) -> None:
    _lines(view, "acc", ax, cell)
    threshold = view.results.value_in(cell, "phase.threshold")
    if threshold is not None:
        ax.axhline(threshold, color=FAINT, linewidth=0.6, linestyle=":")


def _moments(view: View, cell: int) -> str:
    results, beyond = view.results, "never"
    if isinstance(results, Aggregate):
        beyond = f"> {view.along.at(cell, results['budget'][cell]):,.0f}"

    def shown(name: str) -> str:
        moment = results.moments(name)[cell]
        if np.isnan(moment):
            return "not yet"
        return f"{view.along.at(cell, moment):,.0f}" if np.isfinite(moment) else beyond

    unit = "" if view.along.unit == "steps" else f" {view.along.unit}"
    return f"T(train) {shown('t_train')}, T(val) {shown('t_val')}{unit}"


def _loss_limits(results: Cells, chosen: Sequence[int]) -> tuple[float, float] | None:
    """One log scale for all cells; None where no loss is positive."""
    healthy = [cell for cell in chosen if results["status"][cell] != DIVERGED]
    cells = healthy or list(chosen)
    values = np.concatenate([results[f"{name}_loss"][cells].ravel() for name, *_ in _LINES])
    values = values[np.isfinite(values) & (values > 0)].astype(float)
    if not len(values):
        return None
    # A cell that is about to diverge ends at 1e38 and would press all others flat.
    low, high = float(values.min()), min(float(values.max()), 1e6 * float(np.median(values)))
    return low / 1.5, high * 1.5


def _legend(results: Cells, chosen: Sequence[int]) -> list[Line2D]:
    """Of the lines that occur."""
    handles: list[Line2D] = []
    if has_curves(results):
        for (_, colour, line), label in zip(_LINES, ("training", "validation"), strict=True):
            handles.append(Line2D([], [], color=colour, linestyle=line, label=label))
    marks = [(f"t_{name}", f"T({name})", _moment_look(name)) for name, *_ in _LINES]
    if "diverged_at" in results:
        marks.append(("diverged_at", "diverged", _DIVERGED))
    for name, label, look in marks:
        moments = results[name] if name == "diverged_at" else results.moments(name)
        if (np.isfinite(moments) & (moments >= 0))[list(chosen)].any():
            handles.append(_Mark([], [], label=label, **look))
    return handles


class _Mark(Line2D):
    """Legend entry of an upright line."""


class _Upright(HandlerLine2D):
    """Draws it upright, in the style that it has in the panels."""

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        xdescent, ydescent, width, height, _, trans = args
        x, reach = width / 2 - xdescent, 0.35 * height
        mark = Line2D([x, x], [-ydescent - reach, height - ydescent + reach])
        mark.update_from(orig_handle)
        mark.set_transform(trans)
        return [mark]
