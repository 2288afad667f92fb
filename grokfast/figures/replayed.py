"""Hidden representations and weights of single cells at a few epochs, which a replay finds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokfast.analyses.density import kernel_density
from grokfast.analyses.layout import PERPLEXITY
from grokfast.figures.caption import caption, describe
from grokfast.figures.cells import mark_phase, phase_of
from grokfast.figures.choice import Cell, choose
from grokfast.figures.layouts import NAMED, Cloud, draw_clouds, label_bar
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import INK, NEURON, Paper, plain, style
from grokfast.results import Results
from grokfast.tasks.parity import Parity

if TYPE_CHECKING:  # they import torch
    from grokfast.replaying import Replay, Until

#: Inches of a panel.
_PANEL = 1.5


@options
def hidden_layouts(
    results: Results,
    cells: Sequence[Cell] | None = None,
    *,
    until: Until = "generalised",
    epochs: Sequence[int] | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Figure:
    """t-SNE of the hidden representations of the training set at five epochs, one row a cell, as
    Fig 2 of the parity blog: coloured by the first k signs of the inputs, on which the label
    depends; of other tasks by the label. Each cell is trained again to find them.

    Args:
        cells: positions, or axis values such as ``{"lr": 1e-3, "weight_decay": 5}``; by default
            one cell of each phase that occurs.
        until: the last of the five: that in which the cell ``generalised`` (where it did), or the
            ``end``; the first is that in which it memorised.
        epochs: instead of these five.
        seed: of t-SNE.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a model without a hidden layer, or what
            :func:`grokfast.replay` and :func:`grokfast.analyses.tsne` refuse.
        EnvironmentProblem: scikit-learn, the engine or the data are missing.
    """
    chosen = choose(results, cells)
    replays = [_replay(results, cell, until, epochs) for cell in chosen]
    labelled = [_labels(replay) for replay in replays]
    names, what = max((pair[1:] for pair in labelled), key=lambda pair: len(pair[0]))
    rows = list(zip(chosen, replays, labelled, strict=True))
    with style():
        figure, grid, width = _panels(rows, _PANEL)
        handles: list[Artist] = []
        for row, (cell, replay, (labels, *_)) in zip(grid, rows, strict=True):
            clouds = [Cloud(replay.hidden(k), labels) for k in range(len(replay.steps))]
            handles = draw_clouds(row[: len(clouds)], clouds, names, seed=seed)
            _head(row, results, cell, _titles(replay))
        if len(names) > NAMED:
            label_bar(figure, grid, names, what)
        samples = max(len(replay.y_train) for replay in replays)
        note = (
            f"A mark is one of {samples:,} training samples, by {what}; t-SNE of what enters the "
            f"last layer (perplexity {PERPLEXITY:g}, seed {seed}). {_spacing(until, epochs)}"
        )
        finish(figure, title_of(results, title), caption(results, width, note), handles)
    return figure


@options
def weight_densities(
    results: Results,
    cells: Sequence[Cell] | None = None,
    *,
    until: Until = "end",
    epochs: Sequence[int] | None = None,
    title: str | None = None,
) -> Figure:
    """Kernel density of the weights of each layer at five epochs, as Figs 3 and 9 of the parity
    blog (whose text says the hidden layer, and whose curves are those of the output weights); one
    row a cell and layer. Arguments and errors as :func:`hidden_layouts`, with SciPy in the place of
    scikit-learn."""
    chosen = choose(results, cells)
    replays = [_replay(results, cell, until, epochs) for cell in chosen]
    rows = [
        (cell, replay, name)
        for cell, replay in zip(chosen, replays, strict=True)
        for name, tensor in replay.tensors.items()
        if tensor.ndim == 3  # [S, outputs, inputs]
    ]
    with style():
        figure, grid, width = _panels(rows, 1.15)
        for row, (cell, replay, name) in zip(grid, rows, strict=True):
            weights = replay.tensors[name].numpy()
            highest = [_density(ax, values) for ax, values in zip(row, weights, strict=False)]
            titles = [f"{t}: {h}" for t, h in zip(_titles(replay), highest, strict=True)]
            _head(row, results, cell, titles)
            row[0].set_ylabel(f"density of\n{plain(name)}")
            reach = 1.05 * float(np.abs(weights).max()) or 1.0
            for ax in row:
                ax.set_xlim(-reach, reach)
        for ax in grid[-1]:
            ax.set_xlabel("weight")
        note = (
            "Gaussian kernel, Scott's rule; above each panel its highest density. "
            f"{_spacing(until, epochs)}"
        )
        finish(figure, title_of(results, title), caption(results, width, note))
    return figure


def _density(ax: Axes, values: NDArray[Any]) -> str:
    """Draws it, and says how high it is."""
    places, density = kernel_density(values)
    if len(places) == 1:
        ax.axvline(float(places[0]), color=NEURON)
        return f"all are {places[0]:.3g}"
    ax.plot(places, density, color=NEURON)
    ax.fill_between(places, 0, density, color=NEURON, alpha=0.2, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.4, linestyle=":")
    ax.set_ylim(0, None)
    return f"{density.max():.3g}"


def _replay(results: Results, cell: int, until: Until, epochs: Sequence[int] | None) -> Replay:
    from grokfast.replaying import replay

    return replay(results, cell, until=until, epochs=epochs)


def _labels(replay: Replay) -> tuple[NDArray[np.int64], list[str], str]:
    """A label of each training sample, the names of all labels, and what they are: the first k
    signs of a parity, else the label."""
    task = replay.experiment.task
    if isinstance(task, Parity):
        bits = (replay.x_train[:, : task.k].numpy() > 0).astype(np.int64)
        names = ["".join(signs) for signs in itertools.product("\N{MINUS SIGN}+", repeat=task.k)]
        return (
            bits @ (1 << np.arange(task.k)[::-1]),
            names,
            f"the first {task.k} signs of its input",
        )
    classes = int(replay.y_train.max()) + 1
    return replay.y_train.numpy(), [str(c) for c in range(classes)], "its label"


def _titles(replay: Replay) -> list[str]:
    if replay.steps_per_epoch == 1:
        return [f"step {step:,}" for step in replay.steps]
    return [f"epoch {epoch:,.10g}" for epoch in replay.epochs]


def _spacing(until: Until, epochs: Sequence[int] | None) -> str:
    if epochs is not None:
        return ""
    last = {"generalised": "generalised (where it did)", "end": "ended"}[until]
    return f"From where the cell memorised (where it did) to where it {last}, evenly spaced."


def _panels(
    rows: Sequence[tuple[int, Replay, Any]], height: float
) -> tuple[Paper, NDArray[Any], float]:
    """A figure with a panel of some inches for each step of each row, its axes ``[row, step]``, and
    its width."""
    columns = max(len(replay.steps) for _, replay, _ in rows)
    width = max(0.9 + (_PANEL + 0.1) * columns, 3.9)
    figure = Paper((width, 1.0 + (height + 0.5) * len(rows)), layout="constrained")
    return figure, figure.subplots(len(rows), columns, squeeze=False), width


def _head(row: Sequence[Axes], results: Results, cell: int, titles: Sequence[str]) -> None:
    """Phase and values of the cell above a row of panels, and a title above each; panels without
    one go."""
    named = f"{phase_of(results, cell)}: {describe(results, cell)}"
    for k, (ax, title) in enumerate(zip(row, titles, strict=False)):
        ax.set_title(f"{named if k == 0 else ''}\n{title}", linespacing=1.3)
        mark_phase(ax, results, cell)
    for ax in row[len(titles) :]:
        ax.remove()
