"""Replicates put together: the phase that most have, medians of steps, means of curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.cells import Cells
from grokfast.errors import UsageError, counted
from grokfast.fields import short_name
from grokfast.grid import Grid
from grokfast.observables import UNORDERED
from grokfast.phases import UNKNOWN
from grokfast.results import DIVERGED, INTERNAL, OK, PENDING, Results, hyperparameter_columns

#: Steps whose median and quantiles are taken, besides the crossings of further thresholds.
MOMENTS = ("t_train", "t_val", "delay")


@dataclass(frozen=True, eq=False)
class Aggregate(Cells):
    """What the replicates of each cell have in common; drawn by the same figures as Results.

    The variables are ``[run]`` unless said otherwise; a cell of the grid here stands for all cells
    of the run that differ from it in the axes ``over`` only. A replicate that the file does not
    hold, or that is not finished, is missing.

    - ``replicates``, ``missing``: those whose phase is known, and the others;
    - ``votes`` ``[run, phase]``, ``phase``, ``share``: how many have each phase, the one that most
      have (of equal votes the one that comes first in ``rule.phases``; -1 for no votes), and its
      part of the votes;
    - ``diverged``, ``status``: how many diverged, and whether most did;
    - ``t_train``, ``t_val``, ``delay`` (T_val - T_train) and the crossings of further thresholds
      (``t_val_0.99``), with ``_low`` and ``_high``: median and quantiles, interpolated. A step that
      was never reached lies beyond the budget and counts as inf; a median or quantile of inf is
      censored: larger than the ``budget`` of the cell;
    - every float of the run, such as curves ``[run, step]``, final accuracies and observables
      ``[run, observed, ...]``, with ``_std`` and ``_count``: mean and standard deviation (of a
      sample, n - 1) over the replicates that have a finite value there, and their number; NaN where
      there is none, or for the deviation fewer than two. One that stopped early no longer counts
      after its last step. Observables of things that do not correspond in two replicates, as
      neurons, have no mean and are left out.

    Attributes:
        grid: without the axes that were put together.
        over: short name -> values of these.
        variables, provenance: see :class:`grokfast.cells.Cells`.
        budget: the step as of which all this is; ``None`` for all that was trained.
        quantiles: what ``_low`` and ``_high`` are.
    """

    grid: Grid
    over: dict[str, tuple[Any, ...]]
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    provenance: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    quantiles: tuple[float, float] = (0.25, 0.75)

    def __repr__(self) -> str:
        over = " x ".join(f"{len(values)} {name}" for name, values in self.over.items())
        cells = counted(len(self), "cell")
        return f"<Aggregate of {self.grid.name}: {cells} over {over}, {self.counts()}>"

    @cached_property
    def trained(self) -> Grid:
        grid = self.grid
        over = {grid.resolve(name): values for name, values in self.over.items()}
        return replace(grid, axes=grid.axes | over)

    def value_in(self, cell: int, path: str) -> Any:
        over = replace(self.trained, axes={self.grid.resolve(n): v for n, v in self.over.items()})
        return None if len(over.values_of(path)) > 1 else super().value_in(cell, path)

    @property
    def hyperparameters(self) -> list[str]:
        """Short names of the hyperparameters that the replicates share."""
        return [name for name in super().hyperparameters if name not in self.over]

    def phases(self, budget: int | None = None) -> NDArray[np.int8]:
        """The phase of most replicates, int8 ``[run]``."""
        self._as_of(budget)
        return self["phase"]

    def finished(self, budget: int | None = None) -> NDArray[np.bool_]:
        """Whether at least one replicate is, ``[run]``."""
        self._as_of(budget)
        return self["status"] != PENDING

    def moments(self, name: str, budget: int | None = None) -> NDArray[np.float64]:
        """The medians."""
        self._as_of(budget)
        return self[name]

    def _as_of(self, budget: int | None) -> None:
        if budget not in (None, self.budget):
            raise UsageError(
                f"these replicates were put together as of {self.budget or 'all'} steps, not "
                f"{budget}",
                hint=f"results.aggregate(over, budget={budget})",
            )

    def columns(self) -> dict[str, NDArray[Any]]:
        """Column name -> one value a cell, the phase by name, the votes under ``votes.PHASE``."""
        names = self.rule.phases
        columns = {n: v for n, (dims, v) in self.variables.items() if dims == ("run",)}
        columns["phase"] = np.array([*names, ""], object)[self["phase"]]
        votes = {f"votes.{name}": self["votes"][:, k] for k, name in enumerate(names)}
        del columns["status"]
        return columns | votes


def aggregate(
    results: Results,
    over: str | Sequence[str],
    *,
    budget: int | None = None,
    quantiles: tuple[float, float] = (0.25, 0.75),
) -> Aggregate:
    """Puts the cells together that differ in some axes only, as seeds.

    Args:
        results: of a whole grid, of a shard or of a run under way.
        over: axes, short or dotted: ``"model_seed"``, or several.
        budget: as of this many steps. Curves end there.
        quantiles: two between 0 and 1, of the steps.

    Raises:
        UsageError: no such axis, one of budgets, or a budget that the rule cannot go back to.
    """
    grid, paths = results.grid, _paths(results, over)
    if not 0 <= quantiles[0] <= quantiles[1] <= 1:
        raise UsageError(f"quantiles are {quantiles}; give two ascending ones between 0 and 1")
    rest = replace(grid, axes={p: v for p, v in grid.axes.items() if p not in paths})
    names = {short_name(p): grid.axes[p] for p in grid.axes if p in paths}
    stack = _Stack.of(results, paths, rest.size)
    cells = np.arange(rest.size)
    columns: dict[str, NDArray[Any]] = {"run": cells}
    shared = hyperparameter_columns(rest, cells.tolist())
    columns |= {name: column for name, column in shared.items() if name not in names}
    steps = np.array([cell.steps for cell in rest.cells])
    columns["budget"] = steps if budget is None else np.minimum(steps, budget)
    votes = stack.votes(results.phases(budget), len(results.rule.phases))
    diverged = np.nansum(stack.rows(results["status"] == DIVERGED), axis=0).astype(np.int64)
    columns |= _majority(votes, stack.height, diverged)
    for name in (*MOMENTS, *results.crossings):
        steps = stack.rows(results.moments(name, budget))
        for suffix, q in zip(("", "_low", "_high"), (0.5, *quantiles), strict=True):
            columns[name + suffix] = quantile(steps, q)
    variables: dict[str, Any] = {name: (("run",), values) for name, values in columns.items()}
    variables["votes"] = (("run", "phase"), votes)
    return Aggregate(
        grid=rest,
        over=names,
        variables=variables | _means(results, stack, budget),
        provenance=results.provenance,
        budget=budget,
        quantiles=quantiles,
    )


def quantile(values: NDArray[Any], q: float) -> NDArray[np.float64]:
    """Quantile over the first axis, ``[R, ...]`` -> ``[...]``, of those that are not NaN.

    As NumPy's linear interpolation, but infinite values are in order with all others: between a
    finite and an infinite one lies the infinite one.
    """
    ordered = np.sort(np.asarray(values, float), axis=0)  # NaN last
    count = np.count_nonzero(~np.isnan(ordered), axis=0)
    place = q * np.maximum(count - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low, high = (np.take_along_axis(ordered, k[None], axis=0)[0] for k in (below, above))
    with np.errstate(invalid="ignore"):
        between = low + (place - below) * (high - low)
    between = np.where(np.isinf(high), high, np.where(np.isinf(low), low, between))
    return np.where((place == below) | (low == high), low, between)


@dataclass(frozen=True)
class _Stack:
    """Where each cell of the results goes: ``height`` replicates of each of ``size`` cells."""

    cell: NDArray[np.int64]  # [run]
    replicate: NDArray[np.int64]  # [run]
    size: int
    height: int

    @classmethod
    def of(cls, results: Results, paths: Sequence[str], size: int) -> _Stack:
        axes = results.grid.axes
        shape = tuple(len(values) for values in axes.values())
        index = np.unravel_index(results["run"], shape)

        def flat(wanted: Sequence[int]) -> NDArray[np.int64]:
            if not wanted:
                return np.zeros(len(results), np.int64)
            return np.ravel_multi_index([index[k] for k in wanted], [shape[k] for k in wanted])

        inner = [k for k, path in enumerate(axes) if path in paths]
        outer = [k for k, path in enumerate(axes) if path not in paths]
        return cls(flat(outer), flat(inner), size, math.prod(shape[k] for k in inner))

    def rows(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """``[run, ...]`` -> ``[replicate, cell, ...]``, NaN for what is not there."""
        full = np.full((self.height, self.size, *values.shape[1:]), np.nan)
        full[self.replicate, self.cell] = values
        return full

    def votes(self, phase: NDArray[np.int8], phases: int) -> NDArray[np.int64]:
        """How many replicates have each phase, ``[cell, phase]``."""
        known = phase != UNKNOWN
        votes = np.zeros((self.size, phases), np.int64)
        np.add.at(votes, (self.cell[known], phase[known]), 1)
        return votes


def _paths(results: Results, over: str | Sequence[str]) -> list[str]:
    """Dotted names of the axes."""
    found = []
    for name in [over] if isinstance(over, str) else over:
        path = results.grid.axis(name)
        if path == "steps":
            raise UsageError("cells with other budgets are no replicates; aggregate another axis")
        found.append(path)
    if not found:
        raise UsageError(
            "over names no axis", hint=f"axes are {', '.join(map(short_name, results.grid.axes))}"
        )
    return found


def _majority(
    votes: NDArray[np.int64], height: int, diverged: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    number = votes.sum(axis=1)
    phases = votes.shape[1]
    # argmax takes the first of equal votes; without any phase (a stand-in) there is none to take.
    phase = votes.argmax(axis=1) if phases else np.full(len(votes), UNKNOWN)
    status = np.where(2 * diverged > number, DIVERGED, OK)
    with np.errstate(invalid="ignore"):
        share = votes.max(axis=1, initial=0) / number
    return {
        "replicates": number,
        "missing": height - number,
        "phase": np.where(number, phase, UNKNOWN).astype(np.int8),
        "share": share,
        "diverged": diverged,
        "status": np.where(number, status, PENDING).astype(np.uint8),
    }


def _means(
    results: Results, stack: _Stack, budget: int | None
) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """Mean, deviation and number of every float of a cell, or of a cell and step."""
    found: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
    kept = {}  # of the values along these dimensions
    for dim in ("step", "observed"):
        if dim in results:
            steps = results[dim]
            end = len(steps) if budget is None else np.searchsorted(steps, budget, side="right")
            kept[dim] = slice(int(end))
            found[dim] = ((dim,), steps[kept[dim]])
    for name, (dims, values) in results.variables.items():
        floats = values.dtype.kind == "f" and name not in (*results.hyperparameters, *INTERNAL)
        if not floats or not (dims == ("run",) or dims[1:2] in (("step",), ("observed",))):
            continue
        if UNORDERED & set(dims):
            continue
        rows = stack.rows(values if dims == ("run",) else values[:, kept[dims[1]]])
        there = np.isfinite(rows)
        count = there.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(there, rows, 0).sum(axis=0) / count
            squares = np.where(there, rows - mean, 0) ** 2
            deviation = np.sqrt(squares.sum(axis=0) / np.where(count > 1, count - 1, np.nan))
        found[name] = (dims, mean)
        found |= {f"{name}_std": (dims, deviation), f"{name}_count": (dims, count)}
    return found
