"""What is drawn where nobody says: which kind of figure, which cells in one of single cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.figures.facets import arrange
from grokfast.figures.numbers import is_number
from grokfast.figures.regions import heart
from grokfast.results import DIVERGED

#: Position in the file, or axis name -> value as for :meth:`Cells.find`.
Cell = int | Mapping[str, Any]

MAX_CELLS = 12


def choose(results: Cells, cells: Sequence[Cell] | None) -> list[int]:
    """Positions of the named cells; by default one of each phase that occurs, from the heart of
    its region.

    Raises:
        UsageError: no such cell, too many, or nothing finished to choose from.
    """
    if cells is None:
        return _one_of_each(results)
    found = []
    for cell in cells:
        if isinstance(cell, Mapping):
            found.append(results.find(**cell))
        elif 0 <= cell < len(results):
            found.append(int(cell))
        else:
            raise UsageError(f"no cell {cell}; there are {len(results)}, counted from 0")
    found = list(dict.fromkeys(found))
    if not 1 <= len(found) <= MAX_CELLS:
        raise UsageError(f"{len(found)} cells; give 1 to {MAX_CELLS} for one figure")
    return found


def usual_kind(results: Cells, over: Sequence[str] = ()) -> str:
    """What is drawn of results where nobody says: the curves of a single cell, T_train and T_val
    against a single axis of numbers, else phases.

    Args:
        over: short names of axes that will be put together.
    """
    axes = {name: values for name, values in results.axes.items() if name not in over}
    varied = {name: values for name, values in axes.items() if len(values) > 1}
    if not varied:
        return "curves"
    ((name, values), *others) = varied.items()
    numbers = all(map(is_number, values)) and not name.endswith("seed")
    return "phases" if others or not numbers else "times"


def _one_of_each(results: Cells) -> list[int]:
    if results.grid.size == 1:
        return [0]
    facets = arrange(results)
    phase = facets.split(results, results.phases())
    position = facets.split(results, np.arange(len(results)))
    healthy = facets.split(results, "status") != DIVERGED
    chosen = []
    for code in range(len(results.rule.phases)):
        # The first panel that has it; a cell that diverged only where there is no other.
        options = [m[k] for m in ((phase == code) & healthy, phase == code) for k in range(len(m))]
        for k, mask in enumerate(options):
            at = heart(mask)
            if at is not None:
                chosen.append(int(position[k % len(phase)][at]))
                break
    if not chosen:
        raise UsageError(
            "the phase of no cell is known yet, so there is none to choose",
            hint="name cells: --cell=lr:1e-3,weight_decay:5",
        )
    return chosen
