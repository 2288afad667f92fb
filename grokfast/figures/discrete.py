"""The discrete phase diagram: one colour and one letter a cell."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerPatch
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, Bbox
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.figures.caption import caption, check_budget
from grokfast.figures.facets import Facets, arrange
from grokfast.figures.panels import (
    Mark,
    Size,
    draw_mark,
    finish,
    frame,
    hatch_status,
    index_axes,
    mark_range,
    paint,
    status_handles,
    title_of,
)
from grokfast.figures.regions import largest_square
from grokfast.figures.style import INK, LETTER_INK, PALETTE, style
from grokfast.phases import LETTERS, PHASES
from grokfast.results import Results

_CMAP = ListedColormap(PALETTE, name="phases")
_NORM = BoundaryNorm(np.arange(len(PHASES) + 1) - 0.5, len(PHASES))

#: Points; smaller letters cannot be read, so larger grids get one letter a region.
_SMALLEST_LETTER, _LARGEST_LETTER = 3.4, 8.0


def phase_diagram(
    results: Results,
    *,
    budget: int | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    mark: Mark | None = None,
) -> Figure:
    """The phase of each cell over learning rate and weight decay, as Shabalin et al. 2023,
    Figures 1, 9 and 10; a panel for each value of further axes (their 3 x 3 seeds).

    Args:
        results: of a whole grid, of a shard or of a run under way; what is missing is hatched.
        budget: read the diagram as of this many steps.
        ax: draw into these axes instead of a new figure, without title and footnote.
        title: instead of the name of the grid.
        mark: axis name -> (low, high): a rectangle around these cells. For ``mnist-extended``
            the original range, unless ``mark={}``.

    Returns:
        The figure; save it with ``savefig``.

    Raises:
        UsageError: a grid of a single cell, too many panels, a budget beyond the run, a mark
            without cells, or several panels for one ``ax``.
    """
    facets, steps = arrange(results), check_budget(results, budget)
    phase = facets.split(results, results.phases(budget))
    status = facets.split(results, "status")
    box, sentence = mark_range(results, facets, mark)
    handles = _legend_handles(status, phase)
    if ax is not None:
        if facets.panels > 1:
            raise UsageError(
                f"ax= takes one panel, and this grid has {facets.panels}",
                hint="leave ax out, or plot a grid with two axes",
            )
        room = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
        index_axes(ax, facets, (room.width, room.height))
        _draw(ax, phase[0], status[0], facets, (room.width, room.height), box)
        if title is not None:
            ax.set_title(title_of(results, title))
        _add_legend(ax, handles)
        figure = ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure
        return figure
    with style():
        size = Size.of(facets, facets.rows, facets.columns, right=1.35)
        titles = facets.titles or ("",)
        paper, axes = frame(facets, size, facets.rows, facets.columns, titles)
        for k, panel in enumerate(axes):
            _draw(panel, phase[k], status[k], facets, size.panel, box)
        _add_legend(axes[min(facets.columns, len(axes)) - 1], handles)
        finish(
            paper,
            title_of(results, title),
            caption(results, size.figure[0], sentence, budget=steps),
        )
    return paper


def _draw(
    ax: Axes,
    phase: NDArray[Any],
    status: NDArray[Any],
    facets: Facets,
    room: tuple[float, float],
    box: list[float],
) -> None:
    paint(ax, np.where(phase < 0, np.nan, phase), _CMAP, _NORM)
    hatch_status(ax, status, phase < 0)
    _borders(ax, phase)
    cell = 72 * min(room[0] / facets.shape[1], room[1] / facets.shape[0])  # points
    size = min(0.5 * cell, _LARGEST_LETTER)
    if size >= _SMALLEST_LETTER:
        for code in range(len(PHASES)):
            rows, columns = np.nonzero(phase == code)
            _letters(ax, code, columns, rows, size)
    else:
        for code in range(len(PHASES)):
            square = largest_square(phase == code)
            if square and square[2] * cell >= 2 * _SMALLEST_LETTER:
                row, column, side = square
                middle = (side - 1) / 2
                _letters(ax, code, [column + middle], [row + middle], min(0.5 * side * cell, 12))
    draw_mark(ax, box)


def _borders(ax: Axes, phase: NDArray[Any]) -> None:
    """Lines between cells of different phases: comprehension and grokking, equal in grey, part."""
    lines = [
        *(((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in np.argwhere(np.diff(phase, axis=1))),
        *(((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in np.argwhere(np.diff(phase, axis=0))),
    ]
    ax.add_collection(LineCollection(lines, colors=INK, linewidths=0.8, capstyle="projecting"))


def _letters(ax: Axes, code: int, x: Any, y: Any, size: float) -> None:
    """A phase's letter at many places: one stamped outline, much faster than as many texts."""
    outline, scale = _outline(code)
    ax.plot(
        x,
        y,
        linestyle="none",
        marker=outline,
        markersize=size * scale,
        markerfacecolor=LETTER_INK[code],
        markeredgewidth=0,
        label=f"_{LETTERS[code]}",
        # A rim in the colour of the cell keeps the letter clear of a hatching.
        path_effects=[withStroke(linewidth=0.4 * size, foreground=PALETTE[code])],
        clip_on=True,
    )


@cache
def _outline(code: int) -> tuple[Any, float]:
    """The letter centred on the origin, and its size as a marker for capitals of height 1."""
    path = TextPath((0, 0), LETTERS[code], size=100, prop=FontProperties(family="DejaVu Sans"))
    extent: Bbox = path.get_extents()
    middle = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
    centred = Affine2D().translate(-middle[0], -middle[1]).transform_path(path)
    # Markers are scaled so that the largest coordinate is half the marker's size.
    return centred, 2 * float(np.abs(centred.vertices).max()) / 73.0  # capitals: 0.73 em


class _Lettered(HandlerPatch):
    """A legend patch with the letter of its phase inside."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        xdescent, ydescent, width, height, fontsize, trans = args
        artists: list[Any] = list(super().create_artists(legend, orig_handle, *args))
        letter = Text(
            -xdescent + width / 2,
            -ydescent + height / 2,
            LETTERS[self.code],
            fontsize=0.85 * fontsize,
            color=LETTER_INK[self.code],
            ha="center",
            va="center_baseline",
        )
        letter.set_transform(trans)
        return [*artists, letter]


def _legend_handles(status: NDArray[Any], phase: NDArray[Any]) -> list[Patch]:
    """All four phases, always, in their order; then the hatchings that occur."""
    four = [
        Patch(facecolor=c, edgecolor="none", label=p) for c, p in zip(PALETTE, PHASES, strict=True)
    ]
    return [*four, *status_handles(status, phase < 0)]


def _add_legend(ax: Axes, handles: list[Patch]) -> None:
    ax.legend(
        handles=handles,
        handler_map={handle: _Lettered(code) for code, handle in enumerate(handles[: len(PHASES)])},
        loc="upper left",
        bbox_to_anchor=(1.03, 1.0),
        borderaxespad=0,
        borderpad=0,
        handlelength=1.6,
        handleheight=1.25,
        labelspacing=0.45,
    )
