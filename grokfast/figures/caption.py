"""The footnote of a figure, which outlives its file: thresholds, steps, seeds, engine, version."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.cbook import is_math_text
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.fields import scalar_fields
from grokfast.figures.facets import axes_of
from grokfast.figures.labels import label_of, with_value
from grokfast.figures.numbers import number
from grokfast.figures.page import page
from grokfast.figures.style import plain

#: Points.
CAPTION_SIZE = 6.5
#: Inches that stay free beside the caption, and the share of the rest: letters are set on pixels,
#: which makes long lines up to 2% longer than measured.
_MARGIN, _SHARE = 0.2, 0.98

#: Fields whose values the footnote states where all cells have the same.
_STATED = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "task.fraction",
    "task.corruption",
    "task.seed",
    "model.seed",
    "model.activation",
)


def steps_of(results: Cells) -> int:
    """The longest budget of any cell."""
    return int(max(results.trained.values_of("steps")))


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
        label = label_of(name, results.trained)
        called = label.symbol or label.words
        seeds = name.endswith("seed")
        names.append(f"{len(values)} {called}s" if seeds else f"{len(values)} values of {called}")
    return said.format(over=" x ".join(names))


def setting(results: Cells, budget: int) -> str:
    """Steps, seeds and other fixed values, and what is missing."""
    grid, steps = results.trained, steps_of(results)
    at = f"{budget:,} steps" if budget == steps else f"As of {budget:,} of {steps:,} steps"
    least = int(min(grid.values_of("steps")))
    if least < budget == steps:
        at = f"{least:,} to {at}"
    known = scalar_fields(grid.experiment)
    fixed = []
    for path in dict.fromkeys((*_STATED, *grid.axes)):
        values = grid.values_of(path) if path in known or path in grid.axes else ()
        if len(values) == 1 and values[0] is not None:
            named = path != "model.activation"  # whose values say what they are
            fixed.append(with_value(path, values[0], grid) if named else number(values[0]))
    stated = [f"{at}; {', '.join(fixed)}." if fixed else f"{at}."]
    return " ".join([*stated, *_missing(results, budget)])


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
    dtypes = results.trained.values_of("dtype")
    how = ", ".join(filter(None, (trained, "" if len(dtypes) > 1 else dtypes[0])))
    return f"{how + '; ' if how else ''}grokfast\N{NO-BREAK SPACE}{version}."


def caption(results: Cells, width: float, *extra: str, budget: int | None = None) -> str:
    """The footnote, wrapped to the width of a figure in inches, as the page has it."""
    budget = steps_of(results) if budget is None else budget
    text = " ".join(
        (
            plain(results.definition, 1000),
            *filter(None, extra),
            setting(results, budget),
            origin(results),
        )
    )
    width *= page().width
    return wrap(text, _SHARE * (width - _MARGIN), CAPTION_SIZE * page().letters)


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
    """The axis values of one cell, short: ``learning rate $10^{-3}$, weight decay 5``."""
    parts = []
    for axis in axes_of(results):
        if len(axis.values) > 1:
            value = results[axis.name][cell]
            value = value.item() if hasattr(value, "item") else value
            parts.append(axis.titled(None if value != value else value))  # none among numbers
    return ", ".join(parts) or plain(results.grid.name)
