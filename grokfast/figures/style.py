"""The packaged style, the palette, and a Figure that always saves the same way."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from grokfast.errors import UsageError
from grokfast.figures.page import page

#: Colour of each phase: those of one rule are a ladder of lightness, so that they can be told apart
#: in grey, and far from each other for every kind of colour blindness.
COLOURS: dict[str, str] = {
    "comprehension": "#A0D8F6",
    "grokking": "#E8930C",
    "memorization": "#08306B",
    "confusion": "#707070",
    "coexistence": "#A0D8F6",
    "partial inversion": "#FFF3B8",
    "full inversion": "#E0731D",
    "forgetting": "#300804",
    "collapse": "#300804",
}

#: Colour of a letter on each of these; phases of other rules take what their rule leaves free.
LETTER_INK: dict[str, str] = {
    "#A0D8F6": "#10222E",
    "#E8930C": "#2E2000",
    "#08306B": "#FFFFFF",
    "#FFF3B8": "#2E2700",
    "#E0731D": "#1C0B00",
    "#300804": "#FFFFFF",
    "#707070": "#FFFFFF",
}

INK, FAINT = "#222222", "#777777"
TRAIN, VALIDATION = "#0B3C6F", "#D55E00"
CORRUPTED, UNCORRUPTED = "#AA3377", "#009E73"
NEURON = "#4B6584"

#: Of lines that have no meaning of their own.
SERIES = (NEURON, "#E69F00", CORRUPTED, UNCORRUPTED, "#56B4E9", "#882255")


def palette(phases: Sequence[str]) -> tuple[str, ...]:
    """One colour a phase; where there are more than colours, these come again."""
    taken = {COLOURS[name] for name in phases if name in COLOURS}
    free = itertools.cycle([colour for colour in LETTER_INK if colour not in taken] or LETTER_INK)
    return tuple(COLOURS[name] if name in COLOURS else next(free) for name in phases)


@cache
def _parameters() -> dict[str, Any]:
    path = Path(__file__).with_name("grokfast.mplstyle")
    known: Any = matplotlib.rc_params_from_file(path, use_default_template=True)
    parameters: dict[str, Any] = dict(known)
    for name in ("backend", "backend_fallback", "interactive"):  # the caller's, not ours
        parameters.pop(name, None)
    return parameters


#: Parameters that are lengths in points, and grow with the letters.
_LENGTH = re.compile(
    r"font\.size|legend\.fontsize|.*\.(title|label)size|(lines|axes|patch|hatch)\.linewidth"
    r"|lines\.marker(size|edgewidth)|axes\.(label|title)pad|[xy]tick\.(major|minor)\.(size|width|pad)"
)


@contextlib.contextmanager
def style(letters: float = 1.0) -> Iterator[None]:
    """Matplotlib's defaults and the packaged style, whatever the caller has set; restored after.
    In axes of the caller's all is as the caller has set it.

    Args:
        letters: size of letters and lines relative to the usual.
    """
    if page().ax is not None:
        yield
        return
    parameters: Any = _parameters()
    with matplotlib.rc_context(parameters):
        matplotlib.rcParams.update(_grown(letters))
        yield


def _grown(letters: float) -> dict[Any, Any]:
    """The lengths of the packaged style, ``letters`` times as large."""
    if letters == 1:
        return {}
    lengths = {k: v for k, v in _parameters().items() if _LENGTH.fullmatch(k)}
    return {k: letters * v for k, v in lengths.items() if isinstance(v, (int, float))}


class Paper(Figure):
    """A Figure without pyplot that saves in the packaged style, the same bytes each time; as large
    as the page wants it (:mod:`grokfast.figures.page`). Where that is in the caller's axes, it only
    hands on what is drawn to these."""

    def __init__(self, figsize: tuple[float, float], **options: Any) -> None:
        super().__init__(page().fit(figsize), **options)
        self._letters, self._host = page().letters, page().ax
        if self._host is None:  # what is drawn from now on, until the style of all this ends
            matplotlib.rcParams.update(_grown(self._letters))

    def add_height(self, inches: float) -> None:
        """Makes room for more or fewer lines of usual letters, unless the page says how high."""
        _, height = page().size or (None, None)
        if height is None:
            self.set_figheight(self.get_figheight() + self._letters * inches)

    def subplots(self, nrows: int = 1, ncols: int = 1, **options: Any) -> Any:
        if self._host is None:
            return super().subplots(nrows, ncols, **options)
        if nrows * ncols > 1:
            raise UsageError(
                f"ax takes a figure of one panel, and this one has {nrows * ncols}",
                hint="leave ax out, or draw a slice of the grid: results.where(...)",
            )
        return np.array([[self._host]]) if not options.get("squeeze", True) else self._host

    def colorbar(self, *args: Any, **options: Any) -> Any:
        if self._host is None:
            return super().colorbar(*args, **options)
        return self._host.figure.colorbar(*args, **options)

    def legend(self, *args: Any, **options: Any) -> Any:
        if not page().legend:
            return None
        if self._host is None:
            return super().legend(*args, **options)
        kept = {k: v for k, v in options.items() if k in ("handles", "handler_map", "title")}
        return self._host.legend(**kept)

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        kind = kwargs.get("format") or Path(str(fname)).suffix.lstrip(".").lower()
        dates = {"pdf": "CreationDate", "svg": "Date"}
        if kind in dates:
            kwargs["metadata"] = {dates[kind]: None, **(kwargs.get("metadata") or {})}
        with style(self._letters):
            super().savefig(fname, transparent=transparent, **kwargs)

    def _repr_png_(self) -> bytes:
        """Notebooks show a figure that pyplot does not know through this."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def plain(text: object, limit: int = 80) -> str:
    """Text from a file as it is to be read: no mathtext, no control characters, not endless."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    return shown.replace("$", r"\$")  # Matplotlib draws \$ as a dollar and starts no formula
