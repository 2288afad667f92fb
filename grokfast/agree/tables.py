"""Tables to compare with: published ones, as JSON, and those of another results file.

``published/`` holds the published ones that come with grokfast: facts, each file with its source.
The JSON has one of four shapes:

- ``{"diagrams": [{"task", "activation", "data_seed", "model_seed", "set", "rows", "columns",
  "weight_decay", "learning_rate", "letters", "phases": [one string a row]}]}``: a letter for every
  cell. ``rows`` and ``columns`` name the axes, where these are not weight decay and learning rate;
  their values stand under these names. ``set`` holds further fields, by dotted name;
- ``{"axes", "cells": [{"task", "lr", "wd", "t_train", "t_val", "phase"}]}``: steps, null for never;
  ``axes`` are two names, where these are not lr and wd;
- ``{"measured": ...}``: losses and accuracies at steps (see :mod:`grokfast.agree.measured`);
- ``{"learning_rate", "weight_decay", "t_train_t_val": [[[T_train, T_val], ...], ...]}``: a full
  table of steps of the task ``mnist-original``, T_train 0 and T_val 150000 for never.

``task`` is a preset's name. What a table does not say (seeds, activation, budget), the preset does;
``source`` says where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from grokfast.agree.measured import Malformed, Measurements, is_finite, read_measured
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.fields import resolve_field, short_name
from grokfast.phases import UNKNOWN, PhaseRule, classify
from grokfast.presets import PRESETS
from grokfast.results import Results
from grokfast.storage.files import check_file, user_path

#: Where the tables that come with grokfast are.
PUBLISHED = Path(__file__).with_name("published")

#: The axes of a table that names no others; every other field is one of its experiment.
USUAL = ("optimizer.lr", "optimizer.weight_decay")

#: What tables call fields.
_ALIASES = {"learning_rate": "lr", "wd": "weight_decay"}

_LETTERS = {"F": "confusion"}  # besides those of our own figures


@dataclass(frozen=True, eq=False)
class Table:
    """Phases, and steps where they are known, of C cells of one experiment over two axes."""

    title: str
    source: str
    experiment: Experiment  # of all cells, but for the two axes
    axes: tuple[str, str]  # dotted names
    at: tuple[NDArray[Any], NDArray[Any]]  # the cells' values there, numbers or text, [C]
    phase: NDArray[np.int8]  # [C]
    full_grid: bool  # whether the cells are all those of some values of the two axes
    t_train: NDArray[np.int64] | None = None  # [C], -1 for never
    t_val: NDArray[np.int64] | None = None  # [C]
    tolerance: float = 0.02  # of steps, relative
    limit: int | None = 2999  # steps up to it are compared apart; later ones are chaotic in float32
    is_published: bool = True  # or of another results file

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.phase)

    @property
    def interior(self) -> NDArray[np.bool_] | None:
        """``[C]``: cells whose neighbours share their phase; None where there are none to see."""
        if not self.full_grid:
            return None
        columns, x = np.unique(self.at[0], return_inverse=True)
        rows, y = np.unique(self.at[1], return_inverse=True)
        phase = np.empty((len(rows), len(columns)), np.int8)
        phase[y, x] = self.phase
        return interior(phase)[y, x]

    def as_of(self, budget: int) -> Table:
        """The table as it was after that many steps; itself where it has phases alone, or phases
        that do not follow from steps."""
        rule = self.experiment.phase
        if self.t_train is None or self.t_val is None or not isinstance(rule, PhaseRule):
            return self
        t_train, t_val = (np.where(t > budget, -1, t) for t in (self.t_train, self.t_val))
        phase = classify(t_train, t_val, rule)
        return replace(self, t_train=t_train, t_val=t_val, phase=phase)


def load_reference(path: str | Path | None = None) -> list[Table | Measurements]:
    """The tables of a file: JSON, or another results file; by default the published ones.

    Raises:
        UsageError: no such file, or neither; the message names the place.
    """
    if path is None:
        return [t for file in sorted(PUBLISHED.glob("*.json")) for t in load_reference(file)]
    path = user_path(path)
    check_file(path)
    if h5py.is_hdf5(path):
        return _tables_of(Results.load(path), path.name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither JSON nor a results file: {error}") from error
    try:
        if isinstance(data, dict):
            if "diagrams" in data:
                return [_diagram(d, f"diagrams[{k}]", data) for k, d in _items(data, "diagrams")]
            if "cells" in data:
                return _cell_tables(data)
            if "t_train_t_val" in data:
                return [_step_table(data)]
            if "measured" in data:
                return [*read_measured(data)]
        raise Malformed("there is none of diagrams, cells and t_train_t_val, nor measured")
    except Malformed as error:
        raise UsageError(f"{path} is no table of phases, steps or curves: {error}") from None


def column(results: Results, path: str) -> NDArray[Any]:
    """The value of a field in each cell, ``[run]``."""
    if short_name(path) in results:
        return results[short_name(path)]
    return np.array([results.grid.cells[run].get(path) for run in results["run"].tolist()])


def _axes_of(results: Results) -> tuple[str, str]:
    """Learning rate and weight decay; where one of them does not vary, the longest numerical axis
    in its place, but no seed."""
    varied = {path: values for path, values in results.grid.axes.items() if len(values) > 1}
    usual = [path for path in USUAL if path in varied]
    numbers = [
        path
        for path, values in varied.items()
        if path not in USUAL and not path.endswith("seed") and isinstance(values[0], int | float)
    ]
    numbers.sort(key=lambda path: -len(varied[path]))
    first, second, *_ = dict.fromkeys([*usual, *numbers, *USUAL])
    return (second, first) if second == USUAL[0] else (first, second)


def _tables_of(results: Results, name: str) -> list[Table | Measurements]:
    """One table for each combination of values of the axes besides those of a table.

    Cells whose phase is not known yet are left out.
    """
    axes = _axes_of(results)
    others = [path for path in results.grid.axes if path not in axes]
    phase, groups = results.phases(), dict[tuple[Any, ...], list[int]]()
    columns = [results[short_name(path)].tolist() for path in others]
    for k in np.flatnonzero(phase != UNKNOWN).tolist():
        groups.setdefault(tuple(values[k] for values in columns), []).append(k)
    tables: list[Table | Measurements] = []
    x, y = (column(results, path) for path in axes)
    for values, cells in groups.items():
        fixed = dict(zip(others, values, strict=True))
        tables.append(
            Table(
                title=_title(results.grid.name, {short_name(k): v for k, v in fixed.items()}),
                source=name,
                experiment=results.grid.cells[results["run"][cells[0]]],
                axes=axes,
                at=(x[cells], y[cells]),
                phase=phase[cells],
                full_grid=len(np.unique(x[cells])) * len(np.unique(y[cells])) == len(cells),
                t_train=results["t_train"][cells],
                t_val=results["t_val"][cells],
                is_published=False,
            )
        )
    return tables


def _items(data: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data[key]
    if not isinstance(entries, list) or not entries:
        raise Malformed(f"{key} is no list, or empty")
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise Malformed(f"{key}[{k}] is no object")
        yield k, entry


def _diagram(data: dict[str, Any], where: str, file: dict[str, Any]) -> Table:
    names = [data.get(*side) for side in (("columns", "learning_rate"), ("rows", "weight_decay"))]
    if not all(isinstance(name, str) for name in names):
        raise Malformed(f"{where}: rows and columns are {names[1]!r} and {names[0]!r}, no names")
    x, y = (_values(data, name, where) for name in names)
    title, experiment = _published(_task(data, where), data, where)
    rule = experiment.phase
    known = rule.phases
    letters = data.get("letters", _LETTERS | dict(zip(rule.letters, known, strict=True)))
    if not isinstance(letters, dict) or any(v not in known for v in letters.values()):
        raise Malformed(f"{where}.letters does not map letters to {', '.join(known)}")
    rows: Any = data.get("phases")
    shape = (len(y), len(x))
    regular = isinstance(rows, list) and len(rows) == shape[0]
    if not regular or any(not isinstance(r, str) or len(r) != shape[1] for r in rows):
        raise Malformed(f"{where}.phases is not {shape[0]} strings of {shape[1]} letters")
    for letter in sorted(set("".join(rows)) - set(letters)):
        raise Malformed(f"{where}.phases has the letter {letter!r}, which letters does not")
    phase = np.array([[known.index(letters[c]) for c in row] for row in rows], np.int8)
    return Table(
        title=title,
        source=str(file.get("source", "")),
        experiment=experiment,
        axes=_paths(experiment, names, where),
        at=(np.tile(x, len(y)), np.repeat(y, len(x))),
        phase=phase.ravel(),
        full_grid=True,
    )


def interior(phase: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where all neighbours above, below, left and right, of those that exist, share the phase.

    Args:
        phase: of a full grid ``[rows, columns]``.
    """
    same = np.ones(phase.shape, bool)
    for axis in (0, 1):
        p, s = np.moveaxis(phase, axis, 0), np.moveaxis(same, axis, 0)
        equal = p[1:] == p[:-1]
        s[1:] &= equal
        s[:-1] &= equal
    return same


