"""``grokfast fields``: every field of an experiment, read off annotations and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
import typing
from types import UnionType
from typing import Any

from grokfast.bounds import bounds_of, hints
from grokfast.cli.helptext import _width
from grokfast.cli.signatures import closest
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.fields import SHORT_NAMES, is_tuple, options, value_text, without_bounds
from grokfast.models import MODELS
from grokfast.phases import PHASE_RULES
from grokfast.tasks import TASKS

_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "word"}

_INTRO = (
    "Each can be given as --set=FIELD=VALUE; several values make an axis. Defaults are those of "
    "the classes; grokfast run PRESET --dry-run shows what a preset has."
)


@dataclasses.dataclass(frozen=True)
class Field:
    """What there is to say of one field.

    Attributes:
        path: dotted name; ``short`` is a shorter one, or the same.
        kind: of which type, or which names it may be.
        bounds: which numbers, empty where it is none.
        default: as it is typed; a preset may have another. None where there is none.
    """

    path: str
    short: str
    kind: str
    bounds: str
    default: str | None
    meaning: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Fields of one class: a part of every experiment, or a task, model or phase rule."""

    names: tuple[str, ...]  # by which it can be asked for
    title: str
    summary: str
    fields: tuple[Field, ...]


def parts() -> list[Part]:
    """Every part that an experiment may have, those registered by name included."""
    found = [_part(Experiment, "", ("experiment",), "experiment")]
    for f in dataclasses.fields(Experiment):
        kind = hints(Experiment)[f.name]
        registered: dict[str, Any] = {"task": TASKS, "model": MODELS, "phase": PHASE_RULES}
        for name in registered.get(f.name, ()):
            cls = registered[f.name][name]
            found.append(_part(cls, f"{f.name}.", (f.name, name), f"{f.name} {name}"))
        if f.name not in registered and dataclasses.is_dataclass(kind):
            found.append(_part(kind, f"{f.name}.", (f.name,), f.name))
    return found


def _part(cls: Any, prefix: str, names: tuple[str, ...], title: str) -> Part:
    meanings, kinds = _meanings(cls), hints(cls)
    short = {path: name for name, path in SHORT_NAMES.items()}
    fields = []
    for f in dataclasses.fields(cls):
        path, kind = prefix + f.name, kinds[f.name]
        if dataclasses.is_dataclass(kind):
            continue
        none = f.default is dataclasses.MISSING
        fields.append(
            Field(
                path=path,
                short=short.get(path, path),
                kind=_kind(without_bounds(kind)),
                bounds=str(bounds_of(kind) or ""),
                default=None if none else value_text(f.default),
                meaning=meanings.get(f.name, ""),
            )
        )
    summary = _plain(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0])
    return Part(names, title, summary, tuple(fields))


def _kind(kind: Any) -> str:
    if is_tuple(kind):
        return f"{_kind(typing.get_args(kind)[0])}s joined by plus signs"
    if known := options(kind):
        return f"one of {', '.join(known)}"
    if isinstance(kind, UnionType):
        inner = next(k for k in typing.get_args(kind) if k is not type(None))
        return f"{_kind(inner)} or none"
    return _TYPES[kind]


def _meanings(cls: Any) -> dict[str, str]:
    """Field -> what the docstring of its class, or of a base of it, says of it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        for entry in re.finditer(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found |= dict.fromkeys(entry[1].split(", "), _plain(entry[2]))
    return found


def _plain(text: str) -> str:
    """Prose of a docstring without its markup."""
    text = re.sub(r":\w+:`[~.]?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``None``", "none").replace("``", "").split())


def chosen(name: str | None) -> list[Part]:
    """The parts of this name, or those with the fields of this name, and of them these alone.

    Args:
        name: of a part (``optimizer``, ``task``), of a task, model or rule, or of a field, long,
            short, or its last word; ``None`` for everything.

    Raises:
        UsageError: there is none.
    """
    everything = parts()
    if name is None:
        return everything
    name = name.replace("-", "_") if name.replace("-", "_") in SHORT_NAMES else name
    if whole := [part for part in everything if name in part.names]:
        return whole
    found = []
    for wanted in ((lambda f: name in (f.path, f.short)), (lambda f: f.path.endswith(f".{name}"))):
        for part in everything:
            fields = tuple(f for f in part.fields if wanted(f))
            found += [dataclasses.replace(part, fields=fields)] if fields else []
        if found:
            return found
    known = [n for part in everything for n in part.names]
    known += [n for part in everything for f in part.fields for n in (f.path, f.short)]
    leaves = [f.path.rpartition(".")[2] for part in everything for f in part.fields]
    close = closest(name, dict.fromkeys([*known, *leaves]))
    hint = f"did you mean {close}?" if close else "grokfast fields lists them all"
    raise UsageError(f"no field or part {name!r}", hint=hint)


def show(name: str | None, as_json: bool) -> None:
    """Prints them; of what was asked for by name also which engines know which values."""
    found = chosen(name)
    if as_json:
        rows = [{"part": part.title} | dataclasses.asdict(f) for part in found for f in part.fields]
        print(json.dumps(rows, indent=2))
        return
    if name is None:
        _print(_INTRO)
        print()
    limits = {} if name is None else _limits()
    for part in found:
        _print(f"{part.title}: {part.summary}")
        for f in part.fields:
            names = f.path if f.short == f.path else f"{f.path}, or {f.short}"
            default = "" if f.default is None else f"; default {f.default or 'empty'}"
            bounds = f", {f.bounds}" if f.bounds else ""
            _print(f"{names}: {f.kind}{bounds}{default}", 2)
            _print(f.meaning, 6)
            row = f"transformer.{f.path.rpartition('.')[2]}"
            for limit in limits.get(row if part.names[-1] == "transformer" else f.path, ()):
                _print(limit, 6)
        print()


def _limits() -> dict[str, list[str]]:
    """Field -> a line for values that not every engine knows."""
    from grokfast.engines.support import SUPPORT, table

    found: dict[str, list[str]] = {}
    for path, values, engines in table():
        if len(engines) < len(SUPPORT):
            what = "any value" if values == "any" else values
            found.setdefault(path, []).append(f"{what}: engine {', '.join(engines) or 'none'} only")
    return found


def _print(text: str, indent: int = 0) -> None:
    left = " " * indent
    hanging = left + "    " * (indent == 2)
    print(
        textwrap.fill(
            text,
            _width(),
            initial_indent=left,
            subsequent_indent=hanging,
            break_on_hyphens=False,
        )
    )
