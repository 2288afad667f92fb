"""Clouds of labelled points, each laid out in the plane by t-SNE in a panel of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from grokfast.analyses.layout import tsne
from grokfast.errors import UsageError

#: Colours that all kinds of colour blindness tell apart (Okabe and Ito), and marks that need none.
#: Yellow comes last: it is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
_MARKS = ("o", "^", "s", "v", "D", "P", "X", "*")

#: More labels than this have a colour bar instead of names.
NAMED = len(_COLOURS)


@dataclass(frozen=True, eq=False)
class Cloud:
    """The points of one panel.

    Attributes:
        points: ``[N, d]``.
        labels: integers ``[N]`` from 0 on, which choose the colours.
        title: of the panel, where it has one.
    """

    points: NDArray[Any]
    labels: NDArray[Any]
    title: str = ""


def draw_clouds(
    axes: Sequence[Axes], clouds: Sequence[Cloud], names: Sequence[str], *, seed: int = 0
) -> list[Artist]:
    """Lays each cloud out by :func:`grokfast.analyses.tsne` and draws it, coloured by label. All
    panels have one scale; their axes mean nothing and have no ticks.

    Args:
        axes: a panel for each cloud.
        names: of the labels, in their order.
        seed: of the layout.

    Returns:
        A legend entry for each label; none for more than eight, which need a colour bar (see
        :func:`label_bar`).

    Raises:
        UsageError: a label without a name; else as :func:`grokfast.analyses.tsne`.
        EnvironmentProblem: scikit-learn is missing.
    """
    for cloud in clouds:
        if len(cloud.labels) and not 0 <= cloud.labels.min() <= cloud.labels.max() < len(names):
            raise UsageError(f"labels are not in 0..{len(names) - 1}, of which there are names")
    flat = [tsne(cloud.points, seed) for cloud in clouds]
    reach = 1.08 * max(float(np.abs(places).max()) for places in flat) or 1.0
    for ax, cloud, places in zip(axes, clouds, flat, strict=True):
        _scatter(ax, places, cloud.labels, len(names))
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        if cloud.title:
            ax.set_title(cloud.title)
    if len(names) > NAMED:
        return []
    return [
        Line2D([], [], linestyle="none", markersize=4, marker=mark, color=colour, label=name)
        for name, colour, mark in zip(names, _COLOURS, _MARKS, strict=False)
    ]


def _scatter(ax: Axes, places: NDArray[Any], labels: NDArray[Any], count: int) -> None:
    if count > NAMED:
        cmap, norm = _scale(count)
        x, y = places.T
        ax.scatter(x, y, c=labels, cmap=cmap, norm=norm, s=7, linewidth=0)
        return
    for label in range(count):
        x, y = places[labels == label].T
        ax.scatter(
            x,
            y,
            color=_COLOURS[label],
            marker=_MARKS[label],
            s=9,
            alpha=0.8,
            linewidth=0,
        )


def label_bar(figure: Any, axes: Any, names: Sequence[str], label: str) -> None:
    """A colour bar for labels that are too many for a legend."""
    cmap, norm = _scale(len(names))
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, pad=0.02, aspect=30)
    shown = range(0, len(names), -(-len(names) // 10))
    bar.set_ticks(list(shown), labels=[names[k] for k in shown])
    bar.ax.minorticks_off()
    bar.set_label(label)


def _scale(count: int) -> tuple[Any, BoundaryNorm]:
    cmap = matplotlib.colormaps["viridis"].resampled(count)
    return cmap, BoundaryNorm(np.arange(count + 1) - 0.5, count)
