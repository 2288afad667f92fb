"""The command line: ``grokfast COMMAND ...``. Starts fast; torch is imported by what trains.

The way of an argument: :mod:`preflight` checks it against the signatures of :mod:`commands` and
quotes it, fire binds it and returns an inert job, and only then the job starts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grokfast.cli.boundary import guarded
from grokfast.cli.watching import end


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code (see ``grokfast --help``)."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = guarded(lambda: _main(words), debug="--debug" in words)
    return end(code) if argv is None else code


def _main(words: list[str]) -> int | None:
    from grokfast.cli.commands import COMMANDS
    from grokfast.cli.preflight import Call, Help, preflight
    from grokfast.cli.signatures import read_command

    commands = {name: read_command(name, function) for name, function in COMMANDS.items()}
    request = preflight(words, commands)
    if isinstance(request, Help):
        from grokfast.cli.helptext import command_help, overview

        chosen = request.command
        print(command_help(commands[chosen]) if chosen else overview(commands))
        return None
    if not isinstance(request, Call):
        from grokfast.installation import version

        print(f"grokfast {version()}")
        return None
    return _through_fire(COMMANDS, request.arguments)


def script(function: Callable[..., int | None]) -> int:
    """Runs a program of one function (bench/) and returns its exit code: nothing starts before
    every argument is bound, and errors are one line."""
    words = sys.argv[1:]
    return guarded(lambda: _fire(_inert(function), words, Path(sys.argv[0]).name))


def _through_fire(commands: dict[str, Callable[..., Any]], arguments: list[str]) -> int | None:
    return _fire({name: _inert(f) for name, f in commands.items()}, arguments, "grokfast")


def _fire(component: Any, arguments: list[str], name: str) -> int | None:
    import fire

    code: list[int | None] = [None]

    def start(job: Job) -> None:
        code[0] = job._start()

    # ``serialize`` is called once fire has consumed every argument without an error.
    fire.Fire(component, command=arguments, name=name, serialize=start)
    return code[0]


class Job:
    """A command with its arguments, not yet begun; fire finds no member in it to chain into."""

    __slots__ = ("_start",)

    def __init__(self, start: Callable[[], int | None]) -> None:
        self._start = start

    def __dir__(self) -> list[str]:
        return []


def _inert(function: Callable[..., int | None]) -> Callable[..., Job]:
    import functools

    @functools.wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Job:
        return Job(lambda: function(*args, **kwargs))

    return bound
