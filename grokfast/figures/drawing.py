"""One entry for the command line: a kind of figure, into a file."""

from __future__ import annotations

import difflib
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures import FORMATS, KINDS
from grokfast.figures.choice import Cell
from grokfast.figures.convergence import convergence_diagram
from grokfast.figures.discrete import phase_diagram
from grokfast.figures.histories import curves
from grokfast.figures.lines import outcome_lines
from grokfast.figures.maps import preactivation_maps
from grokfast.figures.observed import observables
from grokfast.figures.outputs import output_map
from grokfast.figures.page import Size
from grokfast.figures.pruned import pruning_curves
from grokfast.figures.replayed import hidden_layouts, weight_densities
from grokfast.figures.rows import neuron_rows
from grokfast.figures.smooth import smooth_diagram
from grokfast.figures.spectra import gamma_scatter, ipr_histograms, phase_histograms
from grokfast.figures.times import grokking_times
from grokfast.figures.trajectories import embedding_trajectories
from grokfast.figures.widths import width_accuracy
from grokfast.results import Results
from grokfast.storage.files import writable, write_whole

#: Kind -> its function, the options that it has, and whether it draws replicates put together.
_KINDS: dict[str, tuple[Callable[..., Figure], tuple[str, ...], bool]] = {
    "phases": (phase_diagram, ("budget", "x", "y"), True),
    "smooth": (smooth_diagram, ("budget", "x", "y"), True),
    "convergence": (convergence_diagram, ("budget", "x", "y"), True),
    "times": (grokking_times, ("budget", "x"), True),
    "lines": (outcome_lines, ("budget", "x", "y", "outcome"), True),
    "curves": (curves, ("cell", "x", "band"), True),
    "embeddings": (embedding_trajectories, ("cell",), False),
    "outputs": (output_map, ("cell",), False),
    "observables": (observables, ("cell", "x", "band"), True),
    "tsne": (hidden_layouts, ("cell", "until", "epochs"), False),
    "density": (weight_densities, ("cell", "until", "epochs"), False),
    "ipr": (ipr_histograms, ("cell",), False),
    "rows": (neuron_rows, ("cell",), False),
    "gamma": (gamma_scatter, ("cell",), False),
    "phase-sums": (phase_histograms, ("cell",), False),
    "pruning": (pruning_curves, ("cell",), False),
    "maps": (preactivation_maps, ("cell",), False),
    "widths": (width_accuracy, ("cell",), False),
}

#: Of one side of a png, and of all of it: 1.6 GB while it is drawn.
_MOST_DOTS, _MOST_IN_ALL = 2**16, 4e8
#: As in the packaged style.
DPI = 300


def draw(
    results: Results,
    kind: str,
    *,
    cells: Sequence[Cell] | Literal["all"] | None = None,
    out: str | Path,
    budget: int | None = None,
    over: Sequence[str] = (),
    x: str | None = None,
    y: str | None = None,
    outcome: str | None = None,
    band: str | None = None,
    until: str | None = None,
    epochs: Sequence[int] | None = None,
    title: str | None = None,
    size: Size | None = None,
    dpi: int | None = None,
    caption: bool = True,
    legend: bool = True,
) -> list[Path]:
    """Draws one figure into a file, which appears whole or not at all.

    Args:
        kind: one of ``figures.KINDS``.
        cells: for the kinds of single cells: which, or ``"all"``; by default one of each phase (for
            ``widths`` every one).
        out: its suffix, png, pdf or svg, chooses the format.
        budget: for the diagrams and times: read them as of this many steps.
        over: axes of replicates, which are put together (:meth:`Results.aggregate`); for the
            diagrams, times, lines, curves and observables.
        x, y: for the diagrams, and x for times: names of the axes that shall lie there; for lines
            x, and y for the axis that has a line for each value; x for curves and observables:
            ``steps`` or ``epochs``.
        outcome: for lines: what is drawn of each cell (see :func:`outcome_lines`).
        band: for curves and observables of replicates: ``sd`` or ``none``.
        until, epochs: for tsne and density: which epochs, see :func:`grokfast.replay`.
        title: instead of the name of the grid; it may hold mathtext.
        size: as for every figure, see :func:`grokfast.figures.page.options`.
        dpi: dots per inch of a png; by default 300.
        caption, legend: ``False`` leaves them out.

    Returns:
        The files written.

    Raises:
        UsageError: unknown kind or format, an option that the kind does not have, or what the
            figure itself refuses.
        EnvironmentProblem: the file cannot be written; an old one is as it was.
    """
    out = writable(out)
    suffix = check(kind, out)
    if dpi is not None and suffix != "png":
        raise UsageError(f"{suffix} has no dots, so no dpi; png has")
    page = {"size": size, "caption": caption, "legend": legend}
    function, own, of_replicates = _KINDS[kind]
    options: dict[str, Any] = {"cell": cells or None, "budget": budget, "x": x, "y": y}
    options |= {"outcome": outcome, "band": band, "until": until, "epochs": epochs}
    for name, value in options.items():
        if value is not None and name not in own:
            having = [k for k, (_, names, _) in _KINDS.items() if name in names]
            raise UsageError(f"--kind={kind} has no {name}", hint=_belongs(name, having))
    if band in ("sd", "none") and not over:
        raise UsageError("band is of replicates", hint="name their axes: --over=model_seed")
    if until is not None and epochs is not None:
        raise UsageError("until chooses epochs, and epochs are given; leave one out")
    shown: Cells = results
    if over:
        if not of_replicates:
            having = [k for k, (*_, can) in _KINDS.items() if can]
            raise UsageError(
                f"--kind={kind} shows single cells, no replicates", hint=_belongs("over", having)
            )
        shown = results.aggregate(over, budget=budget)
    options["cells"] = options.pop("cell")
    if options["cells"] == "all":
        options["cells"] = range(len(shown))
    options |= {"title": title, **page}
    figure = function(shown, **{k: v for k, v in options.items() if v is not None})
    drawn = io.BytesIO()
    _save(figure, drawn, suffix, dpi)
    write_whole(out, [drawn.getbuffer()])
    return [out]


def _save(figure: Figure, drawn: io.BytesIO, suffix: str, dpi: int | None) -> None:
    """Raises UsageError where a figure is too small for what is on it, or too large for a file."""
    width, height = figure.get_size_inches()
    dots = dpi or DPI
    sides = width * dots, height * dots
    if suffix == "png" and (max(sides) >= _MOST_DOTS or sides[0] * sides[1] > _MOST_IN_ALL):
        raise UsageError(f"{width:.1f} x {height:.1f} inches at {dots} dpi are too large for a png")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="constrained_layout not applied")
        try:
            figure.savefig(drawn, format=suffix, dpi=dots)
        except UserWarning:
            raise UsageError(
                f"{width:.1f} x {height:.1f} inches are too small for this figure",
                hint="give a larger size, a slice of the grid, or no caption",
            ) from None


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


def _belongs(option: str, kinds: Sequence[str]) -> str:
    return f"{option} belongs to {' and '.join('--kind=' + k for k in kinds)}"
