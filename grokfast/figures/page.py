"""The options of all figures: their size, whose axes they are drawn into, what is left out."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokfast.errors import UsageError

#: Letters of a small figure have at least this share of their usual size: about 6 points.
_SMALLEST = 0.75
#: Inches of the height that title, labels and footnote take at the usual size of letters, about.
_BESIDE = 1.5
#: Inches that a side of a figure may have.
_LEAST, _MOST = 1.0, 60.0
_CENTIMETRE = 1 / 2.54

Size = str | tuple[float, float]


@dataclass
class Page:
    """How the figure under way is drawn.

    Attributes:
        size: width and height in inches, a height of ``None`` as the width has it; ``None`` for the
            figure's own.
        ax: the caller's axes.
        caption, legend: whether there is one.
        letters: size of letters and lines relative to the usual.
        width, height: of the figure relative to its own.
    """

    size: tuple[float, float | None] | None = None
    ax: Axes | None = None
    caption: bool = True
    legend: bool = True
    letters: float = 1.0
    width: float = 1.0
    height: float = 1.0

    def fit(self, own: tuple[float, float]) -> tuple[float, float]:
        """The size of a figure that would have its own; sets how it relates to that."""
        if self.size is None:
            return own
        width, height = self.size
        ratio = width / own[0] if height is None else min(width / own[0], height / own[1])
        self.letters = max(ratio, _SMALLEST)
        if height is None:
            height = ratio * own[1] + (self.letters - ratio) * _BESIDE
        self.width, self.height = width / own[0], height / own[1]
        return width, height


_PAGE: ContextVar[Page] = ContextVar("page", default=Page())  # noqa: B039  only options() makes others


def page() -> Page:
    """Of the figure that is being drawn."""
    return _PAGE.get()


def inches_of(size: Size) -> tuple[float, float | None]:
    """Width and height in inches; the height may be missing from a text.

    Args:
        size: two numbers of inches, or a text: ``8.5x6cm``, ``3.3x2.4in``, ``8.5cm``.

    Raises:
        UsageError: anything else, or a side that no paper has.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"([0-9.]+)(?:x([0-9.]+))?(cm|in)", size.replace(" ", "").lower())
        try:
            sides = [float(side) for side in match.groups()[:2] if side] if match else []
        except ValueError:
            sides = []
        unit = _CENTIMETRE if match and match[3] == "cm" else 1.0
    else:
        sides, unit = [float(side) for side in size], 1.0
        sides = sides if len(sides) == 2 else []
    if not sides:
        raise UsageError(
            f"size {size!r} is no width and height", hint="give 8.5x6cm, 3.3x2.4in or 8.5cm"
        )
    if not all(_LEAST <= side * unit <= _MOST for side in sides):
        raise UsageError(f"size {size!r}: a side has {_LEAST:g} to {_MOST:g} inches")
    width, *height = (side * unit for side in sides)
    return width, height[0] if height else None


#: Of :func:`options`, in the order of a signature.
_SHARED = {"size": None, "ax": None, "caption": True, "legend": True}
_TOLD = """

Arguments of every figure:
    size: width and height in inches, or a text such as ``"8.5x6cm"`` or ``"8.5cm"``; letters and
        lines grow with the figure, and shrink to three quarters at most.
    ax: draw into these axes of the caller's, without title (unless given) and footnote, in the
        caller's style, and return their figure. A figure of several panels raises UsageError.
    caption, legend: ``False`` leaves them out.
"""


def options(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Adds to a function that draws a figure the arguments that all have, and to its docstring what
    they do: ``size``, ``ax``, ``caption``, ``legend``."""

    @functools.wraps(function)
    def drawn(
        *args: Any,
        size: Size | None = None,
        ax: Axes | None = None,
        caption: bool = True,
        legend: bool = True,
        **own: Any,
    ) -> Figure:
        if size is not None and ax is not None:
            raise UsageError("ax has a size of its own; leave size out")
        inches = None if size is None else inches_of(size)
        token = _PAGE.set(Page(inches, ax, caption, legend))
        try:
            figure = function(*args, **own)
        finally:
            _PAGE.reset(token)
        if ax is not None:
            figure = ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure
        if not legend:
            for panel in figure.axes if ax is None else [ax]:
                if (inside := panel.get_legend()) is not None:
                    inside.remove()
        return figure

    drawn.__doc__ = (inspect.getdoc(function) or "") + _TOLD
    signature = inspect.signature(function)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in _SHARED.items()
    ]
    drawn.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *more]
    )
    return drawn
