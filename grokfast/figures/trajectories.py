"""How the embeddings of single cells move during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.figures.caption import caption, describe
from grokfast.figures.cells import phase_of
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of, wrap_title
from grokfast.figures.style import INK, Paper, palette, plain, style
from grokfast.results import Results
from grokfast.retyping import again

#: Steps of the left panel; a run that is hardly longer has no other.
EARLY = 2000

#: Inches of all panels of a row, about.
_TITLE = 5.5

#: More snapshots than this cannot be told apart on paper.
_MAX_POINTS = 2000


@options
def embedding_trajectories(
    results: Results, cells: Sequence[Cell] | None = None, *, title: str | None = None
) -> Figure:
    """The value of each token's embedding against steps, as Shabalin et al. 2023: on the left the
    first 2000 steps, on the right the whole run (one column where that is hardly longer); one row a
    cell, all on the same axes.

    Embeddings of several components are projected on the first principal axis of the last
    snapshot, with the sign that makes the last token larger than the first.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, or a run without embeddings.
    """
    if "embeddings" not in results or "snapshot" not in results:
        if not results.grid.experiment.model.has_embedding:
            raise UsageError(
                f"the networks of {plain(results.grid.name)} have no embedding to draw"
            )
        raise UsageError(
            "this run recorded no embeddings",
            hint=again(results.grid, **{"record.embeddings": 10, "stop": "never"}),
        )
    chosen = choose(results, cells)
    with style():
        width = 6.9
        figure = Paper((width, 1.0 + 1.45 * len(chosen)), layout="constrained")
        last = max(_measured(results, cell)[0][-1] for cell in chosen)
        ends = [EARLY, last] if last > 1.5 * EARLY else [max(last, 1)]
        widths = (1, 1.25)[: len(ends)]
        grid = figure.subplots(
            len(chosen), len(ends), squeeze=False, width_ratios=widths, sharex="col", sharey=True
        )
        tokens = results["embeddings"].shape[2]
        cmap = _colours(tokens)
        several = results["embeddings"].shape[3] > 1
        for row, cell in zip(grid, chosen, strict=True):
            _row(row.tolist(), ends, results, cell, cmap)
            row[0].set_ylabel("first principal axis" if several else "embedding")
        for ax in grid[-1]:
            ax.set_xlabel("steps")
        if len(ends) > 1:
            grid[-1][0].set_xlabel(f"the first {EARLY:,} steps")
        norm = BoundaryNorm(np.arange(tokens + 1) - 0.5, tokens)
        figure.align_ylabels(grid[:, 0])
        bar = figure.colorbar(ScalarMappable(norm, cmap), ax=grid, pad=0.02, aspect=30)
        every = 1 if tokens <= 20 else int(np.ceil(tokens / 10))
        shown = range(0, tokens, every)
        bar.set_ticks(list(shown), labels=list(map(str, shown)))
        bar.ax.minorticks_off()
        bar.set_label("token")
        note = "Lines: T(train) solid, T(val) dashed."
        if several:
            note += " Embeddings on the first principal axis of the last snapshot."
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


def _row(
    axes: Sequence[Axes], ends: Sequence[int], results: Results, cell: int, cmap: Colormap
) -> None:
    step, values = _measured(results, cell)
    for ax, end in zip(axes, ends, strict=True):
        inside = np.flatnonzero(step <= end)
        inside = inside[:: max(1, len(inside) // _MAX_POINTS)]
        for token in range(values.shape[1]):
            ax.plot(step[inside], values[inside, token], color=cmap(token), linewidth=0.9)
        for name, line in (("t_train", "-"), ("t_val", "--")):
            if 0 <= results[name][cell] <= end:
                ax.axvline(results[name][cell], color=INK, linestyle=line, linewidth=0.8)
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if end >= 10_000:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    phase = int(results.phases()[cell])
    title = f"{phase_of(results, cell)}: {describe(results, cell)}"
    axes[0].set_title(wrap_title(title, _TITLE / len(axes)))
    if phase >= 0:
        for ax in axes:
            colour = palette(results.rule.phases)[phase]
            ax.spines["left"].set(color=colour, linewidth=3, capstyle="butt")


def _measured(results: Results, cell: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps ``[S]`` and values ``[S, token]`` of a cell.

    Raises:
        UsageError: there are none.
    """
    values = one_component(results["embeddings"][cell])
    measured = np.flatnonzero(np.isfinite(values).all(axis=1))
    if not len(measured):
        raise UsageError(
            f"cell {describe(results, cell)} has no embeddings yet", hint="choose another cell"
        )
    return results["snapshot"][measured], values[measured]


def _colours(tokens: int) -> Colormap:
    """One a token, in order: all hues from violet to red, each dark enough for a line, and of
    neighbours one lighter and one darker, since a hue alone does not tell so many apart."""
    rgb = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, tokens))[:, :3]
    grey = (rgb @ [0.299, 0.587, 0.114])[:, None]
    level = np.where(np.arange(tokens) % 2, 0.62, 0.38)[:, None]
    darker, lighter = rgb * level / grey, 1 - (1 - rgb) * (1 - level) / (1 - grey)
    return ListedColormap(np.where(grey > level, darker, lighter))


def one_component(embeddings: NDArray[Any]) -> NDArray[Any]:
    """``[snapshot, token, component]`` -> ``[snapshot, token]``; unmeasured snapshots stay NaN."""
    if embeddings.shape[2] == 1:
        return embeddings[:, :, 0]
    measured = np.flatnonzero(np.isfinite(embeddings).all(axis=(1, 2)))
    if not len(measured):
        return np.full(embeddings.shape[:2], np.nan)
    last = embeddings[measured[-1]].astype(float)
    last = last - last.mean(axis=0)
    axis = np.linalg.svd(last, full_matrices=False)[2][0]
    # The sign of a singular vector is arbitrary; fix it, so that reruns look the same.
    if (last[-1] - last[0]) @ axis < 0:
        axis = -axis
    return embeddings @ axis
