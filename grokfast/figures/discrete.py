"""The discrete phase diagram: one colour and one letter a cell."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerPatch
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, Bbox
from numpy.typing import NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.figures.caption import caption, check_budget, replicates
from grokfast.figures.facets import Facets, arrange
from grokfast.figures.page import options, page
from grokfast.figures.panels import (
    Mark,
    Size,
    borders,
    draw_mark,
    finish,
    frame,
    hatch_status,
    mark_range,
    paint,
    status_handles,
    title_of,
)
from grokfast.figures.regions import largest_square
from grokfast.figures.style import LETTER_INK, palette, style
from grokfast.phases import Rule

#: Points; smaller letters cannot be read, so larger grids get one letter a region.
_SMALLEST_LETTER, _LARGEST_LETTER = 3.4, 8.0


@options
def phase_diagram(
    results: Cells,
    *,
    budget: int | None = None,
    x: str | None = None,
    y: str | None = None,
    title: str | None = None,
    mark: Mark | None = None,
) -> Figure:
    """The phase of each cell over two axes: learning rate and weight decay, as Shabalin et al.
    2023, Figures 1, 9 and 10, or others (see :func:`grokfast.figures.facets.arrange`), as Doshi et
    al. 2024, Figure 3; a panel for each value of further axes.

    Of replicates (:meth:`grokfast.Results.aggregate`) the phase that most have, on a square whose
    area is its share of the votes: a cell that is full is unanimous.

    Args:
        results: of a whole grid, of a shard or of a run under way, or an aggregate; what is
            missing is hatched.
        budget: read the diagram as of this many steps.
        x, y: names of the axes that shall lie there.
        title: instead of the name of the grid.
        mark: axis name -> (low, high): a rectangle around these cells. For ``mnist-extended``
            the original range, unless ``mark={}``.

    Returns:
        The figure; save it with ``savefig``.

    Raises:
        UsageError: a grid of a single cell, too many panels, a budget beyond the run, a mark
            without cells.
    """
    facets, steps = arrange(results, x, y), check_budget(results, budget)
    phase = facets.split(results, results.phases(budget))
    status = facets.split(results, "status")
    box, sentence = mark_range(results, facets, mark)
    look = _Look(results.rule)
    share = np.ones(phase.shape)
    if isinstance(results, Aggregate):
        share = facets.split(results, "share")
    put_together = replicates(
        results,
        "Phase of most of {over}, of equal votes the first in the legend; "
        "coloured area: its share of the votes.",
    )
    handles = look.handles(status, phase)
    with style():
        beside = 0.3 + 0.19 * (len(handles) - 4)  # inches of a legend that a panel must hold
        right = 1.35 if page().legend else 0.1
        size = Size.of(facets, facets.rows, facets.columns, right=right, tallest_label=beside)
        titles = facets.titles or ("",)
        paper, axes = frame(facets, size, facets.rows, facets.columns, titles)
        for k, panel in enumerate(axes):
            _draw(panel, look, phase[k], share[k], status[k], facets, size.panel, box)
        if page().legend:
            look.add_legend(axes[min(facets.columns, len(axes)) - 1], handles)
        finish(
            paper,
            title_of(results, title),
            caption(results, size.figure[0], put_together, sentence, budget=steps),
        )
    return paper


class _Look:
    """Colours and letters of the phases of a rule, by code."""

    def __init__(self, rule: Rule) -> None:
        self.phases, self.letters = rule.phases, rule.letters
        self.colours = palette(rule.phases)
        number = max(len(rule.phases), 1)  # of a rule that is not registered no phase is known
        self.cmap = ListedColormap(self.colours or ["white"], name="phases")
        self.norm = BoundaryNorm(np.arange(number + 1) - 0.5, number)

    def handles(self, status: NDArray[Any], phase: NDArray[Any]) -> list[Patch]:
        """All phases, always, in their order; then the hatchings that occur."""
        patches = [
            Patch(facecolor=colour, edgecolor="none", label=name)
            for colour, name in zip(self.colours, self.phases, strict=True)
        ]
        return [*patches, *status_handles(status, phase < 0)]

    def add_legend(self, ax: Axes, handles: list[Patch]) -> None:
        lettered = zip(handles, self.letters, self.colours, strict=False)
        ax.legend(
            handles=handles,
            handler_map={patch: _Lettered(letter, c) for patch, letter, c in lettered},
            loc="upper left",
            bbox_to_anchor=(1.03, 1.0),
            borderaxespad=0,
            borderpad=0,
            handlelength=1.6,
            handleheight=1.25,
            labelspacing=0.45,
        )

    def write(self, ax: Axes, code: int, x: Any, y: Any, size: float) -> None:
        """A phase's letter at many places: one stamped outline, much faster than as many texts."""
        letter, colour = self.letters[code], self.colours[code]
        outline, scale = _outline(letter)
        ax.plot(
            x,
            y,
            linestyle="none",
            marker=outline,
            markersize=size * scale,
            markerfacecolor=LETTER_INK[colour],
            markeredgewidth=0,
            label=f"_{letter}",
            # A rim in the colour of the cell keeps the letter clear of a hatching.
            path_effects=[withStroke(linewidth=0.4 * size, foreground=colour)],
            clip_on=True,
        )