def _cell_tables(data: dict[str, Any]) -> list[Table | Measurements]:
    """One table for each task (and seeds, activation) of the list, in order of appearance."""
    axes = data.get("axes", ["lr", "wd"])
    if not isinstance(axes, list) or [type(name) for name in axes] != [str, str]:
        raise Malformed(f"axes is {axes!r}, not two names")
    groups: dict[str, tuple[Experiment, list[tuple[Any, Any, int, int, int]]]] = {}
    for k, entry in _items(data, "cells"):
        where = f"cells[{k}]"
        title, experiment = _published(_task(entry, where), entry, where)
        phase, known = entry.get("phase"), experiment.phase.phases
        if phase not in known:
            raise Malformed(f"{where}.phase is {phase!r}, not one of {', '.join(known)}")
        row = (
            *(_value(entry.get(key), f"{where}.{key}") for key in axes),
            *(_step(entry.get(key), f"{where}.{key}") for key in ("t_train", "t_val")),
            known.index(phase),
        )
        groups.setdefault(title, (experiment, []))[1].append(row)
    tables: list[Table | Measurements] = []
    for title, (experiment, rows) in groups.items():
        x, y, t_train, t_val, phases = map(np.array, zip(*rows, strict=True))
        tables.append(
            Table(
                title=title,
                source=str(data.get("source", "")),
                experiment=experiment,
                axes=_paths(experiment, axes, "cells"),
                at=(x, y),
                phase=phases.astype(np.int8),
                full_grid=False,  # a selection: those beside a cell here need not be its neighbours
                t_train=t_train,
                t_val=t_val,
            )
        )
    return tables


