"""The wall before fire: every argument is checked, and quoted, before anything runs.

fire on its own trains first and complains about ``--lrr`` afterwards, reads ``a,b`` as a tuple
and ``run#2.h5`` as ``run``, lets the last of two equal flags win, and runs private members. Here
unknown names, repeated flags, stray arguments and missing values end in one line, and every value
that passes is rewritten as a quoted literal, which fire evaluates to exactly the text typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grokfast.cli.signatures import Command, Option, closest
from grokfast.errors import UsageError

#: Accepted before and after every command.
GLOBAL_SWITCHES = ("--debug", "--help", "-h", "--version")

#: What other tools call our options.
ALIASES = {
    "batch": "set=batch_size",
    "epochs": "steps",
    "file": "out",
    "learning-rate": "lr",
    "o": "out",
    "output": "out",
    "seed": "model-seed",
    "wd": "weight-decay",
}

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_NEGATIVE_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Call:
    """Arguments that fire may see: a command name, and literals."""

    arguments: list[str]


@dataclass(frozen=True)
class Help:
    """A request for help, on one command or on all."""

    command: str | None


@dataclass(frozen=True)
class Version:
    """A request for the version."""


def preflight(argv: list[str], commands: dict[str, Command]) -> Call | Help | Version:
    """Checks a command line against the signatures of the commands.

    Raises:
        UsageError: an unknown command or option, an option given twice or without its value, a
            missing or stray argument; with a suggestion.
    """
    asked = {a for a in argv if a in GLOBAL_SWITCHES}
    words = [a for a in argv if a not in GLOBAL_SWITCHES]
    wants_help = bool(asked & {"--help", "-h"})
    if "--version" in asked and not wants_help:
        return Version()
    if not words:
        return Help(None)
    if words[0] == "help":
        return Help(_command(words[1], commands).name if len(words) > 1 else None)
    command = _command(words[0], commands)
    if wants_help:
        return Help(command.name)
    given, values = _split(command, words[1:])
    return Call([command.name, *_positionals(command, given), *_options(command, values)])


def _command(word: str, commands: dict[str, Command]) -> Command:
    if word in commands:
        return commands[word]
    if word.startswith("-"):
        close = closest(word, GLOBAL_SWITCHES)
        raise UsageError(
            f"{word!r} comes before any command",
            hint=f"did you mean {close}?" if close else "an example: grokfast run PRESET --lr=1e-3",
        )
    close = closest(word, commands)
    raise UsageError(
        f"unknown command {word!r}",
        hint=f"did you mean {close}?" if close else f"there are {', '.join(commands)}",
    )


def _split(command: Command, words: list[str]) -> tuple[list[str], list[tuple[Option, str]]]:
    """Positional arguments, and options with their values, as typed."""
    given: list[str] = []
    values: list[tuple[Option, str]] = []
    rest = iter(range(len(words)))
    for i in rest:
        word = words[i]
        if not word.startswith("-") or _NEGATIVE_NUMBER.match(word):
            given.append(word)
            continue
        name, has_value, value = word.partition("=")
        option, negated = _option(command, name)
        if option.switch:
            values.append((option, _switch(name, value if has_value else "true", negated)))
            continue
        if not has_value and i + 1 < len(words):
            following = words[i + 1]
            if not following.startswith("-") or _NEGATIVE_NUMBER.match(following):
                value = words[next(rest)]
        if not value:
            raise UsageError(f"{name} needs a value: --{option.name}={option.metavar}")
        values.append((option, value))
    return given, values


def _option(command: Command, flag: str) -> tuple[Option, bool]:
    """The option of a flag, and whether it is negated (``--no-dry-run``)."""
    name = flag.removeprefix("--").replace("_", "-")
    if flag.startswith("--") and name:
        if name in command.options:
            return command.options[name], False
        for prefix in ("no-", "no"):
            option = command.options.get(name.removeprefix(prefix))
            if name.startswith(prefix) and option is not None and option.switch:
                return option, True
    raise _unknown_option(command, flag, name)


def _unknown_option(command: Command, flag: str, name: str) -> UsageError:
    if flag in ("-", "--"):
        return UsageError(f"unexpected argument {flag!r} for {command.name!r}")
    if not flag.startswith("--"):
        name = name.lstrip("-")
        likely = [o for o in command.options if o.startswith(name[:1])]
        likely = [o for o in (name, ALIASES.get(name)) if o in command.options] or likely
        close = likely[0] if len(likely) == 1 else None
    else:
        close = (
            ALIASES.get(name) if ALIASES.get(name, "").split("=")[0] in command.options else None
        )
        known = [*(option.shown for option in command.options.values()), *GLOBAL_SWITCHES]
        close = close or (closest(f"--{name}", known) or "").removeprefix("--")
    hint = f"did you mean --{close}?" if close else f"grokfast {command.name} --help lists them"
    if "set" in command.options and flag.startswith("--") and _is_field(flag):
        hint = f"did you mean --set={flag.removeprefix('--').replace('-', '_')}=...?"
    return UsageError(f"unknown option {flag} for {command.name!r}", hint=hint)


def _is_field(flag: str) -> bool:
    """Whether some preset has a field of this name: those are set with ``--set``."""
    from grokfast.fields import SHORT_NAMES, scalar_fields
    from grokfast.presets import PRESETS

    name = flag.removeprefix("--").replace("-", "_")
    fields = {f for p in PRESETS.values() for f in scalar_fields(p.build().experiment)}
    return name in fields | set(SHORT_NAMES) | {f.rsplit(".", 1)[-1] for f in fields}


def _switch(flag: str, value: str, negated: bool) -> str:
    if value.lower() not in _TRUE + _FALSE:
        raise UsageError(f"{flag}={value!r} is neither true nor false")
    return str((value.lower() in _TRUE) != negated)


def _positionals(command: Command, given: list[str]) -> list[str]:
    """Literals of the positional arguments; several for one parameter become a list."""
    literals = []
    for position, wanted in enumerate(command.positionals):
        found = given[position:] if wanted.several else given[position : position + 1]
        if not found and not wanted.required:
            break
        if not found or not all(found):
            raise UsageError(
                f"{command.name!r} needs {wanted.metavar}",
                hint="grokfast presets lists them"
                if wanted.parameter == "preset"
                else f"grokfast {command.name} --help shows how",
            )
        literals.append(repr(found if wanted.several else found[0]))
        if wanted.several:
            return literals
    stray = given[len(command.positionals) :]
    if stray:
        takes = " ".join(p.metavar for p in command.positionals) or "options only"
        raise UsageError(
            f"unexpected argument {stray[0]!r} for {command.name!r}", hint=f"it takes {takes}"
        )
    return literals


def _options(command: Command, values: list[tuple[Option, str]]) -> list[str]:
    """``--name=literal`` of each option, repeated ones joined where that is allowed."""
    merged: dict[str, tuple[Option, str]] = {}
    for option, value in values:
        if option.name not in merged:
            merged[option.name] = (option, value)
        elif option.joined:
            merged[option.name] = (option, merged[option.name][1] + option.joined + value)
        else:
            listed = command.name == "run" and option.metavar == "VALUES"
            raise UsageError(
                f"--{option.name} is given twice",
                hint=f"several values go into one: --{option.name}=A,B" if listed else None,
            )
    for option in command.options.values():
        if option.required and option.name not in merged:
            raise UsageError(f"{command.name!r} needs --{option.name}={option.metavar}")
    return [
        f"--{option.parameter}={value if option.switch else repr(value)}"
        for option, value in merged.values()
    ]
