"""Command-line text -> a Grid: presets, options of fields, ``--set``, ``--record``. No torch."""

from __future__ import annotations

import math
import re
from typing import Any

from grokfast.cli.signatures import closest
from grokfast.errors import UsageError
from grokfast.fields import resolve_field, short_name
from grokfast.grid import Grid
from grokfast.observables import OBSERVABLES
from grokfast.presets import preset
from grokfast.ranges import parse_values

#: Sizes that no machine trains: refused before the list of values is made.
MAX_VALUES = MAX_CELLS = 100_000

ENGINES = ("auto", "native", "triton", "compiled", "reference")


def build_grid(
    name: str,
    fields: dict[str, str | None],
    sets: str | None,
    record: str | None,
    setting: str | None = None,
) -> Grid:
    """The preset's grid with the given fields replaced.

    Args:
        name: of the preset.
        fields: field name -> text of the values, None where not given.
        sets: text of ``--set``.
        record: text of ``--record``.
        setting: text of ``--setting``, one a line.

    Raises:
        UsageError: an unknown preset or field, a malformed or impossible value, a field twice.
    """
    grid = preset(name)
    defined: dict[str, str] = {}  # field -> the setting of the command line that gives it
    for line in setting.split(BETWEEN_SETTINGS) if setting is not None else ():
        own, values = parse_setting(grid, line)
        paths = {path for fields in values.values() for path in fields}
        for path in (own, *paths):
            if path in (*defined, *defined.values()):
                raise UsageError(f"{short_name(path)} is given twice")
        defined |= dict.fromkeys(paths, own)
        grid = grid.setting(own, values)
    given = [(f, text) for f, text in fields.items() if text is not None]
    given += parse_record(record) if record is not None else []
    given += split_assignments(sets) if sets is not None else []
    scalars: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for field, text in given:
        path = grid.resolve(field)
        if path in scalars or path in axes or path in defined:
            raise UsageError(f"{short_name(path)} is given twice")
        _refuse_huge_range(short_name(path), text)
        several = parse_values(grid, path, text)
        (axes if isinstance(several, list) else scalars)[path] = several
    lengths = {p: len(v) for p, v in {**grid.axes, **axes}.items() if p not in scalars}
    size = math.prod(lengths.values())
    if size > MAX_CELLS:
        raise UsageError(f"the grid has {size:,} cells; give at most {MAX_CELLS:,}")
    return grid.grid(**scalars, **axes)


def check_cells(grid: Grid) -> None:
    """Every combination of axis values is a valid experiment, or this raises UsageError."""
    _ = grid.cells


_EXAMPLES = {
    "cell": "an example: --cell=lr:1e-3,weight_decay:5",
    "rule": "an example: --rule=gap:500",
    "where": "an example: --where=model_seed:0",
    "set": "an example: --set=optimizer.beta2=0.98,task.p=12",
    "setting": "an example: --setting='batch=8:batch_size=8,lr=1e-3;64:batch_size=64,lr=3e-3'",
}

#: Joins the texts of several ``--setting``.
BETWEEN_SETTINGS = "\n"


