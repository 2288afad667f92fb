"""The frame that all diagrams share: panels on index axes, ticks, title, footnote, marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.collections import LineCollection, PatchCollection, QuadMesh
from matplotlib.colors import Colormap, Normalize
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend_handler import HandlerBase
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.fields import check_text
from grokfast.figures.caption import CAPTION_SIZE, text_width, wrap
from grokfast.figures.facets import Facets
from grokfast.figures.numbers import inches, is_number, number, ticks
from grokfast.figures.page import page
from grokfast.figures.style import COLOURS, FAINT, INK, Paper, plain
from grokfast.results import DIVERGED, OK

#: More cells than this are drawn as an image, also in PDF and SVG.
RASTER_CELLS = 10_000

#: Under the hatching of diverged cells that have no colour of their own.
GREY = COLOURS["confusion"]

#: Lines of the footnote that a figure has room for.
CAPTION_LINES = 4

#: How much wider than regular letters bold ones are.
_BOLD = 1.16

#: Between the columns of a legend, and between an entry and its text, in letter sizes.
_BETWEEN, _PAD = 1.4, 0.5

DIVERGED_HATCH, PENDING_HATCH, NEVER_HATCH = "//////", "......", "xxxx"
NEVER_INK = "#B5B5B5"

#: Parts of a grid that a publication used, drawn as a rectangle without being asked.
MARKS: dict[str, dict[str, tuple[float, float]]] = {
    "mnist-extended": {"lr": (1e-6, 1.0), "weight_decay": (1e-5, 10.0)},
}

Mark = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Size:
    """Inches of one panel on the page, and of the whole figure as it would be by itself."""

    panel: tuple[float, float]
    figure: tuple[float, float]

    @classmethod
    def of(
        cls,
        facets: Facets,
        rows: int,
        columns: int,
        right: float,
        tallest_label: float = 0.3,
    ) -> Size:
        """Panels with nearly square cells; ``right``: inches for a legend or colour bars, whose
        labels need a height."""
        along_y, along_x = facets.shape
        if columns == 1:
            width = min(max(along_x * 0.19, 2.6), 4.4)
        else:
            width = min(max(along_x * 0.11, 1.6), {2: 2.9, 3: 2.3}.get(columns, 1.8))
        height = min(along_y * min(0.42, width / along_x), 1.25 * width)
        label = inches(facets.y.label) if facets.y else 0.0
        height = max(height, max(tallest_label, label) / rows)
        gap = 0.3 if rows > 1 or columns > 1 else 0.0
        total = (
            0.75 + columns * (width + 0.12) + right,
            0.95 + rows * (height + gap) + CAPTION_LINES * CAPTION_SIZE * 1.25 / 72,
        )
        if (host := page().ax) is not None:
            room = host.get_window_extent().transformed(host.figure.dpi_scale_trans.inverted())
            return cls((room.width, room.height), (room.width, room.height))
        wide, high = page().fit(total)
        letters = page().letters
        return cls(
            (
                (wide - letters * (total[0] - columns * width)) / columns,
                (high - letters * (total[1] - rows * height)) / rows,
            ),
            total,
        )


def frame(
    facets: Facets, size: Size, rows: int, columns: int, titles: Sequence[str]
) -> tuple[Paper, list[Axes]]:
    """A figure with the first ``len(titles)`` of rows x columns panels, row by row; the titles are
    wrapped to their panels, which adds to the height of the figure."""
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    figure = Paper(size.figure, layout=layout)
    width = size.panel[0] / page().width + 0.1
    titles = [wrap_title(title, width) for title in titles]
    figure.add_height(0.13 * max(title.count("\n") for title in titles) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in grid[len(titles) :]:
        ax.remove()
    axes: list[Axes] = grid[: len(titles)]
    for k, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        index_axes(ax, facets, size.panel)
        ax.set_title(title)
        if k + columns < len(axes):  # a panel follows below
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        if k % columns or rows > 1:
            ax.set_ylabel("")
        if k % columns:
            ax.tick_params(labelleft=False)
    if rows > 1 and facets.y is not None:  # one for all: they would run into each other
        figure.supylabel(facets.y.label, fontsize=matplotlib.rcParams["axes.labelsize"])
    return figure, axes


def index_axes(ax: Axes, facets: Facets, room: tuple[float, float]) -> None:
    """Limits, ticks and labels of one panel."""
    along_y, along_x = facets.shape
    ax.set_xlim(-0.5, along_x - 0.5)
    ends = (-0.5, along_y - 0.5)
    ax.set_ylim(ends[::-1] if facets.downward else ends)
    marks = ticks(facets.x.values, room[0], horizontal=True)
    ax.set_xticks(marks.positions, marks.labels)
    if marks.slanted:
        for label in ax.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlabel(facets.x.label)
    if facets.y is None:
        ax.set_yticks([])
        return
    marks = ticks(facets.y.values, room[1], horizontal=False)
    ax.set_yticks(marks.positions, marks.labels)
    ax.set_ylabel(facets.y.label)


def wrap_title(title: str, width: float) -> str:
    """A title of a panel, each of its lines wrapped to a width in inches, of the figure as it would
    be by itself."""
    size = matplotlib.rcParams["axes.titlesize"]
    return "\n".join(wrap(line, width * page().width, size) for line in title.split("\n"))


def finish(
    figure: Paper,
    title: str,
    footnote: str,
    handles: Sequence[Artist] = (),
    handlers: Mapping[Any, HandlerBase] | None = None,
) -> None:
    """Title above, a legend below it, footnote at the foot, all at the left edge and wrapped to the
    width of the figure; what the page wants of them.

    Args:
        handlers: of the handles that Matplotlib has no handler for.
    """
    wanted = page()
    if wanted.ax is not None:
        if title:
            wanted.ax.set_title(title)
        if handles:
            figure.legend(handles=handles, handler_map=handlers)
        return
    room = figure.get_figwidth() - 0.2
    title = wrap(title, room / _BOLD, matplotlib.rcParams["figure.titlesize"])
    handles = handles if wanted.legend else ()
    columns = _legend_columns(handles, room)
    rows = -(-len(handles) // max(columns, 1))
    line = 1.2 * matplotlib.rcParams["figure.titlesize"] / 72
    lines = max(footnote.count("\n") + 1, CAPTION_LINES) if wanted.caption else 0
    more = (lines - CAPTION_LINES) * CAPTION_SIZE * 1.3 / 72
    figure.add_height(more + (title.count("\n") + max(0, rows - 1)) * line / wanted.letters)
    # The layout engine keeps room for the title, so empty lines make that of the legend.
    figure.suptitle("\n".join([title] * bool(title) + [" "] * rows), x=0.012, ha="left")
    if handles:
        title_height = 0.04 + line * (title.count("\n") + bool(title))
        figure.legend(
            handles=handles,
            handler_map=handlers,
            loc="upper left",
            bbox_to_anchor=(0.012, 1 - title_height / figure.get_figheight()),
            borderaxespad=0,
            ncols=columns,
            columnspacing=_BETWEEN,
            handletextpad=_PAD,
        )
    # The layout engine keeps room for a label of the whole figure, so the footnote is one.
    if wanted.caption:
        size = CAPTION_SIZE * wanted.letters
        figure.supxlabel(footnote, x=0.012, ha="left", fontsize=size, color=FAINT, linespacing=1.3)


def _legend_columns(handles: Sequence[Artist], room: float) -> int:
    """As many columns as fit into a width in inches. Entries fill column by column."""
    size = matplotlib.rcParams["legend.fontsize"]
    beside = matplotlib.rcParams["legend.handlelength"] + _PAD  # in letter sizes
    widths = [text_width(str(h.get_label()), size) + beside * size / 72 for h in handles]
    for columns in range(len(handles), 1, -1):
        rows = -(-len(handles) // columns)
        parts = [max(widths[k : k + rows]) for k in range(0, len(widths), rows)]
        if sum(parts) + (len(parts) - 1) * _BETWEEN * size / 72 <= room:
            return columns
    return 1


def title_of(results: Cells, title: str | None) -> str:
    """The caller's title, which may hold mathtext; else the name of the grid, which is text. In
    axes of the caller's there is none unless given."""
    if title is None:
        return "" if page().ax is not None else plain(results.grid.name)
    check_text("title", title)
    try:
        if is_math_text(title):
            MathTextParser("path").parse(title)
    except ValueError:
        raise UsageError(
            f"title {title!r} is no mathtext", hint=r"write \$ for a dollar sign"
        ) from None
    return title


