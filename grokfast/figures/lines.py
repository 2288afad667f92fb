"""Any outcome of the cells against one axis of the grid, a line for each value of another."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from grokfast.aggregate import MOMENTS, Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.against import (
    HEIGHT,
    WIDTH,
    Look,
    Moment,
    colour_bar,
    longest,
    looks,
    places,
    x_axis,
)
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Axis, Facets, arrange
from grokfast.figures.labels import words
from grokfast.figures.numbers import is_number, number
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of, wrap_title
from grokfast.figures.scales import log_ticks
from grokfast.figures.style import NEURON, Paper, style
from grokfast.figures.times import CENSORED, medians
from grokfast.outcomes import ACCURACIES
from grokfast.results import INTERNAL, Results

#: More lines than this have no bands of one standard deviation: they would hide each other.
BANDS = 4

#: Panels side by side at most.
_COLUMNS = 3


@options
def outcome_lines(
    results: Cells,
    *,
    outcome: str | None = None,
    budget: int | None = None,
    x: str | None = None,
    y: str | None = None,
    title: str | None = None,
) -> Figure:
    """One outcome of the cells against one axis, a line for each value of a second one, a panel for
    each of further ones: the best validation accuracy against the training fraction by optimizer
    or operation (Power et al. 2022, arXiv 2201.02177, Fig. 2), or the steps to 99% (Fig. 1).

    Steps are on a log scale; one that was never reached is an open marker with an arrow at the
    budget, never a later step. Of replicates medians of steps with bands between their quantiles,
    means of all else with bands of one standard deviation (of at most 4 lines).

    Args:
        results: of a whole grid, of a shard or of a run under way, or an aggregate.
        outcome: ``t_train``, ``t_val``, a crossing such as ``t_val_0.99``, or a float of every
            cell, such as ``final_val_acc``; by default ``best_val_acc``.
        budget: read steps as of this many.
        x: name of the axis along x; by default the longest of numbers.
        y: name of the axis whose values are lines.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such outcome or axis, no axis of numbers, too many panels, a budget beyond
            the run, or one with an outcome that is no step.
    """
    known = _outcomes(results)
    name = known[0] if outcome is None else outcome
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"unknown outcome {name!r}; there are {', '.join(known)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    if budget is not None and not _is_step(name):
        raise UsageError(f"{name} is known of the end alone, not as of {budget} steps")
    steps = check_budget(results, budget)
    facets = arrange(results, x or longest(results), y)
    columns = min(_COLUMNS, facets.panels)
    rows = -(-facets.panels // columns)
    named = facets.y is not None and not all(map(is_number, facets.y.values))
    width = max(0.9 + WIDTH * columns + (1.7 if named else 0.8 * (facets.y is not None)), 4.4)
    with style():
        figure = Paper((width, 1.2 + (HEIGHT + 0.35) * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        panels: list[Axes] = grid.ravel().tolist()
        for ax in panels[facets.panels :]:
            ax.remove()
        shown = _looks(facets)
        draw = _steps if _is_step(name) else _values
        notes = draw(results, facets, name, panels[: facets.panels], shown, budget)
        for k, ax in enumerate(panels[: facets.panels]):
            ax.set_title(wrap_title("".join(facets.titles[k : k + 1]), WIDTH))
            x_axis(ax, facets.x)
            below = k + columns < facets.panels
            ax.tick_params(which="both", labelbottom=not below)
            ax.set(xlabel="" if below else facets.x.label)
            ax.set_ylabel("" if k % columns else _label(results, name))
        if facets.y and named:
            _names(figure, facets.y, shown)
        elif facets.y:
            colour_bar(figure, grid, facets.y)
        said = caption(results, width, *notes, budget=steps)
        finish(figure, title_of(results, title), said)
    return figure


def _outcomes(results: Cells) -> list[str]:
    """What can be drawn of every cell, the default first."""
    aside = {*results.hyperparameters, *INTERNAL, *MOMENTS}
    ends = ("_std", "_count", "_low", "_high")
    floats = [
        name
        for name, (dims, values) in results.variables.items()
        if dims == ("run",) and values.dtype.kind == "f" and name not in aside
        if not name.endswith(ends) and not _is_step(name)
    ]
    steps = [name for name in results.variables if _is_step(name) and not name.endswith(ends)]
    crossings = list(results.crossings) if isinstance(results, Results) else []
    found = list(dict.fromkeys((*sorted(floats), *steps, *crossings)))
    return sorted(found, key=lambda name: name != "best_val_acc")


def _is_step(name: str) -> bool:
    return name.startswith(("t_train", "t_val"))


def _looks(facets: Facets) -> list[Look]:
    if facets.y is None:
        return [Look(NEURON, "-")]
    return looks(facets.y, len(facets.x.values))


def _label(results: Cells, name: str) -> str:
    """The words along y."""
    if not _is_step(name):
        return ACCURACIES[name][1] if name in ACCURACIES else words(name)
    _, part, *threshold = name.split("_")
    which = {"train": "training", "val": "validation"}[part]
    thresholds = threshold or results.trained.values_of("phase.threshold")
    if len(thresholds) > 1:
        return f"steps to the threshold in {which} accuracy"
    return f"steps to {which} accuracy {float(thresholds[0]):g}"


def _steps(
    results: Cells,
    facets: Facets,
    name: str,
    panels: Sequence[Axes],
    shown: Sequence[Look],
    budget: int | None,
) -> list[str]:
    """Draws steps; the sentences on what is seen."""
    moment = Moment.of(results, facets, name, budget)
    for panel, ax in enumerate(panels):
        moment.draw(ax, panel, places(facets.x), shown)
    last = float(np.nanmax(moment.budget, initial=1.0))
    low, high = moment.least(last) / 1.5, 2 * last
    panels[0].set(yscale="log", ylim=(low, high))
    log_ticks(panels[0].yaxis, low, high)  # the others share it
    return [medians(results), CENSORED if moment.censored else ""]


def _values(
    results: Cells,
    facets: Facets,
    name: str,
    panels: Sequence[Axes],
    shown: Sequence[Look],
    budget: int | None,
) -> list[str]:
    """Draws a float of every cell; the sentences on what is seen."""
    values = facets.split(results, results[name].astype(float))
    banded = isinstance(results, Aggregate) and len(shown) <= BANDS
    spread = facets.split(results, results[f"{name}_std"]) if banded else np.zeros(values.shape)
    for panel, ax in enumerate(panels):
        for line, look in enumerate(shown):
            _line(ax, places(facets.x), values[panel, line], spread[panel, line], look)
    if name.endswith("_acc"):
        panels[0].set_ylim(-0.03, 1.03)
    said = "Means over {over}; bands: one standard deviation." if banded else "Means over {over}."
    return [replicates(results, said)]


def _line(
    ax: Axes,
    x: NDArray[np.float64],
    values: NDArray[np.float64],
    spread: NDArray[np.float64],
    look: Look,
) -> None:
    ax.plot(x, values, color=look.colour, linestyle=look.dash, marker=look.marker, markersize=3)
    there = spread > 0
    if there.any():
        low, high = values - spread, values + spread
        ax.fill_between(x, low, high, where=there, color=look.colour, alpha=0.2, linewidth=0)


def _names(figure: Figure, axis: Axis, shown: Sequence[Look]) -> None:
    """A legend on the right, in the order of the axis."""
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=3,
            label=number(value),
        )
        for look, value in zip(shown, axis.values, strict=True)
    ]
    figure.legend(handles=handles, loc="outside right upper", title=axis.label)