def parse_setting(grid: Grid, text: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Name and values of a setting:
    ``batch=8:batch_size=8,lr=1e-3;64:batch_size=64,lr=3e-3``.

    Raises:
        UsageError: malformed text, a repeated name, an unknown field or a malformed value.
    """
    name, _, rest = (piece.strip() for piece in text.partition("="))
    where, values = f"--setting={text!r}", dict[str, dict[str, Any]]()
    for one in rest.split(";"):
        value, _, fields = (piece.strip() for piece in one.partition(":"))
        if not (name.isidentifier() and fields and re.fullmatch(r"[^\s,=]+", value)):
            raise UsageError(
                f"{where}: {one.strip()!r} is no VALUE:FIELD=...", hint=_EXAMPLES["setting"]
            )
        if value in values:
            raise UsageError(f"{where}: {value} is there twice")
        values[value] = {}
        for field, typed in split_assignments(fields, "setting"):
            path = resolve_field(grid.experiment, field)
            found = parse_values(grid, path, typed)
            if isinstance(found, list) or path in values[value]:
                raise UsageError(f"{where}: {value} has several values of {short_name(path)}")
            values[value][path] = found
    return name, values


def split_assignments(text: str, option: str = "set") -> list[tuple[str, str]]:
    """``a.b=1,c=2,3`` -> ``[("a.b", "1"), ("c", "2,3")]``: commas that no ``name=`` follows
    belong to the value before.

    Raises:
        UsageError: text before the first name, or a name without a value.
    """
    pairs: list[tuple[str, str]] = []
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if not pairs:
                raise UsageError(
                    f"--{option}={text!r}: {part!r} is no name=value",
                    hint=_EXAMPLES[option],
                )
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{name}")
        elif not name or not value:
            raise UsageError(
                f"--{option}={text!r}: {part!r} lacks a {'value' if name else 'name'}",
                hint=_EXAMPLES[option],
            )
        else:
            pairs.append((name.replace("-", "_"), value))
    return pairs


def parse_record(text: str) -> list[tuple[str, str]]:
    """``embeddings:50,weights,curves:400,norms:100`` -> values of the fields of ``record``;
    ``none`` keeps T_train and T_val only.

    Raises:
        UsageError: an unknown thing to record, or a malformed number.
    """
    if text == "none":
        return [
            ("record.embeddings", "0"),
            ("record.weights", "false"),
            ("record.curve_points", "0"),
            ("record.curves", "log-spaced"),
            ("record.observables", "none"),
        ]
    fields = {
        "embeddings": "record.embeddings",
        "weights": "record.weights",
        "curves": "record.curve_points",
    }
    pairs = []
    observables = []
    for part in text.split(","):
        what, colon, number = part.strip().partition(":")
        if what in OBSERVABLES and what not in fields:
            observables.append(part.strip())
            continue
        if part.strip() == "curves:all":
            pairs.append(("record.curves", "evaluated"))
            continue
        if what not in fields:
            rest = [name for name in OBSERVABLES if name not in fields]
            close = closest(what, [*fields, *rest])
            raise UsageError(
                f"--record={text!r}: {what!r} is not one of {', '.join((*fields, *rest))}"
                + (", or none alone" if what != "none" else "; it stands alone"),
                hint=f"did you mean {close}?"
                if close
                else "an example: --record=embeddings:50,weights",
            )
        wants_number = what == "curves" or (what == "embeddings" and bool(colon))
        # [0-9], not isdigit(): that admits superscripts
        if wants_number != bool(re.fullmatch("[0-9]+", number)) or (colon and not wants_number):
            raise UsageError(
                f"--record={text!r}: {part.strip()!r} is malformed",
                hint="embeddings, embeddings:STEPS, weights, curves:POINTS, curves:all, or an "
                "observable, as norms or norms:STEPS",
            )
        pairs.append((fields[what], number or {"embeddings": "10", "weights": "true"}[what]))
        if what == "embeddings" and number and not int(number):
            raise UsageError(
                f"--record={text!r}: embeddings every 0 steps are none",
                hint="embeddings:10 has them every 10; for none leave it out",
            )
        if what == "curves":
            pairs.append(("record.curves", "log-spaced"))
    if observables:
        pairs.append(("record.observables", "+".join(observables)))
    return pairs


def check_launcher(launcher: str, address: str | None, shard: str | None, checkpoint: bool) -> None:
    """Raises UsageError where what starts the training is unknown, or does not go with the rest."""
    if launcher not in ("none", "ray"):
        raise UsageError(f"--launcher={launcher} is neither none nor ray")
    if address is not None and launcher != "ray":
        raise UsageError("--address is of a Ray cluster", hint="give --launcher=ray, too")
    if shard is not None and launcher == "ray":
        raise UsageError(
            "--shard and --launcher=ray exclude each other: Ray's workers share the whole grid"
        )
    if not checkpoint and launcher == "ray":
        raise UsageError(
            "--no-checkpoint and --launcher=ray exclude each other: from a block's checkpoint "
            "another machine goes on"
        )


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """``i/n``.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None:
        raise UsageError(
            f"--shard={text!r} is not i/n",
            hint="an example: --shard=1/4; in a job array --shard=auto",
        )
    return int(match[1]), int(match[2])


def parse_count(option: str, text: str | None, example: int, most: int = 2**31 - 1) -> int | None:
    """A whole number from 1 to ``most``.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    try:
        number = float(text)
        if 1 <= number <= most and number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"--{option}={text!r} is no whole number from 1 to {most}",
        hint=f"an example: --{option}={example}",
    )


def parse_epochs(text: str | None) -> list[int] | None:
    """``0,14,500`` -> numbers of epochs.

    Raises:
        UsageError: a part that is no whole number of 0 or more.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if wrong := [part for part in parts if not part.isdecimal() or len(part) > 9]:
        raise UsageError(
            f"--epochs={text!r}: {wrong[0]!r} is no whole number of 0 or more",
            hint="an example: --epochs=0,14,500",
        )
    return [int(part) for part in parts]


def parse_device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; whether there is one is for torch to say.

    Raises:
        UsageError: anything else.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text):
        raise UsageError(f"unknown device {text!r}", hint="give auto, cpu, cuda or cuda:N")
    return text


