"""What the commands accept, read off their Python signatures: one source for wall and help."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Joined:
    """Marks an option that may be repeated; its values are joined by ``by``."""

    by: str


@dataclass(frozen=True)
class Option:
    """``--name=METAVAR``, or a switch ``--name``."""

    parameter: str  # Python name: weight_decay
    metavar: str
    switch: bool
    required: bool
    default: Any
    joined: str | None

    @property
    def name(self) -> str:
        return self.parameter.replace("_", "-")

    @property
    def shown(self) -> str:
        """As help and completion have it: a switch as what it changes, ``--no-checkpoint``."""
        return f"--no-{self.name}" if self.switch and self.default else f"--{self.name}"


@dataclass(frozen=True)
class Positional:
    parameter: str
    metavar: str
    several: bool
    required: bool


@dataclass(frozen=True)
class Command:
    name: str
    function: Callable[..., Any]
    positionals: tuple[Positional, ...]
    options: dict[str, Option]  # by name with dashes


def read_command(name: str, function: Callable[..., Any]) -> Command:
    """The command of a function: plain parameters are positional, keyword-only ones options.

    A parameter of type ``bool`` is a switch, one of type ``list[str]`` takes several arguments,
    any other is text. ``Annotated[str, "FILE", Joined(",")]`` gives the placeholder of the help
    and allows repetition.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    positionals, options = [], {}
    for parameter in inspect.signature(function).parameters.values():
        kind, notes = _plain(hints[parameter.name])
        metavar = next((n for n in notes if isinstance(n, str)), parameter.name.upper())
        joined = next((n.by for n in notes if isinstance(n, Joined)), None)
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            several = typing.get_origin(kind) is list
            positionals.append(Positional(parameter.name, metavar, several, required))
            continue
        option = Option(
            parameter=parameter.name,
            metavar=metavar,
            switch=kind is bool,
            required=required,
            default=None if required else parameter.default,
            joined=joined,
        )
        options[option.name] = option
    return Command(name, function, tuple(positionals), options)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    known = list(known)
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if found:
        return found[0]
    begun = [k for k in known if len(word) >= 2 and k.startswith(word.lower())]
    return begun[0] if len(begun) == 1 else None


def _plain(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(hint) is typing.Annotated:
        kind, *notes = typing.get_args(hint)
        return kind, tuple(notes)
    return hint, ()