def paint(
    ax: Axes, values: NDArray[Any], cmap: Colormap, norm: Normalize, *, lines: bool = True
) -> QuadMesh:
    """One colour a cell ``[y, x]``; NaN and masked cells stay white."""
    rows, columns = values.shape
    many = values.size > 2500 or not lines
    return ax.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=cmap,
        norm=norm,
        # Without a border of their own colour, neighbours show hairlines in PDF viewers.
        edgecolors="face" if many else "white",
        linewidth=0.2 if many else 0.4,
        rasterized=values.size > RASTER_CELLS,
    )


def hatch(ax: Axes, mask: NDArray[Any], pattern: str, ink: str, ground: str = "none") -> None:
    """A pattern over the cells of a mask ``[y, x]``, each run of a row in one piece."""
    if not mask.any():
        return
    pieces = []
    for row, cells in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], cells.astype(np.int8), [0]))))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            pieces.append(Rectangle((start - 0.5, row - 0.5), stop - start, 1))
    ax.add_collection(
        PatchCollection(pieces, facecolor=ground, edgecolor=ink, linewidth=0, hatch=pattern)
    )


def hatch_status(ax: Axes, status: NDArray[Any], unknown: NDArray[Any]) -> None:
    """Marks diverged cells and cells that are not finished."""
    hatch(ax, status == DIVERGED, DIVERGED_HATCH, "#FFFFFF")
    hatch(ax, unknown, PENDING_HATCH, FAINT)


