"""One entry for the command line: a kind of figure, into a file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures import FORMATS, KINDS
from grokfast.figures.choice import Cell
from grokfast.figures.convergence import convergence_diagram
from grokfast.figures.discrete import phase_diagram
from grokfast.figures.histories import curves
from grokfast.figures.maps import preactivation_maps
from grokfast.figures.pruned import pruning_curves
from grokfast.figures.smooth import smooth_diagram
from grokfast.figures.spectra import gamma_scatter, ipr_histograms, phase_histograms
from grokfast.figures.trajectories import embedding_trajectories
from grokfast.figures.widths import width_accuracy
from grokfast.files import replacing
from grokfast.results import Results

_DIAGRAMS: dict[str, Callable[..., Figure]] = {
    "phases": phase_diagram,
    "smooth": smooth_diagram,
    "convergence": convergence_diagram,
}
_OF_CELLS: dict[str, Callable[..., Figure]] = {
    "curves": curves,
    "embeddings": embedding_trajectories,
    "ipr": ipr_histograms,
    "gamma": gamma_scatter,
    "phase-sums": phase_histograms,
    "pruning": pruning_curves,
    "maps": preactivation_maps,
    "widths": width_accuracy,
}


def draw(
    results: Results,
    kind: str,
    *,
    cells: Sequence[Cell] | None = None,
    out: str | Path,
    budget: int | None = None,
    over: Sequence[str] = (),
    x: str | None = None,
    y: str | None = None,
) -> list[Path]:
    """Draws one figure into a file, which appears whole or not at all.

    Args:
        kind: one of ``figures.KINDS``.
        cells: for the kinds of single cells: which; by default one of each phase (for ``widths``
            every one).
        out: its suffix, png, pdf or svg, chooses the format.
        budget: for the diagrams: read them as of this many steps.
        over: axes of replicates, which are put together (:meth:`Results.aggregate`); not for
            embeddings.
        x, y: for the diagrams: names of the axes that shall lie there.

    Returns:
        The files written.

    Raises:
        UsageError: unknown kind or format, an option that the kind does not have, or what the
            figure itself refuses.
        EnvironmentProblem: the file cannot be written; an old one is as it was.
    """
    out = Path(out)
    suffix = check(kind, out)
    options: dict[str, Any]
    if kind in _DIAGRAMS:
        if cells:
            raise UsageError(f"--kind={kind} shows every cell", hint=_have("cell", _OF_CELLS))
        options = {"budget": budget, "x": x, "y": y}
    else:
        for name, value in {"budget": budget, "x": x, "y": y}.items():
            if value is not None:
                raise UsageError(f"--kind={kind} has no {name}", hint=_have(name, _DIAGRAMS))
        options = {"cells": cells or None}
    shown: Cells = results
    if over:
        if kind == "embeddings":
            raise UsageError("--kind=embeddings shows single cells; leave --over out")
        shown = results.aggregate(over, budget=budget)
    figure = (_DIAGRAMS | _OF_CELLS)[kind](shown, **options)
    with replacing(out) as temporary:
        figure.savefig(temporary, format=suffix)
    return [out]


def check(kind: str, out: Path) -> str:
    """The format of a wanted figure, before any work.

    Raises:
        UsageError: unknown kind, or a suffix other than png, pdf and svg.
    """
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        raise UsageError(
            f"unknown kind {kind!r}; known are {', '.join(KINDS)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise UsageError(
            f"cannot draw {out.name}: unknown format {out.suffix or '(no suffix)'}",
            hint=f"give a file ending in {', '.join('.' + f for f in FORMATS)}",
        )
    return suffix


def _have(option: str, kinds: dict[str, Any]) -> str:
    return f"{option} belongs to {' and '.join('--kind=' + k for k in kinds)}"
