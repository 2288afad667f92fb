"""Presets: experiments with their grids, from the literature. Data, not code paths."""

from __future__ import annotations

import difflib

from grokfast.errors import UsageError
from grokfast.grid import Grid
from grokfast.presets import mnist, modular, parity, power, toy
from grokfast.presets.base import Preset

PRESETS: dict[str, Preset] = {
    **toy.PRESETS,
    **mnist.PRESETS,
    **modular.PRESETS,
    **parity.PRESETS,
    **power.PRESETS,
}


def preset(name: str) -> Grid:
    """The preset's grid; change it with ``.grid(lr=..., weight_decay=...)``.

    Raises:
        UsageError: no such preset; the message suggests the closest one.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
        raise UsageError(
            f"unknown preset {name!r}; known are {', '.join(PRESETS)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    return PRESETS[name].build()
