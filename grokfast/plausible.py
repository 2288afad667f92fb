"""What no run writes: values of a results file that cannot be, and how they show.

Checksums tell of what has changed since; this tells of the rest, and is all that files of versions
1 and 2 have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grokfast.cells import ALWAYS
from grokfast.errors import UsageError
from grokfast.fields import short_name, value_text
from grokfast.grid import Grid
from grokfast.outcomes import (
    ACCURACIES,
    CROSSINGS,
    CURVES,
    DIVERGED,
    OK,
    PENDING,
    PROGRESS,
    RUNNING,
    STATUS,
)
from grokfast.phases import PHASE_RULES, InversionRule, PhaseRule, classify

if TYPE_CHECKING:
    from grokfast.results import Results

#: What every file holds of each cell.
_OUTCOME = ("run", "t_train", "t_val", "steps_done", "status", "phase")

#: Dimensions, and kinds of NumPy's types, of what is counted with where a file holds it.
_NUMBERS = {
    **dict.fromkeys((x.in_file for x in PROGRESS), (("run",), "iuf")),
    **dict.fromkeys(ACCURACIES, (("run",), "iuf")),
    **dict.fromkeys(CURVES, (("run", "step"), "iuf")),
    **dict.fromkeys(_OUTCOME, (("run",), "iu")),
    **dict.fromkeys(CROSSINGS, (("run", "threshold"), "iu")),
}

#: Dimensions whose values are steps or thresholds, in rising order.
_RISING = ("run", "step", "snapshot", "observed", "threshold")


def doubts(r: Results, *, sure: bool) -> Iterator[str]:
    """What of these results cannot be, in words.

    Args:
        sure: whether checksums have been found to hold; where there are none, what follows from
            other values is compared, too.
    """
    for found in (_shapes, _axes, _hyperparameters, _ranges, _weights):
        yield from found(r)
    if not sure:
        yield from _contradictions(r)


def _shapes(r: Results) -> Iterator[str]:
    for name in _OUTCOME:
        if name not in r:
            yield f"it holds no variable {name!r}"
            return
    known = _NUMBERS | {name: ((name,), "iuf") for name in _RISING if name not in _OUTCOME}
    for name, (dims, kinds) in known.items():
        if name in r and (r.variables[name][0] != dims or r[name].dtype.kind not in kinds):
            what = "whole numbers" if kinds == "iu" else "numbers"
            yield f"variable {name!r} does not hold {what} along {' and '.join(dims)}"
            return
    sizes = {name: len(r[name]) for name in _RISING if name in r and r[name].ndim}
    for name, (dims, values) in r.variables.items():
        if len(dims) != values.ndim:
            yield f"variable {name!r} has {values.ndim} dimensions, and names of {len(dims)}"
            return
        for dim, size in zip(dims, values.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                yield f"variable {name!r} has {size} values along {dim}, not {sizes[dim]}"
                return


def _axes(r: Results) -> Iterator[str]:
    for path, values in r.grid.axes.items():
        if any(isinstance(v, float) and math.isnan(v) for v in values):
            yield f"axis {short_name(path)} has the value nan"
    for name in _RISING:
        if name in r:
            rising = r[name]
            if rising.dtype.kind not in "iuf" or not (np.diff(rising) > 0).all():
                yield f"{name} does not rise"
            elif len(rising) and not rising[0] >= 0:
                yield f"{name} begins at {rising[0]}"
    if len(r) and r["run"][-1] >= r.grid.size:
        yield f"cell {r['run'][-1]} is not in its grid of {r.grid.size}"


def _hyperparameters(r: Results) -> Iterator[str]:
    """Columns beside the values that the grid has."""
    if not len(r) or r["run"][-1] >= r.grid.size:
        return
    for path in dict.fromkeys((*r.grid.axes, *ALWAYS)):
        name = short_name(path)
        if name not in r:
            yield f"it holds no variable {name!r}"
            continue
        wanted, (dims, found) = _column(r.grid, path, r["run"]), r.variables[name]
        if dims != ("run",) or found.dtype.kind == "c":
            same = False
        elif found.dtype.kind == "f" and wanted.dtype.kind in "iuf":
            same = np.array_equal(found, wanted.astype(float), equal_nan=True)
        else:
            same = np.array_equal(found, wanted)
        if not same:
            yield f"{name} is not that of its grid"


def _column(grid: Grid, path: str, run: NDArray[Any]) -> NDArray[Any]:
    """As :func:`grokfast.results.hyperparameter_columns`, but without making every cell."""
    if path in grid.axes:
        places = np.unravel_index(run, [len(v) for v in grid.axes.values()])
        values = grid.axes[path]
        listed = [values[k] for k in places[list(grid.axes).index(path)]]
    elif grid.varies(path):
        listed = grid.column(path, run.tolist())
    else:
        listed = [grid.experiment.get(path)] * len(run)
    if any(v is None for v in listed):
        listed = [np.nan if v is None else v for v in listed]
    elif isinstance(listed[0], tuple):
        listed = [value_text(v) for v in listed]
    column = np.array(listed)
    return column.astype(object) if column.dtype.kind == "U" else column


def _ranges(r: Results) -> Iterator[str]:
    budget = np.asarray(_column(r.grid, "steps", r["run"]) if len(r) else 0)
    done = r["steps_done"]
    yield from _outside("steps_done", done, 0, budget)
    for name in ("t_train", "t_val"):
        yield from _outside(name, r[name], 1, done, none=-1)
    for name in CROSSINGS:
        if name in r:
            yield from _outside(name, r[name], 1, done[:, None], none=-1)
    if "diverged_at" in r:
        yield from _outside("diverged_at", r["diverged_at"], 1, budget, none=-1)
    yield from _outside("status", r["status"], 0, len(STATUS) - 1)
    known = r.rule.name in PHASE_RULES  # else nobody here knows how many there are
    yield from _outside("phase", r["phase"], -1, len(r.rule.phases) - 1 if known else 127)
    for outcome in PROGRESS:
        if outcome.in_file in r and outcome.in_file.endswith("_correct"):
            yield from _outside(outcome.in_file, r[outcome.in_file], -1, np.inf)
    for name in (*ACCURACIES, "train_acc", "val_acc"):
        if name in r:
            yield from _outside(name, r[name], 0, 1)


def _outside(
    name: str, values: NDArray[Any], least: float, most: Any, none: int | None = None
) -> Iterator[str]:
    """A value that is neither within its limits nor the one for there is none (nor NaN)."""
    wrong = (values < least) | (values > most)
    if none is not None:
        wrong &= values != none
    if wrong.any():
        yield f"{name} is {values[wrong].flat[0]}, which no run writes"


def _weights(r: Results) -> Iterator[str]:
    for number, bucket in enumerate(r.weights):
        cells = bucket.get("run", np.zeros(0, int))
        if cells.ndim != 1 or cells.dtype.kind not in "iu":
            yield f"weights/{number} does not say of which cells it is"
            return
        if any(len(values) != len(cells) for values in bucket.values() if values.ndim):
            yield f"weights/{number} is not of {len(cells)} cells"
        if not np.isin(cells, r["run"]).all():
            yield f"weights/{number} is of other cells"


def _contradictions(r: Results) -> Iterator[str]:
    """Values that say the same thing in two ways, and differ."""
    for path, values in r.grid.axes.items():
        if path in r.grid.settings:
            continue
        for value in values:
            try:
                r.grid.experiment.replace(**{path: value})
            except UsageError as error:
                yield f"an axis of its grid cannot be: {error}"
                return
    status, done = r["status"], r["steps_done"]
    diverged = r["diverged_at"] >= 0 if "diverged_at" in r else status == DIVERGED
    if ((status == DIVERGED) != diverged).any():
        yield "status and diverged_at contradict each other"
    if (diverged & (done != r["diverged_at"] - 1)).any():
        yield "steps_done and diverged_at contradict each other"
    if ((status == PENDING) & (done > 0)).any() or ((status == RUNNING) & (done == 0)).any():
        yield "status and steps_done contradict each other"
    budget = np.asarray(_column(r.grid, "steps", r["run"]))
    early = (status == OK) & (done < budget)
    if (early & (done != np.maximum(r["t_train"], r["t_val"]))).any():
        yield "steps_done, t_train and t_val contradict each other"
    if (early & ((r["t_train"] < 0) | (r["t_val"] < 0))).any():
        yield "cells have stopped before anything was reached"
    if r.complete != bool(np.isin(status, (OK, DIVERGED)).all()):
        yield "it is called complete, or is, but not both"
    if (r["phase"] != _phases(r)).any():
        yield "phase does not follow from the rest"


def _phases(r: Results) -> NDArray[np.int8]:
    """The phases again; as they are where their rule is a user's own."""
    rule = r.rule
    if type(rule) not in (PhaseRule, InversionRule) or PHASE_RULES.get(rule.name) is not type(rule):
        return r["phase"]
    own = any(r.grid.varies(f"phase.{name}") for name in rule.to_dict())
    if type(rule) is PhaseRule and not own:  # which looks at nothing else of a cell
        return classify(r["t_train"], r["t_val"], rule, finished=r.finished())
    return r.phases()
