"""``--help``: usage and options of each command, from its signature and docstring.

fire's own help opens a pager, goes to stderr, and advertises one-letter flags that the wall
refuses; its docstring parser is what we use of it.
"""

from __future__ import annotations

from fire import docstrings

from grokfast.cli.signatures import Command
from grokfast.cli.wrapping import command as command_line
from grokfast.cli.wrapping import width, wrapped

_INTRO = (
    "Phase diagrams of grokking: trains a whole grid of small networks at once, "
    "to the exact step at which each memorised and generalised."
)
#: All four phases within a minute on two cores.
FIRST_RUN = (
    "grokfast run addition-regression --steps=10000 --lr=logspace:-4.5:-2:6 "
    "--weight-decay=0,2,4,6,8",
    "grokfast plot addition-regression.h5",
)
_CODES = (
    "exit codes: 0 done, 1 internal error, 2 usage, 3 environment or data, 4 cells are still to "
    "train (status) or cannot be (--launcher=ray), 130 / 143 interrupted (what was "
    "done is saved; the same command goes on)"
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
            *wrapped(_INTRO),
            "",
            "commands:",
            *_table(rows),
            "",
            "options of every command:",
            *_table(_GLOBAL),
            "",
            "A first run:",
            *(line for example in FIRST_RUN for line in command_line(example)),
            "",
            *wrapped(_CODES),
        ]
    )


def command_help(command: Command) -> str:
    """Help on one command."""
    parsed = docstrings.parse(command.function.__doc__ or "")
    told = {a.name: " ".join((a.description or "").split()) for a in parsed.args or ()}
    usage = ["grokfast", command.name, *(p.metavar for p in command.positionals)]
    usage += [f"--{o.name}={o.metavar}" for o in command.options.values() if o.required]
    lines = [*wrapped(f"usage: {' '.join(usage)} [OPTIONS]", hanging=7), ""]
    for block in filter(None, (parsed.summary, parsed.description)):
        for paragraph in block.split("\n\n"):
            if paragraph.startswith("grokfast "):
                for example in paragraph.splitlines():
                    lines += command_line(example, indent=0)
            else:
                lines += wrapped(paragraph)
            lines.append("")
    if command.positionals:
        lines += [
            "arguments:",
            *_table({p.metavar: told[p.parameter] for p in command.positionals}),
        ]
        lines.append("")
    rows = {}
    for option in command.options.values():
        left = option.shown if option.switch else f"{option.shown}={option.metavar}"
        default = "" if option.switch or not option.default else f" Default: {option.default}."
        rows[left] = told[option.parameter] + default
    if rows:
        lines += ["options:", *_table(rows), ""]
    return "\n".join([*lines, "options of every command:", *_table(_GLOBAL)])


def _summary(command: Command) -> str:
    return docstrings.parse(command.function.__doc__ or "").summary or ""


def _table(rows: dict[str, str]) -> list[str]:
    """Two columns; a left side that is too long gets a line of its own."""
    column = min(24, max(map(len, rows)) + 4, width() // 3)
    lines = []
    for left, right in rows.items():
        told = wrapped(right, indent=column) or [""]
        if len(left) + 4 > column:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left}".ljust(column) + told.pop(0)[column:])
        lines += told
    return lines
