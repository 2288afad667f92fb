"""Variables over the cells of a grid: what single results and aggregates of replicates share."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.fields import short_name
from grokfast.grid import Grid
from grokfast.phases import Rule, counts, sentence_of

#: Hyperparameters that every file has, whether or not they are an axis.
ALWAYS = ("optimizer.lr", "optimizer.weight_decay", "task.seed", "model.seed")


class Cells:
    """Named arrays over the cells of a grid, or of a part of it.

    Attributes:
        grid: the experiment and its axes.
        variables: name -> (dimension names, array); every array has ``run`` first, except the
            coordinates ``run``, ``step``, ``snapshot``, which have their own dimension.
        provenance: versions, device, engine, times; plain JSON values.
    """

    grid: Grid
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    provenance: dict[str, Any]

    def phases(self, budget: int | None = None) -> NDArray[np.int8]:
        """Phase code of each cell, int8 ``[run]``: index into ``rule.phases``, -1 unknown."""
        raise NotImplementedError

    def finished(self, budget: int | None = None) -> NDArray[np.bool_]:
        """Whether a cell will not change any more, or not before the budget, ``[run]``."""
        raise NotImplementedError

    def moments(self, name: str, budget: int | None = None) -> NDArray[np.float64]:
        """Steps of ``t_train``, of ``t_val``, of their difference, ``delay``, or of the first
        crossing of a further threshold, such as ``t_val_0.99``; float ``[run]``.

        inf: never; -inf: the difference where only validation was reached; NaN: not known yet.
        """
        raise NotImplementedError

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of a variable, e.g. ``results["t_train"]`` (int64 ``[run]``).

        Raises:
            UsageError: no such variable.
        """
        if name not in self.variables:
            raise UsageError(f"no variable {name!r}; there are {', '.join(self.variables)}")
        return self.variables[name][1]

    def __contains__(self, name: str) -> bool:
        return name in self.variables

    def __len__(self) -> int:
        """Number of cells."""
        return len(self["run"])

    @property
    def trained(self) -> Grid:
        """The grid of all cells that these stand for."""
        return self.grid

    def value_in(self, cell: int, path: str) -> Any:
        """Value of a field in the cell at a position; None where its replicates differ in it."""
        return self.grid.cells[int(self["run"][cell])].get(path)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The distinct rules of the phases: several where a part of the rule is an axis."""
        grid, own = self.trained, self.grid.experiment.phase
        values = {f.name: grid.values_of(f"phase.{f.name}") for f in fields(own)}
        if any(len(several) > 1 for several in values.values()):
            return tuple(dict.fromkeys(cell.phase for cell in grid.cells))
        return (replace(own, **{name: value for name, (value,) in values.items()}),)

    @property
    def rule(self) -> Rule:
        """Of the phases; where there are several, one of :attr:`rules`: all have the same phases,
        but their numbers are those of some cells only."""
        return self.rules[0]

    @property
    def definition(self) -> str:
        """What decides on phases, of several rules with the ranges of their numbers."""
        return sentence_of(self.rules)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Short axis name -> values."""
        return {short_name(path): values for path, values in self.grid.axes.items()}

    def counts(self) -> dict[str, int]:
        """Cells per phase, all always present."""
        return counts(self.phases(), self.rule.phases)

    def on_grid(self, name: str | NDArray[Any]) -> NDArray[Any]:
        """A ``[run]`` variable (or any array over cells) as an array over the axes.

        Returns:
            Array of shape ``tuple(len(v) for v in axes.values()) + rest``; cells that this file
            does not hold are -1 for integers, NaN for floats, "" for text.
        """
        values = self[name] if isinstance(name, str) else np.asarray(name)
        shape = tuple(len(v) for v in self.grid.axes.values())
        empty: Any = {"f": np.nan, "i": -1, "u": 0, "b": False}.get(values.dtype.kind, "")
        full = np.full((self.grid.size, *values.shape[1:]), empty, values.dtype)
        full[self["run"]] = values
        return full.reshape(*shape, *values.shape[1:])

    def find(self, **values: Any) -> int:
        """Position of the one cell nearest to the given axis values (numbers: nearest in value,
        relative to the spacing on a log scale where all are positive; text: equal). ``None`` and
        ``"none"`` name the cells of an axis that have no value there.

        Raises:
            UsageError: no such axis, a number beyond its ends by more than a spacing, or values
                that still leave several cells.
        """
        found = np.flatnonzero(self.matching(**values))
        if len(found) != 1:
            given = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UsageError(
                f"{len(found)} cells match {given or 'no values'}; "
                f"name one with all of {', '.join(self.axes)}"
            )
        return int(found[0])

    def matching(self, **values: Any) -> NDArray[np.bool_]:
        """The cells that are nearest to given axis values as :meth:`find` takes them, ``[run]``.

        Raises:
            UsageError: no such axis, or a number beyond its ends by more than a spacing.
        """
        chosen = np.ones(len(self), bool)
        for name, wanted in values.items():
            key = short_name(name)
            if key not in self.variables:
                raise UsageError(f"unknown axis {name!r}", hint=f"axes are {', '.join(self.axes)}")
            column = self[key]
            if column.dtype.kind == "f" and str(wanted).lower() == "none":  # as which NaN stands
                chosen &= np.isnan(column)
            elif column.dtype.kind in "fiu":
                chosen &= column == _nearest(column, wanted, name)
            else:
                chosen &= column == _equal(column, "none" if wanted is None else wanted, key)
        return chosen

    @property
    def hyperparameters(self) -> list[str]:
        """Short names of the per-cell hyperparameter variables."""
        return list(dict.fromkeys(short_name(p) for p in (*self.grid.axes, *ALWAYS)))


def _equal(column: NDArray[Any], wanted: Any, name: str) -> Any:
    """The value that reads as this one: 5 is found as 5.0."""
    values = list(dict.fromkeys(column.tolist()))
    for value in values:
        if str(value) == str(wanted) or _number(value) == _number(wanted) is not None:
            return value
    some = ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
    text = f"{wanted:g}" if isinstance(wanted, float) else wanted
    raise UsageError(f"no cell has {name} {text}; there are {some}")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _nearest(column: NDArray[Any], wanted: Any, name: str) -> Any:
    try:
        target = float(wanted)
    except (TypeError, ValueError):
        raise UsageError(f"{name}={wanted!r} is no number") from None
    values = np.unique(column[~np.isnan(column)])
    if not len(values):
        raise UsageError(f"no cell has {short_name(name)} {target:g}; it is none in all of them")
    log = target > 0 and bool((values > 0).all())
    at, goal = (np.log(values), np.log(target)) if log else (values, target)
    widest = np.diff(at).max(initial=0.0) or (0.05 if log else 0.05 * abs(at[0]))
    nearest = int(np.abs(at - goal).argmin())
    if not abs(at[nearest] - goal) <= widest:
        raise UsageError(
            f"{short_name(name)} {target:g} is beyond the run's {values[0]:g} to {values[-1]:g}"
        )
    return values[nearest]
