"""The footnote of a figure, which outlives its file: thresholds, steps, seeds, engine, version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from matplotlib.cbook import is_math_text
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.fields import SHORT_NAMES, scalar_fields
from grokfast.figures.facets import SYMBOLS, axes_of, label_of, words
from grokfast.figures.numbers import number
from grokfast.figures.style import plain

#: Points.
CAPTION_SIZE = 6.5
#: Inches that stay free beside the caption, and the share of the rest: letters are set on pixels,
#: which makes long lines up to 2% longer than measured.
_MARGIN, _SHARE = 0.2, 0.98


def steps_of(results: Cells) -> int:
    """The longest budget of any cell."""
    grid = results.grid
    if "steps" in grid.axes:
        return int(max(grid.axes["steps"]))
    if "steps" in _stood_for(results):
        return max(cell.steps for cell in grid.cells)
    return grid.experiment.steps


def _stood_for(results: Cells) -> set[str]:
    """The fields whose values follow from named settings among the axes, or were put together."""
    over = results.over if isinstance(results, Aggregate) else {}
    named = (results.grid.settings.get(name, {}) for name in (*results.grid.axes, *over))
    fields = {path for setting in named for values in setting.values() for path in values}
    return fields | {SHORT_NAMES.get(name, name) for name in over}


def check_budget(results: Cells, budget: int | None) -> int:
    """The number of steps at which a diagram is read.

    Raises:
        UsageError: less than 1 or more than what was trained.
    """
    steps = steps_of(results)
    if budget is None:
        own = results.budget if isinstance(results, Aggregate) else None
        return steps if own is None else min(own, steps)
    if not 1 <= budget <= steps:
        raise UsageError(f"budget is {budget}; give 1 to {steps}, the steps of this run")
    return int(budget)


def replicates(results: Cells, said: str) -> str:
    """A sentence on the replicates that were put together, e.g. ``Medians over 5 model seeds.``;
    nothing where every cell is shown."""
    if not isinstance(results, Aggregate):
        return ""
    names = []
    for name, values in results.over.items():
        label = SYMBOLS.get(name, label_of(name, results.grid.experiment))
        seeds = name.endswith("seed")
        names.append(f"{len(values)} {label}s" if seeds else f"{len(values)} values of {label}")
    return said.format(over=" x ".join(names))


def setting(results: Cells, budget: int) -> str:
    """Steps, seeds and other fixed values, and what is missing."""
    experiment, steps = results.grid.experiment, steps_of(results)
    at = f"{budget:,} steps" if budget == steps else f"As of {budget:,} of {steps:,} steps"
    follow = _stood_for(results)
    if "steps" in follow and budget == steps:
        least = min(cell.steps for cell in results.grid.cells)
        at = f"{least:,} to {at}" if least < steps else at
    fixed = []
    for name, path in (
        ("learning rate", "optimizer.lr"),
        ("weight decay", "optimizer.weight_decay"),
        *((f"{symbol} =", path) for path, symbol in SYMBOLS.items()),
        ("data seed", "task.seed"),
        ("model seed", "model.seed"),
        ("", "model.activation"),
    ):
        if path in follow or path not in scalar_fields(experiment):
            continue
        values: Any = results.grid.axes.get(path, (experiment.get(path),))
        if len(values) == 1 and values[0] is not None:
            fixed.append(f"{name} {number(values[0])}".strip())
    words = [f"{at}; {', '.join(fixed)}." if fixed else f"{at}."]
    return " ".join([*words, *_missing(results, budget)])


def _missing(results: Cells, budget: int) -> Iterator[str]:
    """What is not known, one sentence each."""
    if isinstance(results, Aggregate):
        missing = int(results["missing"].sum())
        if missing:
            every = missing + int(results["replicates"].sum())
            yield f"{missing:,} of {every:,} replicates are not finished."
        return
    unknown = results.phases(budget) < 0
    without = unknown & results.finished(budget)
    unfinished = int((unknown & ~without).sum()) + results.grid.size - len(results)
    if unfinished:
        yield f"{unfinished:,} of {results.grid.size:,} cells are not finished."
    if without.any():
        yield f"The phase of {int(without.sum()):,} cells is not known."


def origin(results: Cells) -> str:
    """Engine, device, precision, version."""
    known = results.provenance
    engine = f"Engine {plain(known['engine'])}" if "engine" in known else ""
    device = f"on {plain(known['device'])}" if "device" in known else ""
    version = plain(known.get("package_version", "")) or "unknown"
    trained = " ".join(filter(None, (engine, device)))
    dtype = results.grid.experiment.dtype
    return f"{trained + ', ' if trained else ''}{dtype}; grokfast\N{NO-BREAK SPACE}{version}."


def caption(results: Cells, width: float, *extra: str, budget: int | None = None) -> str:
    """The footnote, wrapped to a width in inches."""
    budget = steps_of(results) if budget is None else budget
    text = " ".join(
        (
            plain(results.rule.sentence, 1000),
            *filter(None, extra),
            setting(results, budget),
            origin(results),
        )
    )
    return wrap(text, _SHARE * (width - _MARGIN), CAPTION_SIZE)


def wrap(text: str, width: float, size: float) -> str:
    """Text in lines of at most ``width`` inches, measured in the font at ``size`` points."""
    lines: list[str] = []
    # A sign stays with its number.
    text = re.sub("(?<=[≥<>=]) | (?==)", "\N{NO-BREAK SPACE}", text)
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def text_width(text: str, size: float) -> float:
    """Inches of a line of text at ``size`` points."""
    math = is_math_text(text)
    shown = text if math else text.replace(r"\$", "$")  # as Matplotlib draws it
    font = FontProperties(size=size)
    return float(text_to_path.get_text_width_height_descent(shown, font, ismath=math)[0]) / 72


def describe(results: Cells, cell: int) -> str:
    """The axis values of one cell, short: ``lr $10^{-3}$, weight decay 5``."""
    parts = []
    for axis in axes_of(results):
        if len(axis.values) > 1:
            value = results[axis.name][cell]
            value = value.item() if hasattr(value, "item") else value
            parts.append(axis.titled(value, words(axis.name)))
    return ", ".join(parts) or plain(results.grid.name)
