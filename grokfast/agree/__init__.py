"""How well a run agrees with a published table, or with another run: phases overall, interior and
border; steps; losses and accuracies at steps (:mod:`grokfast.agree.measured`).

Cells are matched by the two axes of the table, mostly learning rate and weight decay, numbers to a
relative 1e-6. Where the run has further axes, those cells are compared whose values are the table's
(see :mod:`grokfast.agree.tables`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.agree.measured import MeasuredAgreement, Measurements, compare_measured
from grokfast.agree.tables import Table, column, load_reference
from grokfast.errors import UsageError
from grokfast.fields import scalar_fields, short_name
from grokfast.grid import same_number
from grokfast.phases import UNKNOWN
from grokfast.results import Results

__all__ = [
    "Agreement",
    "MeasuredAgreement",
    "Measurements",
    "Share",
    "Table",
    "agree",
    "compare",
    "load_reference",
]

#: Two cells are the same where numbers on both axes are this close, relatively.
MATCH = 1e-6

_WORDS = {"optimizer.lr": "learning rate", "optimizer.weight_decay": "weight decay"}

#: Fields that must be those of the table, or there is nothing to compare.
_DECISIVE = ("loss", "task.seed", "model.seed", "model.activation")
#: Fields that say how, not what, was trained; differing in them is not worth a note.
_MACHINERY = ("steps", "stop", "dtype", "precision", "record.")


@dataclass(frozen=True)
class Share:
    """``agree`` of ``of`` cells."""

    agree: int
    of: int

    @property
    def fraction(self) -> float:
        """NaN where there are no cells."""
        return self.agree / self.of if self.of else math.nan


@dataclass(frozen=True)
class Agreement:
    """What :func:`agree` found for one table.

    Attributes:
        table, source: title of the table, and where it comes from.
        cells: cells in common and finished, the basis of every share.
        published: cells of the table.
        unfinished: cells in common that are not finished, left out.
        phases: ``overall``; for a full grid also ``interior`` (cells whose up to four neighbours
            in the table, of those that exist, share their phase there) and ``border`` (the
            others).
        confusion: published phase -> our phase -> cells.
        steps: named shares of T_train and T_val; empty where the table has none.
        notes: what differs from the experiment of the table.
        is_published: whether the table is a published one, or of another results file.
    """

    table: str
    source: str
    cells: int
    published: int
    unfinished: int
    phases: dict[str, Share]
    confusion: dict[str, dict[str, int]]
    steps: dict[str, Share] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_published: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; every share with its fraction (null for no cells)."""
        data = asdict(self)
        for name in ("phases", "steps"):
            data[name] = {
                key: asdict(share) | {"fraction": share.fraction if share.of else None}
                for key, share in getattr(self, name).items()
            }
        return data | {"notes": list(self.notes)}


def agree(
    results: Results, reference: str | Path | None = None
) -> list[Agreement | MeasuredAgreement]:
    """Compares a run with every table of a file that it has cells of.

    Args:
        reference: JSON or another results file (see :mod:`grokfast.agree.tables`); the published
            tables that come with grokfast where not given.

    Raises:
        UsageError: no such file, no table in it, or no cell in common.
    """
    found: list[Agreement | MeasuredAgreement] = []
    reasons = []
    for table in load_reference(reference):
        compared: Agreement | MeasuredAgreement | str
        if isinstance(table, Measurements):
            compared = compare_measured(results, table)
        else:
            compared = compare(results, table)
        if isinstance(compared, str):
            reasons.append(f"{table.title}: {compared}")
        else:
            found.append(compared)
    if not found:
        some = "; ".join(list(dict.fromkeys(reasons))[:3]) or "it has no finished cell"
        where = reference or "the published tables"
        raise UsageError(f"no cell in common with {where} ({some})")
    return found


def compare(results: Results, table: Table) -> Agreement | str:
    """The agreement with one table, or why there is nothing to compare."""
    names = table.experiment.phase.phases
    chosen = _chosen_cells(results, table)
    if isinstance(chosen, str):
        return chosen
    mine, theirs = _matched(results, chosen, table)
    if not len(mine):
        return f"no {' and '.join(_WORDS.get(p, short_name(p)) for p in table.axes)} in common"
    if results.rule.phases != names:
        return f"its phases are {', '.join(names)}, the run's {', '.join(results.rule.phases)}"
    published = table.experiment.steps
    own = max(results.grid.cells[run].steps for run in results["run"][mine].tolist())
    budget = published if results.grid.varies("steps") else min(own, published)
    trained = int(results["steps_done"][mine].max())
    notes = _notes(results, table)
    table = table.as_of(budget)
    try:
        phase = results.phases(budget if max(own, trained) > budget else None)[mine]
    except UsageError as error:  # a rule that cannot go back to the table's budget
        return error.message
    known = phase != UNKNOWN
    mine, theirs, phase = mine[known], theirs[known], phase[known]
    same = phase == table.phase[theirs]
    shares = {"overall": _share(same)}
    if (interior := table.interior) is not None:
        inside = interior[theirs]
        shares |= {"interior": _share(same[inside]), "border": _share(same[~inside])}
    return Agreement(
        table=table.title,
        source=table.source,
        cells=len(mine),
        published=len(table),
        unfinished=int((~known).sum()),
        phases=shares,
        confusion={
            there: {
                here: int(((table.phase[theirs] == a) & (phase == b)).sum())
                for b, here in enumerate(names)
            }
            for a, there in enumerate(names)
        },
        steps=_steps_agreement(results, mine, table, theirs, same, budget),
        notes=notes,
        is_published=table.is_published,
    )


