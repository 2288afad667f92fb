"""Results seen in another way, without training: a slice, or phases by another rule."""

from __future__ import annotations

import difflib
from dataclasses import fields, replace
from typing import Any

import numpy as np

from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.fields import parse_value, scalar_fields
from grokfast.grid import Grid
from grokfast.outcomes import DIVERGED, OK, RUNNING, crossing_name
from grokfast.phases import PHASE_RULES, UNKNOWN, Rule
from grokfast.results import Results, listed_digests

#: Numbers of samples by which two rules are told apart that count other predictions as reached.
_SAMPLES = (*range(1, 2001), *(10**k for k in range(4, 10)))


def where(results: Results, **values: Any) -> Results:
    """See :meth:`grokfast.Results.where`."""
    grid = results.grid
    paths = [grid.axis(name) for name in values]
    if not paths:
        raise UsageError("where names no axis", hint=f"axes are {', '.join(results.axes)}")
    chosen = np.flatnonzero(results.matching(**values))
    if not len(chosen):
        given = ", ".join(f"{name} {value}" for name, value in values.items())
        raise UsageError(f"no cell has {given}")
    old = results["run"][chosen]
    fixed = {path: tuple(grid.column(path, old[:1].tolist())) for path in paths}
    rest = replace(grid, axes=grid.axes | fixed)
    index = np.unravel_index(old, [len(several) for several in grid.axes.values()])
    left = [
        np.zeros_like(at) if path in fixed else at
        for path, at in zip(grid.axes, index, strict=True)
    ]
    new = np.ravel_multi_index(left, [len(several) for several in rest.axes.values()])
    variables = {
        name: (dims, array[chosen] if dims[0] == "run" else array)
        for name, (dims, array) in results.variables.items()
    }
    variables["run"] = (("run",), new)
    numbered = dict(zip(old.tolist(), new.tolist(), strict=True))
    digests = results.data_digests()
    own = {identity: digests[identity] for identity in _data(rest, new.tolist()) if digests}
    known = {"data_sha256": listed_digests(own)} if own else {}
    return replace(
        results,
        grid=rest,
        variables=variables,
        weights=[part for bucket in results.weights if (part := _part(bucket, numbered))],
        provenance=results.provenance | known,
        complete=bool(np.isin(variables["status"][1], (OK, DIVERGED)).all()),
    )


def _data(grid: Grid, runs: list[int]) -> set[str]:
    return {grid.cells[run].data_identity() for run in runs}


def _part(bucket: dict[str, Any], numbered: dict[int, int]) -> dict[str, Any]:
    """The weights of some cells, which have new numbers."""
    kept = np.isin(bucket["run"], list(numbered))
    if not kept.any():
        return {}
    part = {name: array[kept] for name, array in bucket.items()}
    part["run"] = np.array([numbered[run] for run in part["run"].tolist()], bucket["run"].dtype)
    return part


def reread(results: Results, rule: str | None = None, **values: Any) -> Results:
    """See :meth:`grokfast.Results.reread`."""
    grid, own = results.grid, results.rule
    if rule is not None and rule not in PHASE_RULES:
        close = difflib.get_close_matches(rule, PHASE_RULES, n=1)
        raise UsageError(
            f"unknown phase rule {rule!r}; known are {', '.join(PHASE_RULES)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    kind = type(own) if rule is None else PHASE_RULES[rule]
    parts = [path for path in (*grid.axes, *grid.given) if path.startswith("phase.")]
    for path in (path for path in parts if path in grid.given or len(grid.axes[path]) > 1):
        if kind is not type(own) or path.removeprefix("phase.") in values:
            raise UsageError(
                f"{path} differs from cell to cell; phases can be read anew in a slice alone",
                hint=f"--where={path}:..., in Python results.where",
            )
    shared = {f.name for f in fields(kind)} & {f.name for f in fields(own)}
    kept = {name: getattr(own, name) for name in shared}
    experiment = replace(grid.experiment, phase=kind(**kept))
    experiment = experiment.replace(**_parsed(experiment, values))
    new = experiment.phase
    single = [path for path in parts if path in grid.axes and len(grid.axes[path]) == 1]
    axes = {path: several for path, several in grid.axes.items() if path not in single}
    read = replace(grid, experiment=experiment, axes=axes)
    variables = {name: pair for name, pair in results.variables.items() if name not in single}
    found = replace(results, grid=read, variables=variables)
    if not _counts_as(own, new):
        found = _at_threshold(found, results, own, new)
    found.variables["phase"] = (("run",), found.phases())
    if (found["phase"] == UNKNOWN).all() and (results["phase"] != UNKNOWN).any():
        raise UsageError(
            f"what rule {new.name} looks at is not in these results",
            hint="window needs curves: --record=curves:200" if new.window else None,
        )
    return found


def _parsed(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    """Values of fields of the rule by dotted name, read where they are texts."""
    known = [f.name for f in fields(experiment.phase)]
    kinds = scalar_fields(experiment)
    parsed = {}
    for name, value in values.items():
        path = f"phase.{name}"
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"rule {experiment.phase.name} has no {name!r}; it has {', '.join(known)}",
                hint=f"did you mean {close[0]}?" if close else None,
            )
        parsed[path] = parse_value(path, kinds[path], value) if isinstance(value, str) else value
    return parsed


def _counts_as(own: Rule, new: Rule) -> bool:
    """Whether both rules reach their thresholds with the same predictions."""
    return all(own.needed(samples) == new.needed(samples) for samples in _SAMPLES)


def _at_threshold(found: Results, results: Results, own: Rule, new: Rule) -> Results:
    """With T_train and T_val of a further threshold that was looked at while training. Cells that
    stopped before they were at it are not finished.

    Raises:
        UsageError: nobody looked.
    """
    names = {f"t_{part}": crossing_name(part, new.threshold) for part in ("train", "val")}
    known = results.crossings
    alike = _counts_as(replace(own, threshold=new.threshold), new)
    if not alike or not set(names.values()) <= set(known):
        others = sorted({float(name.rsplit("_", 1)[1]) for name in known})
        there = ", ".join(f"{threshold:g}" for threshold in (own.threshold, *others))
        raise UsageError(
            "T_train and T_val cannot be read anew: they were counted while training, with "
            f"accuracies of {there} as reached{_how(own)}",
            hint=f"train with --set=evaluation.thresholds={new.threshold:g}" if alike else None,
        )
    moments = {name: results.moments(crossing) for name, crossing in names.items()}
    unknown = np.zeros(len(results), bool)
    for name, steps in moments.items():
        unknown |= np.isnan(steps)
        reached = np.where(np.isfinite(steps), steps, -1)
        found.variables[name] = (("run",), reached.astype(np.int64))
    status = np.where(unknown & (results["status"] == OK), RUNNING, results["status"])
    found.variables["status"] = (("run",), status.astype(results["status"].dtype))
    return replace(found, complete=bool(np.isin(status, (OK, DIVERGED)).all()))


def _how(rule: Rule) -> str:
    """What else decides on that by a rule."""
    tolerance, strict = getattr(rule, "tolerance", 0.0), getattr(rule, "strict", False)
    parts = [f"tolerance {tolerance:g}"] * bool(tolerance) + ["strictly more"] * bool(strict)
    return f" ({', '.join(parts)})" if parts else ""
