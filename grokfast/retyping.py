"""A grid as the command line that gives it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from grokfast.fields import scalar_fields, short_name, value_text
from grokfast.grid import Grid
from grokfast.presets import PRESETS, preset

#: Fields with an option of their own; the others go through ``--set``.
OPTIONS = (
    "lr",
    "weight_decay",
    "steps",
    "data_seed",
    "model_seed",
    "activation",
    "stop",
    "dtype",
    "precision",
)


def as_option(grid: Grid, path: str) -> str:
    """An axis, or the one value of a field, as the option of ``grokfast run`` that gives it."""
    if path in grid.settings:
        return f"--setting={path}={';'.join(grid.described(path))}"
    values = grid.axes.get(path) or (grid.experiment.get(path),)
    return _option(path, ",".join(map(value_text, values)))


def _option(path: str, text: str) -> str:
    name = short_name(path)
    return f"--{name.replace('_', '-')}={text}" if name in OPTIONS else f"--set={name}={text}"


def command(grid: Grid, out: str) -> str | None:
    """The ``grokfast run`` that trains a grid into a new file; None where no preset, with whatever
    options, is this grid."""
    if grid.name not in PRESETS:
        return None
    usual, own = preset(grid.name), grid.experiment
    if any(
        getattr(own, part).name != getattr(usual.experiment, part).name
        for part in ("task", "model", "phase")
    ):
        return None
    options = [
        as_option(grid, path) for path in grid.axes if usual.described(path) != grid.described(path)
    ]
    changed = {
        path: own.get(path)
        for path in scalar_fields(own)
        if not grid.varies(path)
        and (usual.varies(path) or usual.experiment.get(path) != own.get(path))
    }
    record = list(_recorded(changed))
    options += [_option(path, value_text(value)) for path, value in changed.items()]
    options += [f"--record={','.join(record)}"] if record else []
    return shlex.join(["grokfast", "run", grid.name, *options, f"--out={out}"])


def _recorded(changed: dict[str, Any]) -> Iterator[str]:
    """What ``--record`` can say of changed fields, which are taken out."""
    if changed.get("record.curves") == "evaluated":
        del changed["record.curves"]
        yield "curves:all"
    elif "record.curve_points" in changed:
        changed.pop("record.curves", None)
        yield f"curves:{changed.pop('record.curve_points')}"
    if changed.get("record.embeddings"):
        yield f"embeddings:{changed.pop('record.embeddings')}"
    if changed.get("record.weights"):
        del changed["record.weights"]
        yield "weights"
    if changed.get("record.observables"):
        yield from changed.pop("record.observables")


def again(grid: Grid, **fields: Any) -> str:
    """A hint: how to train a grid again that has kept too little.

    Args:
        fields: what the new run has besides, by dotted name.
    """
    line = command(grid.grid(**fields), out="NEW.h5")
    if line is None:
        told = ", ".join(f"{path}={value_text(value)}" for path, value in fields.items())
        return f"train the grid again, with {told}, into a new file"
    return f"run it again into a new file: {line}"
