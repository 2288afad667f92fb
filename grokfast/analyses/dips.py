"""What the accuracies of a run do over windows of steps, from its recorded curves.

In a run with instabilities ("slingshots") a single last step proves nothing: the training accuracy
falls for a few steps every few hundred. So a run is told by first crossings, by medians over its
last steps, and by its dips. Steps are those recorded: dips between them are not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.errors import UsageError
from grokfast.outcomes import crossing_name
from grokfast.phases import PhaseRule
from grokfast.results import Results
from grokfast.retyping import again

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

#: A dip: training accuracy below LOW, after it was first at HIGH.
HIGH, LOW = 0.999, 0.9
#: What counts as reached.
REACHED = 0.99
#: Steps of a window.
WINDOW = 1000


def first_step(step: ArrayLike, accuracy: ArrayLike, threshold: float) -> int:
    """First recorded step whose accuracy is at a threshold; -1 for never."""
    at = np.flatnonzero(_at_least(accuracy, threshold))
    return int(np.asarray(step)[at[0]]) if len(at) else -1


def dips(step: ArrayLike, accuracy: ArrayLike, *, high: float = HIGH, low: float = LOW) -> Steps:
    """First recorded step of each dip, ``[dips]``: where the accuracy falls below ``low`` after it
    was first at ``high``. It ends when the accuracy is at ``low`` again."""
    steps = np.asarray(step, np.int64)
    memorised = np.maximum.accumulate(_at_least(accuracy, high))
    inside = memorised & ~_at_least(accuracy, low)
    begins = inside & ~np.concatenate([[False], inside[:-1]])
    return steps[begins]


def last_median(step: ArrayLike, accuracy: ArrayLike, window: int = WINDOW) -> float:
    """Median over the recorded ones of the last ``window`` steps; NaN where there are none."""
    steps, values = np.asarray(step), np.asarray(accuracy, float)
    return float(np.median(values[steps > steps[-1] - window])) if len(steps) else np.nan


def window_means(
    step: ArrayLike, accuracy: ArrayLike, window: int = WINDOW
) -> tuple[Steps, Floats]:
    """Where each window begins that holds a recorded step, and the mean accuracy in it: of the
    steps k ``window`` to (k + 1) ``window``, without the latter; both ``[windows]``."""
    steps, values = np.asarray(step, np.int64), np.asarray(accuracy, float)
    begins, which = np.unique(steps // window, return_inverse=True)
    means = np.bincount(which, values) / np.bincount(which)
    return begins * window, means


@dataclass(frozen=True)
class Signature:
    """How one cell memorised, generalised and slipped.

    Attributes:
        t_train, t_val: first steps with an accuracy of 99%, -1 for never: exact where the run
            looked for that threshold, else of the recorded steps.
        gap: t_val / t_train; NaN where one is missing.
        dips: number of dips of the training accuracy (see :func:`dips`).
        first_dip: its step, -1 for none.
        spacing: median steps from a dip to the next; NaN below two.
        below: share of the recorded steps of the last window with a training accuracy below 99%.
        last_train, last_val: median accuracies over the last window.
        windows, window_val: where windows begin, and the mean validation accuracy in them.
        every: median distance of recorded steps in the last window.
    """

    t_train: int
    t_val: int
    gap: float
    dips: int
    first_dip: int
    spacing: float
    below: float
    last_train: float
    last_val: float
    windows: Steps
    window_val: Floats
    every: float


def signature(results: Results, cell: int, *, window: int = WINDOW) -> Signature:
    """The signature of the cell at a position of the results.

    Args:
        window: steps of a window.

    Raises:
        UsageError: a run without curves, a cell of which nothing is recorded yet, or a window
            below 1.
    """
    if window < 1:
        raise UsageError(f"window is {window}; give 1 or more steps")
    if "step" not in results or "train_acc" not in results:
        raise UsageError(
            "this run kept no curves",
            hint=again(results.grid, **{"record.curves": "evaluated"}),
        )
    train, val = results["train_acc"][cell], results["val_acc"][cell]
    there = np.isfinite(train) & np.isfinite(val) & (results["step"] >= 1)
    if not there.any():
        raise UsageError(f"nothing is recorded yet of cell {cell}", hint="choose another cell")
    step, train, val = results["step"][there], train[there], val[there]
    t_train, t_val = _reached(results, cell, "train"), _reached(results, cell, "val")
    t_train = first_step(step, train, REACHED) if t_train is None else t_train
    t_val = first_step(step, val, REACHED) if t_val is None else t_val
    fallen, late = dips(step, train), step > step[-1] - window
    begins, means = window_means(step, val, window)
    return Signature(
        t_train=t_train,
        t_val=t_val,
        gap=t_val / t_train if min(t_train, t_val) > 0 else np.nan,
        dips=len(fallen),
        first_dip=int(fallen[0]) if len(fallen) else -1,
        spacing=_median(np.diff(fallen)),
        below=float(1 - _at_least(train[late], REACHED).mean()),
        last_train=last_median(step, train, window),
        last_val=last_median(step, val, window),
        windows=begins,
        window_val=means,
        every=_median(np.diff(step[late])),
    )


def _reached(results: Results, cell: int, part: str) -> int | None:
    """The exact step, where the run looked for 99%; None where it did not."""
    experiment = results.grid.cells[int(results["run"][cell])]
    if REACHED in experiment.evaluation.thresholds:
        name = crossing_name(part, REACHED)
        return int(results.crossings[name][cell]) if name in results.crossings else None
    rule = experiment.phase
    if rule.threshold != REACHED:
        return None
    if isinstance(rule, PhaseRule) and (rule.tolerance or rule.strict):
        return None
    return int(results[f"t_{part}"][cell])


def _at_least(accuracy: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """In float32, as accuracies are kept: 9 of 10 reach a threshold of 0.9."""
    found: NDArray[np.bool_] = np.asarray(accuracy, np.float32) >= np.float32(threshold)
    return found


def _median(values: NDArray[np.int64]) -> float:
    return float(np.median(values)) if len(values) else np.nan
