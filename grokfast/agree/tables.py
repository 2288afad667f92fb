"""Tables to compare with: published ones, as JSON, and those of another results file.

``published/`` holds the published ones that come with grokfast: facts, each file with its source.
The JSON has one of three shapes:

- ``{"diagrams": [{"task", "activation", "data_seed", "model_seed", "weight_decay", "learning_rate",
  "letters", "phases": [one string a weight decay]}]}``: a letter for every cell;
- ``{"cells": [{"task", "lr", "wd", "t_train", "t_val", "phase"}]}``: steps, null for never;
- ``{"learning_rate", "weight_decay", "t_train_t_val": [[[T_train, T_val], ...], ...]}``: a full
  table of steps of the task ``mnist-original``, T_train 0 and T_val 150000 for never.

``task`` is a preset's name. What a table does not say (seeds, activation, budget), the preset does;
``source`` says where it comes from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.fields import short_name
from grokfast.phases import PHASES, UNKNOWN, classify
from grokfast.presets import PRESETS
from grokfast.results import Results

#: Where the tables that come with grokfast are.
PUBLISHED = Path(__file__).with_name("published")

#: The axes of a table; every other field is one of its experiment.
MATCHED = ("optimizer.lr", "optimizer.weight_decay")

_LETTERS = {"C": "comprehension", "G": "grokking", "M": "memorization", "F": "confusion"}
_LETTERS |= {"X": "confusion"}  # as in our own figures


@dataclass(frozen=True, eq=False)
class Table:
    """Phases, and steps where they are known, of C cells of one experiment."""

    title: str
    source: str
    experiment: Experiment  # of all cells, but for learning rate and weight decay
    lr: NDArray[np.float64]  # [C]
    weight_decay: NDArray[np.float64]  # [C]
    phase: NDArray[np.int8]  # [C]
    full_grid: bool  # whether the cells are all those of some learning rates and weight decays
    t_train: NDArray[np.int64] | None = None  # [C], -1 for never
    t_val: NDArray[np.int64] | None = None  # [C]
    tolerance: float = 0.02  # of steps, relative
    limit: int | None = 2999  # steps up to it are compared apart; later ones are chaotic in float32

    @property
    def interior(self) -> NDArray[np.bool_] | None:
        """``[C]``: cells whose neighbours share their phase; None where there are none to see."""
        if not self.full_grid:
            return None
        columns, lr = np.unique(self.lr, return_inverse=True)
        rows, decay = np.unique(self.weight_decay, return_inverse=True)
        phase = np.empty((len(rows), len(columns)), np.int8)
        phase[decay, lr] = self.phase
        return interior(phase)[decay, lr]

    def as_of(self, budget: int) -> Table:
        """The table as it was after that many steps; itself where it has phases alone."""
        if self.t_train is None or self.t_val is None:
            return self
        t_train, t_val = (np.where(t > budget, -1, t) for t in (self.t_train, self.t_val))
        phase = classify(t_train, t_val, self.experiment.phase)
        return replace(self, t_train=t_train, t_val=t_val, phase=phase)


def load_reference(path: str | Path | None = None) -> list[Table]:
    """The tables of a file: JSON, or another results file; by default the published ones.

    Raises:
        UsageError: no such file, or neither; the message names the place.
    """
    if path is None:
        return [t for file in sorted(PUBLISHED.glob("*.json")) for t in load_reference(file)]
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
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
        raise _Malformed("there is none of diagrams, cells and t_train_t_val")
    except _Malformed as error:
        raise UsageError(f"{path} is no table of phases or steps: {error}") from None


def _tables_of(results: Results, name: str) -> list[Table]:
    """One table for each combination of values of the axes besides those of a table.

    Cells whose phase is not known yet are left out.
    """
    others = [path for path in results.grid.axes if path not in MATCHED]
    phase, groups = results.phases(), dict[tuple[Any, ...], list[int]]()
    for k, run in enumerate(results["run"].tolist()):
        if phase[k] != UNKNOWN:
            cell = results.grid.cells[run]
            groups.setdefault(tuple(cell.get(path) for path in others), []).append(k)
    tables = []
    for values, cells in groups.items():
        fixed = dict(zip(others, values, strict=True))
        lr, decay = results["lr"][cells], results["weight_decay"][cells]
        tables.append(
            Table(
                title=_title(results.grid.name, {short_name(k): v for k, v in fixed.items()}),
                source=name,
                experiment=results.grid.experiment.replace(**fixed),
                lr=lr,
                weight_decay=decay,
                phase=phase[cells],
                full_grid=len(np.unique(lr)) * len(np.unique(decay)) == len(cells),
                t_train=results["t_train"][cells],
                t_val=results["t_val"][cells],
            )
        )
    return tables


class _Malformed(Exception):
    """What in the reference is not as it should be."""


def _items(data: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data[key]
    if not isinstance(entries, list) or not entries:
        raise _Malformed(f"{key} is no list, or empty")
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _Malformed(f"{key}[{k}] is no object")
        yield k, entry


def _diagram(data: dict[str, Any], where: str, file: dict[str, Any]) -> Table:
    lr, decay = _numbers(data, "learning_rate", where), _numbers(data, "weight_decay", where)
    letters = data.get("letters", _LETTERS)
    if not isinstance(letters, dict) or any(v not in PHASES for v in letters.values()):
        raise _Malformed(f"{where}.letters does not map letters to {', '.join(PHASES)}")
    rows: Any = data.get("phases")
    shape = (len(decay), len(lr))
    regular = isinstance(rows, list) and len(rows) == shape[0]
    if not regular or any(not isinstance(r, str) or len(r) != shape[1] for r in rows):
        raise _Malformed(f"{where}.phases is not {shape[0]} strings of {shape[1]} letters")
    for letter in sorted(set("".join(rows)) - set(letters)):
        raise _Malformed(f"{where}.phases has the letter {letter!r}, which letters does not")
    phase = np.array([[PHASES.index(letters[c]) for c in row] for row in rows], np.int8)
    title, experiment = _published(_task(data, where), data, where)
    return Table(
        title=title,
        source=str(file.get("source", "")),
        experiment=experiment,
        lr=np.tile(lr, len(decay)),
        weight_decay=np.repeat(decay, len(lr)),
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


def _cell_tables(data: dict[str, Any]) -> list[Table]:
    """One table for each task (and seeds, activation) of the list, in order of appearance."""
    groups: dict[str, tuple[Experiment, list[tuple[float, float, int, int, int]]]] = {}
    for k, entry in _items(data, "cells"):
        where = f"cells[{k}]"
        title, experiment = _published(_task(entry, where), entry, where)
        phase = entry.get("phase")
        if phase not in PHASES:
            raise _Malformed(f"{where}.phase is {phase!r}, not one of {', '.join(PHASES)}")
        row = (
            *(_number(entry.get(key), f"{where}.{key}") for key in ("lr", "wd")),
            *(_step(entry.get(key), f"{where}.{key}") for key in ("t_train", "t_val")),
            PHASES.index(phase),
        )
        groups.setdefault(title, (experiment, []))[1].append(row)  # type: ignore[arg-type]
    tables = []
    for title, (experiment, rows) in groups.items():
        lr, decay, t_train, t_val, phases = map(np.array, zip(*rows, strict=True))
        tables.append(
            Table(
                title=title,
                source=str(data.get("source", "")),
                experiment=experiment,
                lr=lr,
                weight_decay=decay,
                phase=phases.astype(np.int8),
                full_grid=False,  # a selection: those beside a cell here need not be its neighbours
                t_train=t_train,
                t_val=t_val,
            )
        )
    return tables


def _step_table(data: dict[str, Any]) -> Table:
    lr, decay = _numbers(data, "learning_rate", ""), _numbers(data, "weight_decay", "")
    task = _task({"task": "mnist-original", **data}, "the table")
    title, published = _published(task, data, "the table")
    try:
        steps = np.array(data["t_train_t_val"], np.int64)
    except (ValueError, TypeError, OverflowError):
        steps = np.empty(0, np.int64)
    if steps.shape != (len(decay), len(lr), 2):
        raise _Malformed(f"t_train_t_val is not {len(decay)} x {len(lr)} pairs of whole numbers")
    t_train, t_val = steps[..., 0], steps[..., 1]
    t_train = np.where(t_train <= 0, -1, t_train)
    t_val = np.where((t_val <= 0) | (t_val >= published.steps), -1, t_val)
    return Table(
        title=title,
        source=str(data.get("source", "")),
        experiment=published,
        lr=np.tile(lr, len(decay)),
        weight_decay=np.repeat(decay, len(lr)),
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
        raise _Malformed(f"{where}.task is {task!r}, not one of {', '.join(PRESETS)}")
    return task


def _published(task: str, data: dict[str, Any], where: str) -> tuple[str, Experiment]:
    """Title and experiment: the preset's, with the seeds and the activation that data name."""
    names = ("activation", "data_seed", "model_seed")
    fixed: dict[str, Any] = {k: data[k] for k in names if k in data}
    if isinstance(fixed.get("activation"), str):  # as papers write it: ReLU, LeakyReLU(0.1)
        plain = fixed["activation"].lower().replace("(0.1)", "")
        fixed["activation"] = "leaky_relu" if plain == "leakyrelu" else plain
    try:
        return _title(task, fixed), PRESETS[task].build().experiment.replace(**fixed)
    except UsageError as error:
        raise _Malformed(f"{where}: {error}") from None


def _title(name: str, fixed: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{k} {v}" for k, v in fixed.items())])


def _numbers(data: dict[str, Any], key: str, where: str) -> NDArray[np.float64]:
    name, values = f"{where}.{key}".lstrip("."), data.get(key)
    if not isinstance(values, list) or not values:
        raise _Malformed(f"{name} is no list of numbers")
    return np.array([_number(v, f"{name}[{k}]") for k, v in enumerate(values)])


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Malformed(f"{where} is {value!r}, not a finite number")
    return float(value)


def _step(value: Any, where: str) -> int:
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**62:
        raise _Malformed(f"{where} is {value!r}, neither a step nor null")
    return value