def _share(agrees: NDArray[np.bool_]) -> Share:
    return Share(int(agrees.sum()), len(agrees))


def _chosen_cells(results: Results, table: Table) -> NDArray[np.bool_] | str:
    """Cells ``[run]`` with the table's value on every axis but the two that are matched."""
    own, wanted = results.grid.experiment, table.experiment
    if own.task.name != wanted.task.name:
        return f"the run's task is {own.task.name}"
    varied = _varied(results)
    for path in _DECISIVE:
        if path not in (*varied, *table.axes) and not same_number(own.get(path), wanted.get(path)):
            return f"its {short_name(path)} is {wanted.get(path)}, the run's {own.get(path)}"
    chosen = np.ones(len(results), bool)
    for path in varied:
        if path in table.axes:
            continue
        value = wanted.get(path)
        same = [v for v in set(column(results, path).tolist()) if same_number(v, value)]
        chosen &= np.isin(column(results, path), same)
        if not chosen.any():
            return f"its {short_name(path)} is {value}, which the run does not have"
    return chosen


def _varied(results: Results) -> list[str]:
    """The axes, and the fields that a named setting among them stands for."""
    fields = scalar_fields(results.grid.experiment)
    own = [path for path in results.grid.axes if path in fields]
    if len(own) == len(results.grid.axes):
        return own
    cells = [results.grid.cells[run] for run in results["run"].tolist()]
    return [path for path in fields if path in own or len({cell.get(path) for cell in cells}) > 1]


def _matched(
    results: Results, chosen: NDArray[np.bool_], table: Table
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in the run and in the table of the same cells, ``[K]`` each."""
    position = np.flatnonzero(chosen)

    def close(path: str, theirs: NDArray[Any]) -> NDArray[np.bool_]:
        ours = column(results, path)[position][:, None]
        if ours.dtype.kind not in "fiu" or theirs.dtype.kind not in "fiu":
            return ours == theirs
        return np.abs(ours - theirs) <= MATCH * np.abs(theirs)

    first, second = map(close, table.axes, table.at)
    ours, theirs = np.nonzero(first & second)
    _, once = np.unique(theirs, return_index=True)  # a published cell counts once
    return position[ours[once]], theirs[once]


def _notes(results: Results, table: Table) -> tuple[str, ...]:
    own, published = results.grid.experiment, table.experiment
    there = "published" if table.is_published else "there"
    notes = [
        f"{short_name(path)} is {own.get(path)}, {there} {published.get(path)}"
        for path in scalar_fields(published)
        if path in scalar_fields(own)
        and path not in (*_varied(results), *table.axes)
        and not path.startswith(_MACHINERY)
        and not same_number(own.get(path), published.get(path))
    ]
    if results.grid.varies("steps"):
        return tuple(notes)  # cells of the published budget are compared
    if own.steps < published.steps:
        both = "" if table.t_train is None else "; both read as of the shorter"
        notes.append(f"trained for {own.steps} steps, {there} for {published.steps}{both}")
    elif own.steps > published.steps:
        whose = "the published budget" if table.is_published else "the budget there"
        notes.append(f"read as of {published.steps} steps, {whose}")
    return tuple(notes)


def _steps_agreement(
    results: Results,
    mine: NDArray[np.int64],
    table: Table,
    theirs: NDArray[np.int64],
    same: NDArray[np.bool_],
    budget: int,
) -> dict[str, Share]:
    """Shares of equal and of nearly equal steps; never agrees with never only."""
    if table.t_train is None or table.t_val is None:
        return {}
    percent, limit = f"{table.tolerance:.0%}", min(budget, table.limit or budget)
    near, equal, short = {}, {}, {}
    for name, published in (("T_train", table.t_train[theirs]), ("T_val", table.t_val[theirs])):
        ours = results[name.lower()][mine]
        ours = np.where(ours > budget, -1, ours)
        equal[name] = ours == published
        apart = np.abs(ours - published) <= table.tolerance * published
        near[name] = np.where((ours < 0) | (published < 0), equal[name], apart)
        short[name] = (published >= 0) & (published <= limit)
    early = short["T_train"] & short["T_val"]
    both_near = near["T_train"] & near["T_val"]
    both_equal = equal["T_train"] & equal["T_val"]
    early_there = f"published up to {limit}" if table.is_published else f"up to {limit} there"
    return {
        f"T_train within {percent}, where {early_there}": _share(near["T_train"][short["T_train"]]),
        f"T_val within {percent}, where {early_there}": _share(near["T_val"][short["T_val"]]),
        f"both within {percent}, where both {early_there}": _share(both_near[early]),
        f"both equal, where both {early_there}": _share(both_equal[early]),
        f"same phase, where both {early_there}": _share(same[early]),
        f"both within {percent}, all cells": _share(both_near),
        "both equal, all cells": _share(both_equal),
    }