def parse_engine(text: str) -> str:
    """The name of an engine; checked here because the engines' own table imports torch.

    Raises:
        UsageError: no such engine.
    """
    if text not in ENGINES:
        close = closest(text, ENGINES)
        raise UsageError(
            f"unknown engine {text!r}; known are {', '.join(ENGINES)}",
            hint=f"did you mean {close}?" if close else None,
        )
    return text


def parse_cells(text: str | None) -> list[dict[str, Any]] | None:
    """``lr:1e-3,weight_decay:5;lr:1e-4`` -> one dict of axis values for each chosen cell.

    Raises:
        UsageError: a part that is not ``axis:value``.
    """
    if text is None:
        return None
    parts = filter(None, (part.strip() for part in text.split(";")))
    cells = [_axis_values("cell", one) for one in parts]
    if not cells:
        raise UsageError("--cell names no cell", hint=_EXAMPLES["cell"])
    return cells


def parse_seconds(option: str, text: str | None) -> float | None:
    """A number of 0 or more.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    try:
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    except ValueError:
        pass
    raise UsageError(
        f"--{option}={text!r} is no number of seconds", hint=f"an example: --{option}=60"
    )


def parse_where(text: str | None) -> dict[str, Any] | None:
    """``model_seed:0,lr:1e-3`` -> values of the axes at which a grid is sliced.

    Raises:
        UsageError: a part that is not ``axis:value``.
    """
    return None if text is None else _axis_values("where", text)


def parse_rule(text: str | None) -> tuple[str | None, dict[str, str]] | None:
    """``gap:500,strict:true`` or ``collapse,kept:0.8`` -> the name of another rule of phases, if
    any, and texts of its fields.

    Raises:
        UsageError: neither, or a field twice.
    """
    if text is None:
        return None
    first, *rest = (part.strip() for part in text.split(","))
    name = None if ":" in first else first
    pairs = _pairs("rule", ",".join(rest if name else (first, *rest))) if name != text else {}
    return name, {key.removeprefix("phase."): value for key, value in pairs.items()}


def _axis_values(option: str, text: str) -> dict[str, Any]:
    """Values by short name, numbers where they are."""
    return {key: _number(value) for key, value in _pairs(option, text).items()}


def _pairs(option: str, text: str) -> dict[str, str]:
    """``name:value,...`` by short name."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if not name or not value:
            what = "field:value" if option == "rule" else "axis:value"
            raise UsageError(f"--{option}={text!r}: {part!r} is not {what}", hint=_EXAMPLES[option])
        key = short_name(name.replace("-", "_"))
        if key in pairs:
            raise UsageError(f"--{option}={text!r}: {key} is given twice")
        pairs[key] = value
    return pairs


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _refuse_huge_range(name: str, text: str) -> None:
    match = re.fullmatch(r"(?:logspace|geomspace|linspace):[^:]*:[^:]*:([0-9]+)", text)
    number = int(match[1][:12]) if match else text.count(",") + 1
    match = re.fullmatch(r"range:(-?[0-9]{1,99}):(-?[0-9]{1,99})(?::(-?[0-9]{1,99}))?", text)
    if match and int(match[3] or 1):
        number = -((int(match[1]) - int(match[2])) // int(match[3] or 1))
    if number > MAX_VALUES:
        raise UsageError(f"{name}={text!r} has {number:,} values; give at most {MAX_VALUES:,}")
