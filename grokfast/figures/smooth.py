"""The smooth phase diagram: how long a cell took to generalise, or at least to memorise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import make_axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from grokfast.cells import Cells
from grokfast.figures.caption import caption, check_budget, replicates, text_width
from grokfast.figures.facets import arrange
from grokfast.figures.page import options, page
from grokfast.figures.panels import (
    Mark,
    Size,
    borders,
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
from grokfast.figures.regions import largest_square
from grokfast.figures.scales import log_ticks
from grokfast.figures.style import INK, Paper, style
from grokfast.phases import PhaseRule
from grokfast.results import DIVERGED

#: From light to dark the longer it took: the second begins about where the first ends, so that
#: they are told apart in grey, too; blue and orange are, whatever the eye.
DELAY = LinearSegmentedColormap.from_list(
    "delay", ["#FFF8D6", "#FFDF8A", "#FDB84C", "#EE8A26", "#D0601C"]
)
MEMORISED = LinearSegmentedColormap.from_list(
    "memorised", ["#3D72B4", "#1F4E8F", "#0E2C63", "#081636"]
)

#: Kinds of cells: generalised soon, generalised late (or at all, where the rule of the phases has
#: no gap), memorised only, neither.
_SOON, _LATE, _MEMORISED, _NEVER = range(4)

#: Points of the names on the regions.
_NAME = 7.5


@options
def smooth_diagram(
    results: Cells,
    *,
    budget: int | None = None,
    x: str | None = None,
    y: str | None = None,
    title: str | None = None,
    mark: Mark | None = None,
) -> Figure:
    """T_val - T_train (yellow to orange) where a cell generalised, T_train (blue) where it only
    memorised, on one log scale; hatched where it did neither. As Shabalin et al. 2023.

    Lines part these regions and, where the rule of the phases has a gap, grokking from
    comprehension; a region that has room bears its name. Cells that generalised first
    (T_val <= T_train) have the colour of the shortest delay. Of replicates the medians.

    Args:
        results, budget, x, y, title, mark: as for :func:`grokfast.figures.phase_diagram`.

    Raises:
        UsageError: a grid of a single cell, too many panels, a budget beyond the run, or a mark
            without cells.
    """
    facets, steps = arrange(results, x, y), check_budget(results, budget)
    status = facets.split(results, "status")
    t_train, delay = (
        facets.split(results, results.moments(name, budget)) for name in ("t_train", "delay")
    )
    box, sentence = mark_range(results, facets, mark)
    put_together = replicates(results, "Medians over {over}.")
    gaps = {rule.gap if isinstance(rule, PhaseRule) else 0 for rule in results.rules}
    gap = gaps.pop() if len(gaps) == 1 else 0

    kinds = np.full(delay.shape, -1)
    kinds[np.isposinf(t_train)] = _NEVER
    kinds[np.isfinite(t_train) & np.isposinf(delay)] = _MEMORISED
    kinds[np.isfinite(delay)] = _LATE
    names: tuple[str, ...] = ("", "generalised", "memorised", "never memorised")
    if gap and isinstance(results.rule, PhaseRule):
        soon = delay <= gap if results.rule.gap_inclusive else delay < gap
        kinds[np.isfinite(delay) & soon] = _SOON
        names = results.rule.phases
    scales = [
        _Scale.of(delay, np.isfinite(delay), DELAY, "generalised: T(val) \N{MINUS SIGN} T(train)"),
        _Scale.of(t_train, kinds == _MEMORISED, MEMORISED, "only memorised: T(train)"),
    ]
    with style():
        size = Size.of(facets, facets.rows, facets.columns, right=0.85, tallest_label=1.4)
        titles = facets.titles or ("",)
        paper, axes = frame(facets, size, facets.rows, facets.columns, titles)
        cell = min(size.panel[0] / facets.shape[1], size.panel[1] / facets.shape[0])
        for k, ax in enumerate(axes):
            for scale in scales:
                scale.paint(ax, k)
            hatch_never(ax, kinds[k] == _NEVER, status[k])
            hatch_status(ax, np.where(kinds[k] == _NEVER, 0, status[k]), kinds[k] < 0)
            borders(ax, kinds[k], colors="white", linewidths=1.8)  # a rim, for dark cells
            borders(ax, kinds[k])
            _name_regions(ax, kinds[k], names, cell)
            draw_mark(ax, box)
        there = [scale for scale in scales if scale.used]
        if there:
            _bar(paper, axes, there, gap, facets.rows * size.panel[1])
        handles = [scale.handle for scale in there]
        if ((kinds == _NEVER) & (status != DIVERGED)).any():
            handles.append(never_handle("never memorised"))
        handles += status_handles(status, kinds < 0)
        finish(
            paper,
            title_of(results, title),
            caption(results, size.figure[0], put_together, sentence, budget=steps),
            handles,
            {scale.handle: _Gradient(scale.cmap) for scale in there},
        )
    return paper


@dataclass(frozen=True, eq=False)
class _Scale:
    """Colours of the steps of some cells, over the range of these.

    Attributes:
        values: ``[panel, y, x]``, NaN in other cells.
        below: whether some have no place on a log scale, and the colour of the least that has.
        ends: of the steps.
        handle: for the legend.
    """

    values: NDArray[np.float64]
    below: bool
    cmap: LinearSegmentedColormap
    ends: tuple[float, float]
    norm: LogNorm
    handle: Patch

    @classmethod
    def of(
        cls, steps: NDArray[Any], mask: NDArray[np.bool_], cmap: LinearSegmentedColormap, label: str
    ) -> _Scale:
        inside = steps[mask & (steps >= 1)]
        low, high = (inside.min(), inside.max()) if inside.size else (1.0, 1.0)
        values = np.where(mask, np.maximum(steps, low), np.nan)
        # Of a single value the middle of the colours.
        ends = (float(low), float(high)) if low < high else (low / 1.5, low * 1.5)
        below = bool((steps[mask] < 1).any())
        return cls(values, below, cmap, ends, LogNorm(*ends), Patch(label=label))

    @property
    def used(self) -> bool:
        return bool(np.isfinite(self.values).any())

    def paint(self, ax: Axes, panel: int) -> None:
        paint(ax, self.values[panel], self.cmap, self.norm, lines=False)


def _name_regions(ax: Axes, kinds: NDArray[Any], names: Sequence[str], cell: float) -> None:
    """The name of each kind of cells in the middle of its largest square, where there is room for
    it; a cell has a side in inches."""
    size = _NAME * page().letters
    for kind, name in enumerate(names[: _NEVER + 1]):
        square = largest_square(kinds == kind)
        if square is None or square[2] * cell < text_width(name, size) + 0.05:
            continue
        row, column, side = square
        ax.text(
            column + (side - 1) / 2,
            row + (side - 1) / 2,
            name,
            fontsize=size,
            fontstyle="italic",
            color="white" if kind == _MEMORISED else INK,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3, foreground="white")] * (kind == _NEVER),
        )


def _bar(paper: Paper, axes: list[Axes], scales: Sequence[_Scale], gap: int, height: float) -> None:
    """One colour bar of steps, some inches high: a strip for each scale, as long as what it has."""
    bar, _ = make_axes(axes, pad=0.02, fraction=0.09, aspect=height / (0.14 * len(scales)))
    ends = [scale.ends for scale in scales]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    bar.set(xlim=(0, len(scales)), ylim=(low, high), yscale="log", xticks=[], ylabel="steps")
    bar.yaxis.set(label_position="right", ticks_position="right")
    bar.spines[["left", "top", "bottom"]].set_visible(False)
    log_ticks(bar.yaxis, low, high)
    for k, scale in enumerate(scales):
        edges = np.geomspace(*ends[k], 257)
        middle = np.sqrt(edges[1:] * edges[:-1])[:, None]
        bar.pcolormesh([k, k + 1], edges, middle, cmap=scale.cmap, norm=scale.norm, rasterized=True)
        frame = Rectangle((k, edges[0]), 1, edges[-1] - edges[0], fill=False, linewidth=0.6)
        bar.add_patch(frame).set_clip_on(False)
        if scale.below:
            bar.annotate(
                "≤ 0",
                (k + 0.5, edges[0]),
                (0, -2),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize="small",
            )
        if scale.cmap is DELAY and gap and edges[0] < gap < edges[-1]:
            bar.plot([k, k + 1], [gap, gap], color=INK, linewidth=1.4, label="threshold")
            bar.plot([k - 0.25], [gap], marker=">", markersize=4, color=INK, clip_on=False)


class _Gradient(HandlerPatch):
    """A legend patch with all colours of a map."""

    def __init__(self, cmap: LinearSegmentedColormap) -> None:
        super().__init__()
        self.cmap = cmap

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        xdescent, ydescent, width, height, _, trans = args
        number = 32
        return [
            Rectangle(
                (-xdescent + k * width / number, -ydescent),
                1.05 * width / number,
                height,
                facecolor=self.cmap(k / (number - 1)),
                linewidth=0,
                transform=trans,
            )
            for k in range(number)
        ]
