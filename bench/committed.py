"""Results files in bench/results, their agreement with published tables, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grokfast.agree import Agreement, MeasuredAgreement, agree
from grokfast.errors import UsageError
from grokfast.figures import KINDS
from grokfast.phases import UNKNOWN
from grokfast.results import DIVERGED, Results

RESULTS = Path(__file__).parent / "results"


@cache
def load(name: str) -> Results | None:
    """The results file of this name, or None where it is not there."""
    path = RESULTS / f"{name}.h5"
    return Results.load(path) if path.exists() else None


@cache
def agreements(name: str) -> tuple[Agreement | MeasuredAgreement, ...]:
    """What a file has in common with the published tables; nothing where it is not there."""
    results = load(name)
    if results is None:
        return ()
    try:
        return tuple(agree(results))
    except UsageError:  # nothing in common
        return ()


def share(agrees: int, of: int) -> str:
    return f"{agrees} of {of}" + (f" ({agrees / of:.1%})" if of >= 20 else "")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) + "\n"


def cost(results: Results) -> str:
    """Time, work and machine of a run, as its file has them."""
    origin = results.provenance
    steps = int(results["steps_done"].sum())
    detail = str(origin.get("engine_detail", ""))
    level = next((word for word in detail.replace(",", "").split() if "avx" in word.lower()), "")
    machine = f"{origin.get('device_name', origin.get('device'))} {level.lower()}".strip()
    wall = float(origin.get("wall_seconds", 0))
    time = f"{wall / 60:.0f} min" if wall >= 600 else f"{wall:.0f} s"
    done = str(origin.get("updated_utc", ""))[:10]
    return (
        f"`{origin.get('engine')}`, {results.grid.experiment.dtype}, {machine}, {done}: {time} of "
        f"wall time for {steps / 1e6:.3g} million model-steps"
    )


def what_ran(results: Results) -> list[str]:
    """Cells, steps, cost, and what is missing, a line each."""
    of = results.grid.size
    own = f"{len(results)} of {of} cells so far"
    if len(results) == of:
        own = f"all {of} cells" if of > 1 else "one cell"
    open_ = int((~results.finished()).sum())
    budgets = {results.grid.cells[run].steps for run in results["run"].tolist()}
    return [
        f"{own}, {' and '.join(f'{b:,}' for b in sorted(budgets))} steps; {cost(results)}.",
        *([f"{open_} cells are not finished."] if open_ else []),
    ]


def counts(phase: NDArray[np.int8], results: Results) -> str:
    names = results.rule.phases
    found = [f"{name} {int((phase == k).sum())}" for k, name in enumerate(names)]
    unknown = int((phase == UNKNOWN).sum())
    return ", ".join(found) + (f", not known {unknown}" if unknown else "")


def phases(results: Results) -> str:
    """How many cells have each phase, and diverged."""
    diverged = int((results["status"] == DIVERGED).sum())
    more = f"; {diverged} diverged" if diverged else ""
    return f"Phases: {counts(results.phases(), results)}{more}."


def pictures(name: str) -> list[str]:
    """What has been drawn of a file, by the names that ``grokfast plot`` gives."""
    patterns = [
        f"{name}.png",
        *(f"{name}.{kind}{more}.png" for kind in KINDS for more in ("", ".*")),
    ]
    there = [path.name for pattern in patterns for path in sorted(RESULTS.glob(pattern))]
    return [f"![{file.removesuffix('.png')}](results/{file})" for file in there]
