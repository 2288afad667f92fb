"""Published tables: reading and checking a reference file.

A reference is JSON of one of three shapes:

- ``{"diagrams": [{"task", "activation", "data_seed", "model_seed", "weight_decay", "learning_rate",
  "letters", "phases": [one string a weight decay]}]}``: a letter for every cell;
- ``{"cells": [{"task", "lr", "wd", "t_train", "t_val", "phase"}]}``: steps, null for never;
- ``{"learning_rate", "weight_decay", "t_train_t_val": [[[T_train, T_val], ...], ...]}``: a full
  table of steps of the task ``mnist-original``, T_train 0 and T_val 150000 for never.

``task`` is a preset's name. What a reference does not say (seeds, activation, budget), the preset
does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.phases import PHASES, classify
from grokfast.presets import PRESETS

_LETTERS = {"C": "comprehension", "G": "grokking", "M": "memorization", "F": "confusion"}
_LETTERS |= {"X": "confusion"}  # as in our own figures


@dataclass(frozen=True, eq=False)
class Table:
    """One published table of C cells."""

    task: str  # preset name
    fixed: dict[str, Any]  # short name -> value that the reference names
    lr: NDArray[np.float64]  # [C]
    weight_decay: NDArray[np.float64]  # [C]
    phase: NDArray[np.int8]  # [C]
    interior: NDArray[np.bool_] | None = None  # [C]; None where the cells form no full grid
    t_train: NDArray[np.int64] | None = None  # [C], -1 for never
    t_val: NDArray[np.int64] | None = None  # [C]
    tolerance: float = 0.02  # of steps, relative
    limit: int = 2999  # steps up to it are compared apart: later ones are chaotic in float32

    @property
    def title(self) -> str:
        return ", ".join([self.task, *(f"{k} {v}" for k, v in self.fixed.items())])


def load_reference(path: str | Path) -> list[Table]:
    """The published tables of a file.

    Raises:
        UsageError: no such file, no JSON, or not of a known shape; the message names the place.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    try:
        if isinstance(data, dict):
            if "diagrams" in data:
                return [_diagram(d, f"diagrams[{k}]") for k, d in _items(data, "diagrams")]
            if "cells" in data:
                return _cell_tables(data)
            if "t_train_t_val" in data:
                return [_step_table(data)]
        raise _Malformed("there is none of diagrams, cells and t_train_t_val")
    except _Malformed as error:
        raise UsageError(f"{path} is no published table: {error}") from None


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


def _diagram(data: dict[str, Any], where: str) -> Table:
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
    return Table(
        task=_task(data, where),
        fixed=_fixed(data, where),
        lr=np.tile(lr, len(decay)),
        weight_decay=np.repeat(decay, len(lr)),
        phase=phase.ravel(),
        interior=interior(phase).ravel(),
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
    groups: dict[str, tuple[str, dict[str, Any], list[tuple[float, float, int, int, int]]]] = {}
    for k, entry in _items(data, "cells"):
        where = f"cells[{k}]"
        task, fixed = _task(entry, where), _fixed(entry, where)
        phase = entry.get("phase")
        if phase not in PHASES:
            raise _Malformed(f"{where}.phase is {phase!r}, not one of {', '.join(PHASES)}")
        row = (
            *(_number(entry.get(key), f"{where}.{key}") for key in ("lr", "wd")),
            *(_step(entry.get(key), f"{where}.{key}") for key in ("t_train", "t_val")),
            PHASES.index(phase),
        )
        groups.setdefault(repr((task, fixed)), (task, fixed, []))[2].append(row)  # type: ignore[arg-type]
    tables = []
    for task, fixed, rows in groups.values():
        lr, decay, t_train, t_val, phases = map(np.array, zip(*rows, strict=True))
        tables.append(Table(task, fixed, lr, decay, phases.astype(np.int8), None, t_train, t_val))
    return tables


def _step_table(data: dict[str, Any]) -> Table:
    lr, decay = _numbers(data, "learning_rate", ""), _numbers(data, "weight_decay", "")
    task = _task({"task": "mnist-original", **data}, "the table")
    published = PRESETS[task].build().experiment
    try:
        steps = np.array(data["t_train_t_val"], np.int64)
    except (ValueError, TypeError, OverflowError):
        steps = np.empty(0, np.int64)
    if steps.shape != (len(decay), len(lr), 2):
        raise _Malformed(f"t_train_t_val is not {len(decay)} x {len(lr)} pairs of whole numbers")
    t_train, t_val = steps[..., 0], steps[..., 1]
    t_train = np.where(t_train <= 0, -1, t_train)
    t_val = np.where((t_val <= 0) | (t_val >= published.steps), -1, t_val)
    phase = classify(t_train, t_val, published.phase)
    return Table(
        task=task,
        fixed=_fixed(data, "the table"),
        lr=np.tile(lr, len(decay)),
        weight_decay=np.repeat(decay, len(lr)),
        phase=phase.ravel(),
        interior=interior(phase).ravel(),
        t_train=t_train.ravel(),
        t_val=t_val.ravel(),
        tolerance=0.1,
        limit=2500,
    )


def _task(data: dict[str, Any], where: str) -> str:
    task = data.get("task")
    if not isinstance(task, str) or task not in PRESETS:
        raise _Malformed(f"{where}.task is {task!r}, not one of {', '.join(PRESETS)}")
    return task


def _fixed(data: dict[str, Any], where: str) -> dict[str, Any]:
    names = ("activation", "data_seed", "model_seed")
    fixed: dict[str, Any] = {k: data[k] for k in names if k in data}
    if isinstance(fixed.get("activation"), str):  # as papers write it: ReLU, LeakyReLU(0.1)
        plain = fixed["activation"].lower().replace("(0.1)", "")
        fixed["activation"] = "leaky_relu" if plain == "leakyrelu" else plain
    try:
        PRESETS[_task({"task": "mnist-original", **data}, where)].build().experiment.replace(
            **fixed
        )
    except UsageError as error:
        raise _Malformed(f"{where}: {error}") from None
    return fixed


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