def hatch_never(ax: Axes, never: NDArray[np.bool_], status: NDArray[Any]) -> None:
    """Marks cells without a step of their own: never reached, or diverged before."""
    diverged = status == DIVERGED
    hatch(ax, never & ~diverged, NEVER_HATCH, NEVER_INK)
    hatch(ax, never & diverged, DIVERGED_HATCH, "#FFFFFF", GREY)


def never_handle(label: str) -> Patch:
    return Patch(
        facecolor="white", edgecolor=NEVER_INK, linewidth=0, hatch=NEVER_HATCH, label=label
    )


def borders(ax: Axes, kinds: NDArray[Any], **look: Any) -> None:
    """Lines between cells ``[y, x]`` of different kinds."""
    down, across = np.argwhere(np.diff(kinds, axis=1)), np.argwhere(np.diff(kinds, axis=0))
    lines = [
        *(((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in down),
        *(((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in across),
    ]
    look = {"colors": INK, "linewidths": 0.8, "capstyle": "projecting", **look}
    ax.add_collection(LineCollection(lines, **look))


def status_handles(status: NDArray[Any], unknown: NDArray[Any]) -> list[Patch]:
    """Legend entries of the hatchings that occur. A finished cell has no phase where the file
    lacks what its rule asks for."""
    handles = []
    if (status == DIVERGED).any():
        handles.append(
            Patch(
                facecolor=GREY,
                edgecolor="white",
                linewidth=0,
                hatch=DIVERGED_HATCH,
                label="diverged",
            )
        )
    if unknown.any():
        finished = np.isin(np.broadcast_to(status, unknown.shape)[unknown], (OK, DIVERGED))
        handles.append(
            Patch(
                facecolor="white",
                edgecolor=FAINT,
                linewidth=0,
                hatch=PENDING_HATCH,
                label="phase not known" if finished.all() else "not finished",
            )
        )
    return handles


def mark_range(results: Cells, facets: Facets, mark: Mark | None) -> tuple[list[float], str]:
    """Left, right, top and bottom of the rectangle around the cells whose values lie in given
    ranges, and its sentence for the footnote; nothing (``[], ""``) where none is wanted.

    Raises:
        UsageError: a range of something that is no number along x or y, or without a cell.
    """
    wanted = MARKS.get(results.grid.name) if mark is None else mark
    if not wanted:
        return [], ""
    box: list[float] = []
    along = [a for a in (facets.x, facets.y) if a and all(map(is_number, a.values))]
    unknown = set(wanted) - {a.name for a in along}
    sides = []
    for axis in (facets.x, facets.y):
        values = np.arange(1.0) if axis is None else np.asarray(axis.values)
        inside = np.arange(len(values))
        if axis is not None and axis.name in wanted:
            low, high = wanted[axis.name]
            inside = np.flatnonzero((values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9)))
            sides.append(f"{axis.label} {number(low)} to {number(high)}")
        if len(inside) == 0 or unknown:
            if mark is None:  # a part of the preset's grid that does not show the range
                return [], ""
            raise UsageError(
                f"mark={dict(wanted)}: no cell lies in it",
                hint=f"give (low, high) of {' and '.join(a.name for a in along)}",
            )
        box += [inside[0] - 0.5, inside[-1] + 0.5]
    if mark is None and box == [-0.5, facets.shape[1] - 0.5, -0.5, facets.shape[0] - 0.5]:
        return [], ""
    name = "the original range" if mark is None else "the marked range"
    return box, f"Rectangle: {name}, {', '.join(sides)}."


def draw_mark(ax: Axes, box: Sequence[float]) -> None:
    if box:
        left, right, top, bottom = box
        ax.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=INK,
                linewidth=1.4,
                zorder=4,
                path_effects=[withStroke(linewidth=3.2, foreground="white")],
            )
        )
