"""The rows of the output matrix of single cells in the plane, by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from grokfast.analyses.cosets import cosets
from grokfast.analyses.layout import tsne
from grokfast.analyses.neurons import Floats, Ints
from grokfast.errors import UsageError
from grokfast.figures.caption import caption
from grokfast.figures.cells import panels
from grokfast.figures.choice import Cell, choose
from grokfast.figures.page import options
from grokfast.figures.panels import finish, title_of
from grokfast.figures.style import FAINT, style
from grokfast.results import Results
from grokfast.retyping import again
from grokfast.tasks import Algorithmic

#: Residues that a line of additions of 8 stays in ([Power et al. 2022], Fig. 3 right).
_STEP = 8


@options
def output_map(
    results: Results,
    cells: Sequence[Cell] | None = None,
    *,
    seed: int = 0,
    title: str | None = None,
) -> Figure:
    """Rows of the output matrix, one a symbol, laid out by t-SNE, as Power et al. 2022 (arXiv
    2201.02177) Fig. 3: of S5 coloured by the left coset of the subgroup <(0,3)(1,4), (1,2)(3,4)>,
    of operations modulo p by the residue modulo 8, with a line from each number to that plus 8.

    Args:
        cells: positions, or axis values such as ``{"model_seed": 0}``; by default one cell of each
            phase that occurs.
        seed: of t-SNE.
        title: instead of the name of the grid.

    Raises:
        UsageError: no such cell, a run without weights, or of another task or model.
        EnvironmentProblem: scikit-learn is missing.
    """
    chosen = choose(results, cells)
    rows = [_rows(results, cell) for cell in chosen]
    colours = [_colours(results, cell, len(own)) for cell, own in zip(chosen, rows, strict=True)]
    places = [_layout(own, seed) for own in rows]
    with style():
        last = [f"{len(own)} symbols" for own in rows]
        figure, axes, width = panels(results, chosen, last, ("", ""))
        for ax, at, (kind, groups) in zip(axes, places, colours, strict=True):
            if kind == "residue":
                for begin in range(_STEP):
                    ax.plot(*at[begin::_STEP].T, color=FAINT, linewidth=0.4, alpha=0.6, zorder=1)
                for name, (x, y) in enumerate(at.tolist()):
                    ax.annotate(
                        str(name), (x, y), (1.5, 1.5), textcoords="offset points", fontsize=3.5
                    )
            palette = matplotlib.colormaps["tab20" if kind == "coset" else "tab10"]
            ax.scatter(at[:, 0], at[:, 1], c=palette(groups), s=9, linewidths=0, zorder=2)
            ax.set(xticks=[], yticks=[], xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
        kinds = {kind for kind, _ in colours}
        notes = ["Rows of the output matrix by t-SNE."]
        if "coset" in kinds:
            notes.append("Colours: left cosets of the subgroup ⟨(0,3)(1,4), (1,2)(3,4)⟩.")
        if "residue" in kinds:
            notes.append(f"Colours: residues modulo {_STEP}; lines: k to k + {_STEP}.")
        finish(figure, title_of(results, title), caption(results, width, *notes))
    return figure


def _layout(rows: Floats, seed: int) -> Floats:
    """``[n, 2]`` in the unit square: sizes and distances of clusters say nothing."""
    at = tsne(rows, seed, perplexity=min(30.0, (len(rows) - 1) / 3))
    low, high = at.min(axis=0), at.max(axis=0)
    return (at - low) / np.where(high > low, high - low, 1.0)


def _rows(results: Results, cell: int) -> Floats:
    """Of the symbols alone ``[n, width]``: without those of the operation and of "="."""
    run = int(results["run"][cell])
    experiment = results.grid.cells[run]
    if not isinstance(experiment.task, Algorithmic) or experiment.model.name != "transformer":
        raise UsageError("output rows are drawn of transformers on the task algorithmic")
    for bucket in results.weights:
        at = np.flatnonzero(bucket["run"] == run)
        if len(at):
            name = "head.weight" if "head.weight" in bucket else "embedding.weight"
            found: Floats = bucket[name][at[0]].astype(np.float64)
            return found[: _symbols(experiment.task)]
    raise UsageError(
        "this run kept no weights",
        hint=again(results.grid, **{"record.weights": True}),
    )


def _symbols(task: Algorithmic) -> int:
    return 1 + max(int(column.max()) for column in task.equations())


def _colours(results: Results, cell: int, symbols: int) -> tuple[str, Ints]:
    """What is told apart by colour, and the number of each symbol's colour ``[n]``."""
    task = results.grid.cells[int(results["run"][cell])].task
    assert isinstance(task, Algorithmic)
    if "." in task.operation:
        return "coset", cosets()
    return "residue", np.arange(symbols) % _STEP