def _draw(
    ax: Axes,
    look: _Look,
    phase: NDArray[Any],
    share: NDArray[Any],
    status: NDArray[Any],
    facets: Facets,
    room: tuple[float, float],
    box: list[float],
) -> None:
    full = (phase >= 0) & (share >= 1)
    paint(ax, np.where(full, phase, np.nan), look.cmap, look.norm)
    _squares(ax, look, phase, share, (phase >= 0) & ~full)
    hatch_status(ax, status, phase < 0)
    borders(ax, phase)
    cell = 72 * min(room[0] / facets.shape[1], room[1] / facets.shape[0])  # points
    letters = page().letters
    size = min(0.5 * cell, letters * _LARGEST_LETTER)
    if size >= _SMALLEST_LETTER:
        for code in range(len(look.phases)):
            rows, columns = np.nonzero(phase == code)
            look.write(ax, code, columns, rows, size)
    else:
        for code in range(len(look.phases)):
            square = largest_square(phase == code)
            if square and square[2] * cell >= 2 * _SMALLEST_LETTER:
                row, column, side = square
                middle = (side - 1) / 2
                at = [column + middle], [row + middle]
                look.write(ax, code, *at, min(0.5 * side * cell, 12 * letters))
    draw_mark(ax, box)


def _squares(
    ax: Axes, look: _Look, phase: NDArray[Any], share: NDArray[Any], some: NDArray[Any]
) -> None:
    """Cells of a mask in part: a square as large as the share of the votes."""
    pieces = []
    for row, column in np.argwhere(some):
        side = np.sqrt(share[row, column])
        colour = look.colours[phase[row, column]]
        corner = (column - side / 2, row - side / 2)
        pieces.append(Rectangle(corner, side, side, facecolor=colour, linewidth=0))
    ax.add_collection(PatchCollection(pieces, match_original=True))


@cache
def _outline(letter: str) -> tuple[Any, float]:
    """The letter centred on the origin, and its size as a marker for capitals of height 1."""
    path = TextPath((0, 0), letter, size=100, prop=FontProperties(family="DejaVu Sans"))
    extent: Bbox = path.get_extents()
    middle = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
    centred = Affine2D().translate(-middle[0], -middle[1]).transform_path(path)
    # Markers are scaled so that the largest coordinate is half the marker's size.
    return centred, 2 * float(np.abs(centred.vertices).max()) / 73.0  # capitals: 0.73 em


class _Lettered(HandlerPatch):
    """A legend patch with the letter of its phase inside."""

    def __init__(self, letter: str, colour: str) -> None:
        super().__init__()
        self.letter, self.ink = letter, LETTER_INK[colour]

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        xdescent, ydescent, width, height, fontsize, trans = args
        artists: list[Any] = list(super().create_artists(legend, orig_handle, *args))
        letter = Text(
            -xdescent + width / 2,
            -ydescent + height / 2,
            self.letter,
            fontsize=0.85 * fontsize,
            color=self.ink,
            ha="center",
            va="center_baseline",
        )
        letter.set_transform(trans)
        return [*artists, letter]
