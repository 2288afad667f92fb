"""``grokfast data``: the data sets that experiments train on, listed, shown and exported."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grokfast.cli import mnist, overrides
from grokfast.cli.signatures import closest
from grokfast.cli.wrapping import wrapped
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.export import STDOUT, check_target, text_target
from grokfast.fields import SHORT_NAMES, parse_value, scalar_fields
from grokfast.presets import PRESETS, preset
from grokfast.storage.files import replacing, user_path
from grokfast.tasks.base import TASKS, Task

if TYPE_CHECKING:  # it imports torch
    from grokfast.tasks import TaskData

FORMATS = ("csv", "npz")

#: Rows of each split, and numbers of each row, that are shown.
_ROWS, _NUMBERS = 5, 8


def act(action: str, **given: Any) -> int | None:
    """Does one of :data:`ACTIONS`.

    Args:
        action: its name.
        given: every option of the command by its Python name; None or False where not given.

    Raises:
        UsageError: another action, or options that it does not take or that it lacks.
    """
    if action not in ACTIONS:
        close = closest(action, ACTIONS)
        raise UsageError(
            f"unknown action {action!r} for 'data'",
            hint=f"did you mean {close}?" if close else f"there are {', '.join(ACTIONS)}",
        )
    takes = inspect.signature(ACTIONS[action]).parameters
    for name, value in given.items():
        word = "TASK" if name == "task" else f"--{name.replace('_', '-')}"
        if value and name not in takes:
            goes = [a for a, f in ACTIONS.items() if name in inspect.signature(f).parameters]
            raise UsageError(
                f"'data {action}' takes no {word}", hint=f"it is for {', '.join(goes)}"
            )
        if value is None and name in takes and takes[name].default is inspect.Parameter.empty:
            raise UsageError(
                f"'data {action}' needs {word}",
                hint="grokfast data list lists them"
                if name == "task"
                else "an example: --out=x.csv",
            )
    return ACTIONS[action](**{name: given[name] for name in takes})


def show_all() -> None:
    """Prints every registered task with its fields and their defaults."""
    column = max(map(len, TASKS)) + 2
    for name, cls in TASKS.items():
        about = (cls.__doc__ or "").strip().partition("\n")[0].replace("``", "")
        told = wrapped(about, indent=column)
        print(f"{name:{column}}{told.pop(0)[column:]}")
        fields = ", ".join(
            f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default}"
            for f in dataclasses.fields(cls)
        )
        print("\n".join(told + wrapped(fields, indent=column)))
    print("presets, too, name data sets: their tasks with their values (grokfast presets)")


def show(
    task: str, set: str | None = None, data_seed: str | None = None, data_dir: str | None = None
) -> None:
    """Prints what a data set consists of: sizes, first rows, digests."""
    chosen = _chosen(task, set, data_seed, data_dir)
    data = chosen.build()
    print(f"task      {chosen.name}")
    for f in dataclasses.fields(chosen):
        print(f"  task.{f.name} = {getattr(chosen, f.name)}")
    print(f"classes   {data.num_classes}")
    if data.vocabulary:
        print(f"tokens    {data.vocabulary}")
    print(f"targets   {'labels alone' if data.targets is None else _kind(data.targets)}")
    print(f"train     {len(data.x_train)} samples{_corruption(data)}")
    print(f"val       {len(data.x_val)} samples")
    print("first rows: inputs, label")
    for row in range(min(_ROWS, len(data.x_train))):
        label = str(int(data.y_train[row]))
        if data.corrupted is not None and data.corrupted[row]:
            true = "" if data.y_clean is None else f"; true is {int(data.y_clean[row])}"
            label += f" (redrawn{true})"
        print(f"  train {row}  {_inputs(data.x_train[row].numpy())}  {label}")
    for row in range(min(_ROWS, len(data.x_val))):
        print(f"  val {row}    {_inputs(data.x_val[row].numpy())}  {int(data.y_val[row])}")
    print("tensors, with SHA-256 of their bytes")
    for name, array in _arrays(data).items():
        if array.ndim:
            digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            print(f"  {name:9} {digest}  {_kind(array)}")


def export(
    task: str,
    out: str,
    set: str | None = None,
    data_seed: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a data set and prints where it is: ``.csv`` has one row a sample, ``.npz`` everything
    under the names of :class:`grokfast.TaskData`. ``-`` is CSV on standard output."""
    kind = check_target(out, formats=FORMATS, overwrite=overwrite, stdout=True)
    data = _chosen(task, set, data_seed, data_dir).build()
    path = user_path(out)
    if kind == "csv":
        _write_csv(data, path)
    else:  # by name, savez would add a suffix
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_arrays(data))
    if out != STDOUT:
        print(path)


