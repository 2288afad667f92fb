"""Text at the width of the terminal."""

from __future__ import annotations

import shutil
import textwrap


def width(most: int = 100) -> int:
    """Columns of the terminal, but no more than can be read; 88 where there is none."""
    return max(40, min(most, shutil.get_terminal_size((88, 24)).columns))


def wrapped(text: str, indent: int = 0, hanging: int = 0, most: int = 100) -> list[str]:
    """Lines of a paragraph.

    Args:
        indent: columns that stay free on the left.
        hanging: more of them from the second line on.
        most: columns, in a wide terminal.
    """
    return textwrap.wrap(
        text,
        width(most),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_on_hyphens=False,
        break_long_words=False,
    )


def command(text: str, indent: int = 2) -> list[str]:
    """Lines of a command line, which a shell reads as one."""
    lines = textwrap.wrap(
        text,
        width() - 2,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 4),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [*(f"{line} \\" for line in lines[:-1]), *lines[-1:]]