def _step_table(data: dict[str, Any]) -> Table:
    lr, decay = _values(data, "learning_rate", ""), _values(data, "weight_decay", "")
    task = _task({"task": "mnist-original", **data}, "the table")
    title, published = _published(task, data, "the table")
    try:
        steps = np.array(data["t_train_t_val"], np.int64)
    except (ValueError, TypeError, OverflowError):
        steps = np.empty(0, np.int64)
    if steps.shape != (len(decay), len(lr), 2):
        raise Malformed(f"t_train_t_val is not {len(decay)} x {len(lr)} pairs of whole numbers")
    t_train, t_val = steps[..., 0], steps[..., 1]
    t_train = np.where(t_train <= 0, -1, t_train)
    t_val = np.where((t_val <= 0) | (t_val >= published.steps), -1, t_val)
    return Table(
        title=title,
        source=str(data.get("source", "")),
        experiment=published,
        axes=USUAL,
        at=(np.tile(lr, len(decay)), np.repeat(decay, len(lr))),
        phase=classify(t_train, t_val, published.phase).ravel(),
        full_grid=True,
        t_train=t_train.ravel(),
        t_val=t_val.ravel(),
        tolerance=0.1,
        limit=None,
    )


def _task(data: dict[str, Any], where: str) -> str:
    task = data.get("task")
    if not isinstance(task, str) or task not in PRESETS:
        raise Malformed(f"{where}.task is {task!r}, not one of {', '.join(PRESETS)}")
    return task


def _published(task: str, data: dict[str, Any], where: str) -> tuple[str, Experiment]:
    """Title and experiment: the preset's, with the seeds and the activation that data name."""
    names = ("activation", "data_seed", "model_seed")
    fixed: dict[str, Any] = {k: data[k] for k in names if k in data}
    if isinstance(fixed.get("activation"), str):  # as papers write it: ReLU, LeakyReLU(0.1)
        plain = fixed["activation"].lower().replace("(0.1)", "")
        fixed["activation"] = "leaky_relu" if plain == "leakyrelu" else plain
    more = data.get("set", {})
    if not isinstance(more, dict):
        raise Malformed(f"{where}.set is no object")
    fixed |= more
    try:
        return _title(task, fixed), PRESETS[task].build().experiment.replace(**fixed)
    except UsageError as error:
        raise Malformed(f"{where}: {error}") from None


def _title(name: str, fixed: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{k} {v}" for k, v in fixed.items())])


def _paths(experiment: Experiment, names: Sequence[Any], where: str) -> tuple[str, str]:
    """Dotted names of the two axes."""
    try:
        first, second = (resolve_field(experiment, _ALIASES.get(n, n)) for n in names)
    except UsageError as error:
        raise Malformed(f"{where}: {error}") from None
    return first, second


def _values(data: dict[str, Any], key: Any, where: str) -> NDArray[Any]:
    """Numbers, or texts, of an axis."""
    name, values = f"{where}.{key}".lstrip("."), data.get(key)
    if not isinstance(values, list) or not values:
        raise Malformed(f"{name} is no list of numbers")
    if all(isinstance(v, str) for v in values):
        return np.array(values, object)
    return np.array([_number(v, f"{name}[{k}]") for k, v in enumerate(values)])


def _value(value: Any, where: str) -> Any:
    return value if isinstance(value, str) else _number(value, where)


def _number(value: Any, where: str) -> float:
    if not is_finite(value):
        raise Malformed(f"{where} is {value!r:.40}, not a finite number")
    return float(value)


def _step(value: Any, where: str) -> int:
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**62:
        raise Malformed(f"{where} is {value!r}, neither a step nor null")
    return value
