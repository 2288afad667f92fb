"""The smooth diagram: how long generalisation took, or memorisation where there was none."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokfast.cells import Cells
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import arrange
from grokfast.figures.page import options
from grokfast.figures.panels import (
    Mark,
    Size,
    draw_mark,
    finish,
    frame,
    hatch_status,
    mark_range,
    paint,
    status_handles,
    title_of,
)
from grokfast.figures.style import INK, Paper, style
from grokfast.phases import PhaseRule

#: Both rise or fall in lightness throughout, so that they can be read in grey.
_DELAY = LinearSegmentedColormap.from_list("delay", ["#0B5D3B", "#4FA84F", "#B9D553", "#FCEB6B"])
_NEVER = LinearSegmentedColormap.from_list(
    "t_train", ["#8CC3EE", "#3A78BF", "#173A78", "#05070F"]
).with_extremes(over="black")


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
    """T_val - T_train (green to yellow) where a cell generalised, T_train (blue to black) where it
    did not, both on log scales; black: never memorised. As Shabalin et al. 2023.

    The line across the first colour bar is the gap from which on a cell counts as grokking, where
    the rule of the phases has one. Cells that generalised first (T_val <= T_train) have the colour
    of its low end. Of replicates the medians.

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

    generalised, memorised = np.isfinite(delay), np.isfinite(t_train) & np.isposinf(delay)
    unknown = ~generalised & ~memorised & ~np.isposinf(t_train)
    low, high = _delay_range(delay[generalised], gap, steps)
    delay_norm = LogNorm(low, high)
    delay = np.where(generalised, np.maximum(delay, low), np.nan)
    train_norm = LogNorm(*_train_range(t_train[memorised], steps))
    never = ~generalised & np.isposinf(t_train)
    slow = np.where(memorised, t_train, np.where(never, 10.0 * steps, np.nan))

    with style():
        size = Size.of(facets, facets.rows, facets.columns, right=1.85, tallest_label=1.4)
        titles = facets.titles or ("",)
        paper, axes = frame(facets, size, facets.rows, facets.columns, titles)
        for k, ax in enumerate(axes):
            first = paint(ax, delay[k], _DELAY, delay_norm, lines=False)
            second = paint(ax, slow[k], _NEVER, train_norm, lines=False)
            hatch_status(ax, status[k], unknown[k])
            draw_mark(ax, box)
        _bars(paper, axes, first, second, gap)
        finish(
            paper,
            title_of(results, title),
            caption(
                results,
                size.figure[0],
                "Green to yellow: generalised; blue to black: memorised only; "
                "black: never memorised.",
                put_together,
                sentence,
                budget=steps,
            ),
            status_handles(status, unknown, ground="black"),
        )
    return paper


def _delay_range(delay: NDArray[Any], gap: int, steps: int) -> tuple[float, float]:
    """Ends of the first scale, with the gap well inside: a decade below it at least."""
    positive = delay[delay > 0]
    low = min([gap / 10, *positive.tolist()]) if gap else min([10.0, *positive.tolist()])
    low = 10.0 ** np.floor(np.log10(max(low, 1.0)))
    return low, float(max([steps, 10 * gap, 10 * low, *positive.tolist()]))


def _train_range(t_train: NDArray[Any], steps: int) -> tuple[float, float]:
    low = float(min([max(steps / 100, 1.0), *t_train.tolist()]))
    return 10.0 ** np.floor(np.log10(max(low, 1.0))), float(max(steps, 10))


def _bars(paper: Paper, axes: list[Axes], delay: QuadMesh, slow: QuadMesh, gap: int) -> None:
    """Two colour bars; the one added last stands next to the panels."""
    look: dict[str, Any] = {
        "ax": axes,
        "pad": 0.02,
        "fraction": 0.05,
        "aspect": 22,
        "extendfrac": 0.06,
        "extendrect": True,
    }
    bar = paper.colorbar(slow, extend="max", **look)
    bar.set_label("T(train), steps;\nnever generalised")
    bar.ax.text(0.5, 1.075, "never", **_beside(bar.ax, "bottom"))
    bar = paper.colorbar(delay, extend="min", **look)
    bar.set_label("T(val) \N{MINUS SIGN} T(train), steps")
    bar.ax.text(0.5, -0.075, "≤ 0", **_beside(bar.ax, "top"))
    if gap >= 1:
        bar.ax.axhline(gap, color=INK, linewidth=1.6, label="threshold")
        bar.ax.plot(
            [-0.25],
            [gap],
            marker=">",
            markersize=4,
            color=INK,
            clip_on=False,
            transform=bar.ax.get_yaxis_transform(),
        )


def _beside(ax: Axes, side: str) -> dict[str, Any]:
    return {"transform": ax.transAxes, "ha": "center", "va": side, "fontsize": "small"}
