"""T_train, T_val and thresholds -> the four learning phases (pure NumPy).

The phases are those of Liu et al. 2022 (arXiv 2205.10343, Table 1), with the rules that
Shabalin, Sadrtdinov and Shabalin 2023 used for their figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Phase codes, in the order of every legend; -1 means that the cell is not finished.
PHASES: tuple[str, ...] = ("comprehension", "grokking", "memorization", "confusion")
COMPREHENSION, GROKKING, MEMORIZATION, CONFUSION = range(4)
UNKNOWN = -1

#: One letter a phase, as drawn inside the cells of a diagram.
LETTERS: tuple[str, ...] = ("C", "G", "M", "X")


@dataclass(frozen=True, kw_only=True)
class PhaseRule:
    """When a model counts as having memorised and generalised, and what lies between the two.

    An accuracy is reached at ``accuracy >= threshold - tolerance`` (``>`` where ``strict``).
    A cell that reached both is in comprehension where T_val - T_train < ``gap`` steps
    (``<=`` where ``gap_inclusive``), in grokking otherwise.
    """

    threshold: float = 0.9
    tolerance: float = 0.0
    strict: bool = False
    gap: int = 1000
    gap_inclusive: bool = False

    def needed(self, samples: int, threshold: float | None = None) -> int:
        """Fewest correct predictions of ``samples`` that reach the threshold, or another one."""
        bound = ((self.threshold if threshold is None else threshold) - self.tolerance) * samples
        # 0.6 * 1000 is 600.0000000000001 in binary floating point; counts are integers.
        nearest = round(bound)
        if math.isclose(bound, nearest, rel_tol=1e-12, abs_tol=1e-12):
            return nearest + 1 if self.strict else nearest
        return math.ceil(bound)


def classify(
    t_train: ArrayLike,
    t_val: ArrayLike,
    rule: PhaseRule | Sequence[PhaseRule],
    *,
    finished: ArrayLike = True,
    budget: int | None = None,
) -> NDArray[np.int8]:
    """Phase code of each cell.

    Args:
        t_train: first step over the threshold in training, -1 for never. Any shape.
        t_val: the same in validation; same shape.
        rule: thresholds and gap; of all cells, or one for each.
        finished: False where a cell may still change; its phase is -1 unless both steps exist.
        budget: read the phases as of this many steps: later events have not happened.

    Returns:
        int8 array of the broadcast shape: index into ``PHASES`` or -1.
    """
    t_train, t_val = np.broadcast_arrays(np.asarray(t_train), np.asarray(t_val))
    if budget is not None:
        t_train = np.where(t_train > budget, -1, t_train)
        t_val = np.where(t_val > budget, -1, t_val)
    memorised, generalised = t_train >= 0, t_val >= 0
    if isinstance(rule, PhaseRule):
        gap, inclusive = np.array(rule.gap), np.array(rule.gap_inclusive)
    else:
        gap, inclusive = np.array([(r.gap, r.gap_inclusive) for r in rule]).reshape(-1, 2).T
    delay = t_val - t_train
    close = np.where(inclusive, delay <= gap, delay < gap)
    both = memorised & generalised
    phase = np.full(t_train.shape, CONFUSION, np.int8)
    phase[memorised] = MEMORIZATION
    phase[both & ~close] = GROKKING
    phase[both & close] = COMPREHENSION
    return np.where(both | np.asarray(finished, bool), phase, UNKNOWN).astype(np.int8)


def counts(phase: ArrayLike) -> dict[str, int]:
    """Number of cells per phase name, all four always present."""
    phase = np.asarray(phase)
    return {name: int((phase == code).sum()) for code, name in enumerate(PHASES)}
