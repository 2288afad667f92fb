"""A Grid: an Experiment and named axes -> cells, each with its own hyperparameters."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from grokfast.errors import UsageError
from grokfast.experiment import MALFORMED, Experiment
from grokfast.fields import (
    SHORT_NAMES,
    as_field_type,
    check_text,
    check_type,
    is_tuple,
    resolve_field,
    scalar_fields,
    short_name,
    tolerate,
    value_text,
)

#: Fields of the optimizer that may differ between cells trained together: they are numbers, not
#: operations.
PER_CELL = (
    "lr",
    "weight_decay",
    "encoder_lr",
    "encoder_weight_decay",
    "warmup",
    "weight_decay_memorised",
)

#: Name of a setting's value -> field -> value.
Setting = Mapping[str, Mapping[str, Any]]

#: Numbers this close, relatively, are one number, written by two machines.
_ROUNDING = 1e-12
#: Values of an axis that a message names, at most.
_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The product of axes over one experiment; the last axis varies fastest.

    Attributes:
        experiment: the values of every field that is not an axis.
        axes: dotted field name, or name of a setting -> its distinct values, in the order of the
            cells.
        name: the preset it comes from, for titles and default file names.
        settings: named settings: each value of such an axis is a name that stands for values of
            several fields, as a batch size with its learning rate and budget.

    Raises:
        UsageError: an axis that is empty, repeats a value or names no field; a field that two axes
            give, or values of a setting that stand for the same.
    """

    experiment: Experiment
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    name: str = "experiment"
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text("the name of the grid", self.name)
        for name, setting in self.settings.items():
            for text in (name, *setting):
                check_text("a name of a setting", text)
            if "." in name or name in (*scalar_fields(self.experiment), *SHORT_NAMES):
                raise UsageError(f"setting {name!r} has the name of a field; choose another")
            for path in (path for stands_for in setting.values() for path in stands_for):
                resolve_field(self.experiment, path)
        for path, values in self.axes.items():
            self.resolve(path)
            if not values:
                raise UsageError(f"axis {short_name(path)} has no values")
            if len(set(values)) != len(values):
                twice = next(v for v in values if values.count(v) > 1)
                raise UsageError(f"axis {short_name(path)} has the value {twice!r} twice")
            if path in self.settings:
                self._check_setting(path, values)
        for path, name in self.given.items():
            if path in self.axes:
                raise UsageError(f"{short_name(path)} is an axis, and given by the setting {name}")

    def _check_setting(self, name: str, values: tuple[str, ...]) -> None:
        stands_for = [self._setting(name, value) for value in values]
        for k, (value, fields) in enumerate(zip(values, stands_for, strict=True)):
            if fields in stands_for[:k]:
                same = values[stands_for.index(fields)]
                raise UsageError(
                    f"{same} and {value} of the setting {name} stand for the same: "
                    f"{_assignments(fields) or 'nothing'}",
                    hint=f"choose one of {name}, or other fields",
                )
            for path in fields:
                if self.given[path] != name:
                    raise UsageError(
                        f"{short_name(path)} is given by the settings {name} and {self.given[path]}"
                    )

    @cached_property
    def given(self) -> dict[str, str]:
        """Fields whose values follow from a setting among the axes: dotted name -> its name."""
        return {
            path: name
            for name, values in self.axes.items()
            if name in self.settings
            for value in values
            for path in self._setting(name, value)
        }

    def grid(self, **axes: Any) -> Grid:
        """A copy with axes replaced: a scalar fixes a field, several values make an axis.

        Names are short or dotted (``**{"task.p": [10, 12]}``), or of a setting. A field that is an
        axis already keeps its place among the axes; the rest are appended. A field named here is
        no longer given by any setting.
        """
        scalars: dict[str, Any] = {}
        several: dict[str, list[Any]] = {}
        chosen: dict[str, str] = {}  # the one value of a setting
        # One value of a field that is a tuple is a tuple; several are a list of them.
        kinds = {p: tuple for p, k in scalar_fields(self.experiment).items() if is_tuple(k)}
        for name, values in axes.items():
            path = self.resolve(name)
            if path in self.settings and isinstance(values, str):
                chosen[path] = values
            elif isinstance(values, kinds.get(path, str)) or not isinstance(values, Iterable):
                scalars[path] = values
            else:
                several[path] = list(values)
        stands_for = {f: v for pair in chosen.items() for f, v in self._setting(*pair).items()}
        # All scalars at once: one of them may only be possible together with another.
        experiment = self.experiment.replace(**stands_for | scalars)
        gone = (*scalars, *chosen, *stands_for)
        merged = {path: values for path, values in self.axes.items() if path not in gone}
        for path, many in several.items():
            if path in self.settings:
                merged[path] = tuple(many)
            else:
                merged[path] = tuple(experiment.replace(**{path: v}).get(path) for v in many)
        explicit = {*scalars, *several}
        settings = {
            name: self._without(setting, explicit) for name, setting in self.settings.items()
        }
        return replace(self, experiment=experiment, axes=merged, settings=settings)

    def setting(self, name: str, values: Setting) -> Grid:
        """A copy with a named setting as an axis, in the place of one of this name. The fields that
        it gives are no longer axes, or given by other settings.

        ``grid.setting("batch", {"8": {"batch_size": 8, "lr": 1e-3}, "full": {"batch_size": 0}})``

        Raises:
            UsageError: as :class:`Grid`.
        """
        given = {resolve_field(self.experiment, f) for fields in values.values() for f in fields}
        axes = {path: v for path, v in self.axes.items() if path not in given}
        settings = {other: self._without(own, given) for other, own in self.settings.items()}
        return replace(self, axes=axes | {name: tuple(values)}, settings=settings | {name: values})

    def _without(self, setting: Setting, paths: set[str]) -> Setting:
        """A setting that leaves some fields alone."""
        return {
            value: {
                f: v for f, v in fields.items() if resolve_field(self.experiment, f) not in paths
            }
            for value, fields in setting.items()
        }

    def resolve(self, name: str) -> str:
        """Dotted name of a field, or the name of a setting.

        Raises:
            UsageError: neither.
        """
        return name if name in self.settings else resolve_field(self.experiment, name)

    def _setting(self, name: str, value: str) -> Mapping[str, Any]:
        """The fields that one value of a setting stands for.

        Raises:
            UsageError: no such value.
        """
        if value not in self.settings[name]:
            known = ", ".join(self.settings[name])
            raise UsageError(f"{name}={value!r} is not one of {known}")
        fields = self.settings[name][value]
        return {resolve_field(self.experiment, f): v for f, v in fields.items()}

    def varies(self, path: str) -> bool:
        """Whether a field may differ between cells."""
        return path in self.axes or path in self.given

    def axis(self, name: str) -> str:
        """The dotted name of an axis, by that or its short name.

        Raises:
            UsageError: no axis has this name.
        """
        known = {short_name(path): path for path in self.axes}
        path = known.get(short_name(name))
        if path is None:
            close = difflib.get_close_matches(name, known, n=1)
            axes = f"axes are {', '.join(known)}" if known else "there is a single cell"
            raise UsageError(
                f"{name!r} is no axis of these results",
                hint=f"did you mean {close[0]}?" if close else axes,
            )
        return path

    def values_of(self, path: str) -> tuple[Any, ...]:
        """The distinct values that a field, or a setting, has among the cells; in the order of its
        axis where it is one."""
        if path in self.axes:
            return self.axes[path]
        usual, name = self.experiment.get(path), self.given.get(path)
        if name is None:
            return (usual,)
        found = (self._setting(name, value).get(path, usual) for value in self.axes[name])
        return tuple(dict.fromkeys(found))

    def described(self, path: str) -> tuple[Any, ...]:
        """The values of an axis; of a setting with what each stands for:
        ``8:batch_size=8,lr=0.001``."""
        values = self.axes.get(path, ())
        if path not in self.settings:
            return values
        return tuple(f"{value}:{_assignments(self._setting(path, value))}" for value in values)

    def aligned(self, other: Grid) -> Grid:
        """This grid with the other's own value wherever the two are the same number.

        Cells are known by their values, and a value that was computed twice (on another machine,
        by another version, from another spelling) may differ in its last digits. Numbers are the
        same to a relative 1e-12; a value that is not the other's is left as it is.
        """
        a, b = self._values(), other._values()
        if a["task"] != b["task"]:
            return self
        fixed: dict[str, Any] = {}
        axes = dict(self.axes)
        for path in a.keys() & b.keys():
            mine, theirs = ((v if isinstance(v, tuple) else (v,)) for v in (a[path], b[path]))
            new = _aligned(mine, theirs)
            if new == mine:
                continue
            if path in axes:
                axes[path] = new
            else:
                fixed[path] = new[0]
        if not fixed and axes == self.axes:
            return self
        return replace(self, experiment=self.experiment.replace(**fixed), axes=axes)

    def difference(self, other: Grid) -> dict[str, str]:
        """The fields in which another grid differs from this one: name -> ``this -> other``, of
        an axis the values that the two do not share."""
        a, b = (
            grid._values() | {name: grid.described(name) for name in grid.axes}
            for grid in (self, other)
        )
        return {
            short_name(p): _change(a.get(p), b.get(p))
            for p in dict.fromkeys((*a, *b))
            if a.get(p) != b.get(p)
        }

    def _values(self) -> dict[str, Any]:
        """Field -> value, of an axis the tuple of its values; the names of the task and of the
        phase rule under ``task`` and ``phase``."""
        e = self.experiment
        fixed = {p: e.get(p) for p in scalar_fields(e)}
        return {"task": e.task.name, "phase": e.phase.name, **fixed, **self.axes}

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(len(v) for v in self.axes.values())

    @property
    def budgets(self) -> tuple[int, ...]:
        """Steps of the cells, one for each value of the axis along which they differ, if any."""
        usual = self.experiment.steps
        name = self.given.get("steps")
        if name is not None:
            return tuple(self._setting(name, v).get("steps", usual) for v in self.axes[name])
        return self.axes.get("steps", (usual,))

    @cached_property
    def cells(self) -> tuple[Experiment, ...]:
        """Every cell's own experiment, in the order of the flat cell index."""
        return tuple(self._cell(values) for values in itertools.product(*self.axes.values()))

    def _cell(self, values: Sequence[Any]) -> Experiment:
        fields: dict[str, Any] = {}
        for path, value in zip(self.axes, values, strict=True):
            fields |= self._setting(path, value) if path in self.settings else {path: value}
        return self.experiment.replace(**fields)

    def column(self, path: str, indices: Iterable[int]) -> list[Any]:
        """Value of a field, or name of a setting's value, in each listed cell."""
        if path not in self.settings:
            return [self.cells[i].get(path) for i in indices]
        names = list(itertools.product(*self.axes.values()))
        at = list(self.axes).index(path)
        return [names[i][at] for i in indices]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of every cell, what finds its results and its state in the files of another grid: a
        cell with another budget is the same cell, except where :attr:`budget_counts`, or where
        values of a setting differ in nothing else."""
        keys = tuple(cell.identity() for cell in self.cells)
        if not self.budget_counts and len(set(keys)) == len(keys):
            return keys
        return tuple(f"{key} {cell.steps}" for key, cell in zip(keys, self.cells, strict=True))

    @cached_property
    def budget_counts(self) -> bool:
        """Whether a cell with another budget is another cell: budgets are an axis, or accuracies
        are looked at when a budget ends."""
        ends = (cell.evaluation.schedule == "end" for cell in self.cells)
        return "steps" in self.axes or any(ends)

    def shard(self, index: int, count: int) -> list[int]:
        """Flat indices of shard ``index`` of ``count``, 1 to ``count``: every count-th cell from
        cell ``index`` on, of the last shard from cell 0 on.

        Raises:
            UsageError: not 1 <= index <= count, or more shards than cells.
        """
        if not 1 <= index <= count:
            raise UsageError(
                f"there is no shard {index}/{count}",
                hint=f"shards are counted from 1: 1/{count} to {count}/{count}"
                if count > 0
                else "an example: 1/4",
            )
        cells = list(range(index % count, self.size, count))
        if not cells:
            raise UsageError(f"shard {index}/{count} has no cells: the grid has only {self.size}")
        return cells

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "experiment": self.experiment.to_dict(),
            # A list, because JSON objects have no order and the last axis varies fastest.
            "axes": [[path, list(values)] for path, values in self.axes.items()],
            **({"settings": self.settings} if self.settings else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Grid:
        """The inverse of :meth:`to_dict`.

        Raises:
            UsageError: data that no grid gives.
        """
        try:
            grid = cls(
                experiment=Experiment.from_dict(data["experiment"]),
                axes={
                    path: tuple(tuple(v) if isinstance(v, list) else v for v in values)
                    for path, values in data["axes"]
                },
                name=_text(data["name"]),
                settings=data.get("settings", {}),
            )
            grid._check_types()
            return grid
        except MALFORMED as error:
            raise UsageError(f"this describes no grid ({type(error).__name__}: {error})") from error

    def _check_types(self) -> None:
        """Raises UsageError where an axis or a setting has a value of another type than its field:
        those that are read from files have not gone through the experiment's own checks."""
        kinds = scalar_fields(self.experiment)
        stands_for = [fields for setting in self.settings.values() for fields in setting.values()]
        several = [(f, (v,)) for fields in stands_for for f, v in fields.items()]
        several += [pair for pair in self.axes.items() if pair[0] not in self.settings]
        for name, values in several:
            path = resolve_field(self.experiment, name)
            for value in values:
                tolerate(kinds[path], value)
                check_type(path, as_field_type(kinds[path], value), kinds[path])

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Grid:
        """The inverse of :meth:`to_json`; raises UsageError as :meth:`from_dict`."""
        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"this is no JSON of a grid: {error}") from error
        return cls.from_dict(data)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value