def _write_csv(data: TaskData, path: Path) -> None:
    splits = {
        "train": (data.x_train, data.y_train, data.corrupted),
        "val": (data.x_val, data.y_val, None),
    }
    with text_target(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        inputs = data.x_train[0].numel()
        writer.writerow(["split", *(f"x{i}" for i in range(inputs)), "label", "corrupted"])
        for split, (x, y, redrawn) in splits.items():
            flags = [0] * len(x) if redrawn is None else redrawn.int().tolist()
            rows = zip(x.numpy().reshape(len(x), -1), y.tolist(), flags, strict=True)
            for row, label, flag in rows:
                # str of NumPy's own numbers: float32 0.9 is 0.9, not 0.8999999761581421
                writer.writerow([split, *map(str, row), label, flag])


ACTIONS: dict[str, Callable[..., int | None]] = {
    "list": show_all,
    "show": show,
    "export": export,
    "fetch": mnist.fetch,
    "verify": mnist.verify,
    "path": mnist.path,
}


def _chosen(name: str, sets: str | None, data_seed: str | None, data_dir: str | None) -> Task:
    """The task called so, or that of the preset, with fields replaced.

    Raises:
        UsageError: no such task or preset, no such field, or a value that does not do.
    """
    if name in TASKS:
        try:
            experiment = Experiment(task=TASKS[name]())
        except TypeError as error:  # a user's task, with a field that has no default
            raise UsageError(f"task {name!r} cannot be built: {error}") from error
    elif name in PRESETS:
        experiment = Experiment(task=preset(name).experiment.task)
    else:
        close = closest(name, [*TASKS, *PRESETS])
        raise UsageError(
            f"unknown task {name!r}",
            hint=f"did you mean {close}?" if close else f"there are {', '.join(TASKS)}, or presets",
        )
    given = overrides.split_assignments(sets) if sets is not None else []
    given += [("task.seed", data_seed)] if data_seed is not None else []
    values: dict[str, Any] = {}
    for field, text in given:
        path = _resolved(experiment, field)
        if path in values:
            raise UsageError(f"{path} is given twice")
        values[path] = parse_value(path, scalar_fields(experiment)[path], text)
    if data_dir is not None:
        mnist.look_in(data_dir, experiment.task.name, name)
    return experiment.replace(**values).task


def _resolved(experiment: Experiment, field: str) -> str:
    """``task.p`` of ``p``, ``task.p`` and the like."""
    known = [path for path in scalar_fields(experiment) if path.startswith("task.")]
    leaf = SHORT_NAMES.get(field, field).removeprefix("task.")
    if f"task.{leaf}" in known:
        return f"task.{leaf}"
    leaves = [path.removeprefix("task.") for path in known]
    close = closest(leaf, leaves)
    raise UsageError(
        f"task {experiment.task.name!r} has no field {field!r}",
        hint=f"did you mean {close}?" if close else f"it has {', '.join(leaves)}",
    )


def _arrays(data: TaskData) -> dict[str, NDArray[Any]]:
    """All that there is of a data set, by its name in :class:`grokfast.TaskData`; plain numbers as
    arrays of no dimension."""
    values = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def _corruption(data: TaskData) -> str:
    if data.corrupted is None or not data.corrupted.any():
        return ""
    rows = np.flatnonzero(data.corrupted).tolist()
    listed = rows if len(rows) <= _ROWS else [*rows[:3], "...", rows[-1]]
    told = f"; {len(rows)} labels redrawn, of rows {', '.join(map(str, listed))}"
    if data.y_clean is None:
        return told
    return f"{told}; {int((data.y_train != data.y_clean).sum())} of them wrong"


def _inputs(row: NDArray[Any]) -> str:
    numbers = row.reshape(-1)
    told = " ".join(f"{v:.6g}" for v in numbers[:_NUMBERS])
    return told if len(numbers) <= _NUMBERS else f"{told} ... ({len(numbers)} numbers)"


def _kind(array: Any) -> str:
    """``float32 [97, 97]``."""
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"
