"""The footnote of a figure, which outlives its file: thresholds, steps, seeds, engine, version."""

from __future__ import annotations

from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from grokfast.errors import UsageError
from grokfast.figures.numbers import number
from grokfast.figures.style import plain
from grokfast.results import Results

#: Points.
CAPTION_SIZE = 6.5
#: Inches that stay free beside the caption.
_MARGIN = 0.2


def steps_of(results: Results) -> int:
    """The longest budget of any cell."""
    return int(max(results.axes.get("steps", (results.grid.experiment.steps,))))


def check_budget(results: Results, budget: int | None) -> int:
    """The number of steps at which a diagram is read.

    Raises:
        UsageError: less than 1 or more than what was trained.
    """
    steps = steps_of(results)
    if budget is None:
        return steps
    if not 1 <= budget <= steps:
        raise UsageError(f"budget is {budget}; give 1 to {steps}, the steps of this run")
    return int(budget)


def rules(results: Results) -> str:
    """What the words memorised, generalised, comprehension and grokking mean here."""
    rule = results.rule
    sign = ">" if rule.strict else "≥"
    tolerance = f" \N{MINUS SIGN} {rule.tolerance:g}" if rule.tolerance else ""
    above = ">" if rule.gap_inclusive else "≥"
    return (
        f"T: first step with accuracy {sign} {rule.threshold:g}{tolerance}; "
        f"grokking where T(val) \N{MINUS SIGN} T(train) {above} {rule.gap:,} steps."
    )


def setting(results: Results, budget: int) -> str:
    """Steps, seeds and other fixed values, and what is missing."""
    experiment, steps = results.grid.experiment, steps_of(results)
    at = f"{budget:,} steps" if budget == steps else f"As of {budget:,} of {steps:,} steps"
    fixed = []
    for name, path in (
        ("learning rate", "optimizer.lr"),
        ("weight decay", "optimizer.weight_decay"),
        ("data seed", "task.seed"),
        ("model seed", "model.seed"),
        ("", "model.activation"),
    ):
        values: Any = results.grid.axes.get(path, (experiment.get(path),))
        if len(values) == 1:
            fixed.append(f"{name} {number(values[0])}".strip())
    words = [f"{at}; {', '.join(fixed)}." if fixed else f"{at}."]
    unfinished = int((results.phases(budget) < 0).sum()) + results.grid.size - len(results)
    if unfinished:
        words.append(f"{unfinished:,} of {results.grid.size:,} cells are not finished.")
    return " ".join(words)


def origin(results: Results) -> str:
    """Engine, device, precision, version."""
    known = results.provenance
    engine = f"Engine {plain(known['engine'])}" if "engine" in known else ""
    device = f"on {plain(known['device'])}" if "device" in known else ""
    version = plain(known.get("package_version", "")) or "unknown"
    trained = " ".join(filter(None, (engine, device)))
    dtype = results.grid.experiment.dtype
    return f"{trained + ', ' if trained else ''}{dtype}; grokfast\N{NO-BREAK SPACE}{version}."


def caption(results: Results, width: float, *extra: str, budget: int | None = None) -> str:
    """The footnote, wrapped to a width in inches."""
    budget = steps_of(results) if budget is None else budget
    text = " ".join(
        (rules(results), *filter(None, extra), setting(results, budget), origin(results))
    )
    return wrap(text, width - _MARGIN, CAPTION_SIZE)


def wrap(text: str, width: float, size: float) -> str:
    """Text in lines of at most ``width`` inches, measured in the font at ``size`` points."""
    font = FontProperties(size=size)
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        points = text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0]
        if lines and points / 72 <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def describe(results: Results, cell: int) -> str:
    """The axis values of one cell, short: ``lr $10^{-3}$, weight decay 5``."""
    parts = []
    for name, values in results.axes.items():
        if len(values) > 1:
            value = results[name][cell]
            value = value.item() if hasattr(value, "item") else value
            short = plain(name.replace("_", " "))
            parts.append(number(value) if isinstance(value, str) else f"{short} {number(value)}")
    return ", ".join(parts) or plain(results.grid.name)
