"""``--help``: usage and options of each command, from its signature and docstring.

fire's own help opens a pager, goes to stderr, and advertises one-letter flags that the wall
refuses; its docstring parser is what we use of it.
"""

from __future__ import annotations

import shutil
import textwrap

from fire import docstrings

from grokfast.cli.signatures import Command

_INTRO = (
    "Phase diagrams of grokking: trains a whole grid of small networks at once, "
    "to the exact step at which each memorised and generalised."
)
_GLOBAL = {
    "--help, -h": "Show this and exit.",
    "--version": "Print the version and exit.",
    "--debug": "Show the traceback of an error.",
}


def overview(commands: dict[str, Command]) -> str:
    """Help on all commands."""
    rows = {name: _summary(c) for name, c in commands.items()}
    return "\n".join(
        [
            "usage: grokfast COMMAND ...",
            "",
            *textwrap.wrap(_INTRO, _width()),
            "",
            "commands:",
            *_table(rows),
            "",
            "options of every command:",
            *_table(_GLOBAL),
            "",
            "A first run:",
            "  grokfast run addition-classification --steps=5000 --lr=logspace:-4:-2:5 "
            "--weight-decay=0,5,10",
            "  grokfast plot addition-classification.h5",
            "",
            "exit codes: 0 done, 1 internal error, 2 usage, 3 environment or data,",
            "130 / 143 interrupted (what was done is saved; the same command goes on)",
        ]
    )


def command_help(command: Command) -> str:
    """Help on one command."""
    parsed = docstrings.parse(command.function.__doc__ or "")
    told = {a.name: " ".join((a.description or "").split()) for a in parsed.args or ()}
    usage = ["grokfast", command.name, *(p.metavar for p in command.positionals)]
    usage += [f"--{o.name}={o.metavar}" for o in command.options.values() if o.required]
    lines = [f"usage: {' '.join(usage)} [OPTIONS]", ""]
    for block in filter(None, (parsed.summary, parsed.description)):
        for paragraph in block.split("\n\n"):
            example = paragraph.startswith("grokfast ") or paragraph.startswith(" ")
            lines += paragraph.splitlines() if example else textwrap.wrap(paragraph, _width())
            lines.append("")
    if command.positionals:
        lines += [
            "arguments:",
            *_table({p.metavar: told[p.parameter] for p in command.positionals}),
        ]
        lines.append("")
    rows = {}
    for option in command.options.values():
        off = "no-" * (option.default is True)  # a switch that is on can only be switched off
        left = f"--{off}{option.name}" if option.switch else f"--{option.name}={option.metavar}"
        default = "" if option.switch or option.default is None else f" Default: {option.default}."
        rows[left] = told[option.parameter] + default
    if rows:
        lines += ["options:", *_table(rows), ""]
    return "\n".join([*lines, "options of every command:", *_table(_GLOBAL)])


def _summary(command: Command) -> str:
    return docstrings.parse(command.function.__doc__ or "").summary or ""


def _table(rows: dict[str, str]) -> list[str]:
    """Two columns; a left side that is too long gets a line of its own."""
    column = min(24, max(map(len, rows)) + 4)
    lines = []
    for left, right in rows.items():
        wrapped = textwrap.wrap(right, _width() - column) or [""]
        if len(left) + 4 > column:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left}".ljust(column) + wrapped.pop(0))
        lines += [" " * column + line for line in wrapped]
    return lines


def _width() -> int:
    return max(60, min(100, shutil.get_terminal_size((88, 24)).columns))