def same_number(a: Any, b: Any) -> bool:
    """Whether two values are equal, or numbers that differ by rounding alone."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_ROUNDING)
    return bool(a == b)


def _aligned(mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> tuple[Any, ...]:
    """``mine`` with each value that is not among ``theirs`` replaced by the one there that is the
    same number; no two by the same, and none by one that is among ``mine`` already."""
    free = [value for value in theirs if value not in mine]
    new = []
    for value in mine:
        match = next((v for v in free if value not in theirs and same_number(value, v)), None)
        if match is not None:
            free.remove(match)
        new.append(value if match is None else match)
    return tuple(new)


def _change(old: Any, new: Any) -> str:
    """``old -> new``, of axes the values that are not in both."""
    before, after = ((v if isinstance(v, tuple) else (v,)) for v in (old, new))
    lost = [v for v in before if v not in after]
    added = [v for v in after if v not in before]
    if not lost and not added:
        return "the same values, arranged in another way"
    same = len(before) - len(lost)
    rest = f" ({same} more the same)" if same else ""
    return f"{_listed(lost)} -> {_listed(added)}{rest}"


def _assignments(fields: Mapping[str, Any]) -> str:
    return ",".join(f"{short_name(path)}={value_text(v)}" for path, v in fields.items())


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return (", ".join(map(value_text, values[:_LISTED])) or "nothing") + more


def static_key(cell: Experiment) -> str:
    """Equal for cells that share shapes and operations and so may train together."""
    data = cell.to_dict()
    data["task"] = None  # its data may differ; of which shape they are, others look at
    data["model"] |= dict.fromkeys(("seed", *cell.model.per_cell))
    data["optimizer"] |= dict.fromkeys(PER_CELL)
    return json.dumps(data, sort_keys=True)
