"""What lies along x of figures of single cells: optimizer steps, or epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.aggregate import Aggregate
from grokfast.cells import Cells
from grokfast.errors import UsageError
from grokfast.experiment import Experiment

Unit = Literal["steps", "epochs"]


@dataclass(frozen=True)
class Along:
    """The unit of x, and how many steps it is in each drawn cell, by position."""

    unit: Unit
    steps: dict[int, int]

    @classmethod
    def of(cls, results: Cells, chosen: Sequence[int], unit: Unit) -> Along:
        """Of the cells at some positions.

        Raises:
            UsageError: another unit, or epochs of replicates that may not be equally long.
        """
        if unit == "steps":
            return cls(unit, dict.fromkeys(chosen, 1))
        if unit != "epochs":
            raise UsageError(f"x is {unit!r}; give steps or epochs")
        if isinstance(results, Aggregate):
            others = [name for name in results.over if not name.endswith("seed")]
            if others:
                raise UsageError(
                    f"replicates over {', '.join(others)} may have epochs of several lengths",
                    hint="give x=steps",
                )
        cells = results.grid.cells
        return cls(unit, {k: steps_per_epoch(cells[int(results["run"][k])]) for k in chosen})

    def at(self, cell: int, steps: ArrayLike) -> NDArray[Any]:
        """Steps of a cell in this unit."""
        return np.asarray(steps) / self.steps[cell]

    def end(self, results: Cells, cell: int) -> float:
        """What the drawn cell that went furthest was trained for, in the unit of this one; enough
        for an axis from 1 on."""
        return max(max(ended(results, k) for k in self.steps) / self.steps[cell], 2.0)


def ended(results: Cells, cell: int) -> int:
    """The step that a cell was trained to; of replicates their budget."""
    return int(results["steps_done" if "steps_done" in results else "budget"][cell])


def steps_per_epoch(cell: Experiment) -> int:
    """Steps of an epoch: with minibatches they follow from the size of the data, which are made.

    Raises:
        UsageError, EnvironmentProblem: data that cannot be made here.
    """
    if not cell.batch_size:
        return 1
    from grokfast.bucketing import steps_per_epoch  # imports torch, as the data do

    return steps_per_epoch(cell, len(cell.task.build().x_train))
