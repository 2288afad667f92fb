"""Which steps are evaluated, and at which of them losses and accuracies are kept."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from grokfast.experiment import Evaluation, Recording
from grokfast.spacing import log10, logspace


class Schedule:
    """The steps of a bucket, counted from 1.

    Args:
        evaluation, record: of the experiment.
        steps_per_epoch: optimizer steps an epoch.
        budget: steps in all.
    """

    def __init__(
        self, evaluation: Evaluation, record: Recording, steps_per_epoch: int, budget: int
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.budget = budget
        self.eval_steps = evaluated_steps(evaluation, steps_per_epoch, budget)
        self.curve_steps = curve_steps(record, self.eval_steps, steps_per_epoch, budget)
        if evaluation.initial and len(self.curve_steps):
            self.curve_steps = np.concatenate([[0], self.curve_steps])
        # The loop of the authors' code has a pass over the validation loader there.
        self._epochs = evaluation.schedule in ("every-epoch", "log-epochs")

    #: Evaluated steps, sorted int64 ``[S]``; None: the end of every epoch.
    eval_steps: np.ndarray | None
    #: Evaluated steps at which losses and accuracies are kept, 0 (the initial state) before them
    #: where that is asked for: int64 ``[T]``.
    curve_steps: np.ndarray

    @cached_property
    def _eval_set(self) -> frozenset[int]:
        assert self.eval_steps is not None
        return frozenset(self.eval_steps.tolist())

    def evaluates(self, step: int) -> bool:
        """Whether accuracy is looked at after this step."""
        if self.eval_steps is None:
            return step > 0 and step % self.steps_per_epoch == 0
        return step in self._eval_set

    def evaluates_epoch(self, epoch: int) -> bool:
        """Whether this epoch (from 0) ends in an evaluation that the schedule names by epoch."""
        return self._epochs and self.evaluates((epoch + 1) * self.steps_per_epoch)

    @cached_property
    def curve_index(self) -> dict[int, int]:
        """Step -> index on the curve axis."""
        return {step: j for j, step in enumerate(self.curve_steps.tolist())}

    @property
    def evaluations(self) -> int:
        """How many evaluations the budget has."""
        if self.eval_steps is None:
            return self.budget // self.steps_per_epoch
        return len(self.eval_steps)


def evaluated_steps(evaluation: Evaluation, steps_per_epoch: int, budget: int) -> np.ndarray | None:
    """Steps within the budget that are evaluated, int64 ``[S]``; None for every epoch's last."""
    match evaluation.schedule:
        case "every-epoch":
            return None
        case "log-epochs":
            epochs = _log_spaced(evaluation) / steps_per_epoch
            steps = (np.unique(epochs.astype(np.int64)) + 1) * steps_per_epoch
        case "every-steps" if evaluation.every == steps_per_epoch:
            return None
        case "every-steps":
            steps = np.arange(1, budget // evaluation.every + 1, dtype=np.int64) * evaluation.every
        case "log-steps":
            steps = np.unique(_log_spaced(evaluation).astype(np.int64))
        case "end":
            steps = np.array([budget], np.int64)
        case _:
            raise ValueError(f"unknown schedule {evaluation.schedule!r}")
    return steps[steps <= budget]


def _log_spaced(evaluation: Evaluation) -> np.ndarray:
    return np.array(logspace(0, log10(evaluation.horizon), evaluation.points))


def curve_steps(
    record: Recording, eval_steps: np.ndarray | None, steps_per_epoch: int, budget: int
) -> np.ndarray:
    """Evaluated steps at which losses and accuracies are kept, int64 ``[T]``.

    The grid of log-spaced candidates is that of a budget of 10**6 steps, whatever the run's, so
    that a run whose budget is raised keeps the steps that it has.
    """
    match record.curves:
        case "evaluated":
            every = np.arange(1, budget // steps_per_epoch + 1, dtype=np.int64) * steps_per_epoch
            return every if eval_steps is None else eval_steps
        case "log-spaced":
            points = record.curve_points
        case _:
            raise ValueError(f"unknown curves {record.curves!r}")
    wanted = np.array(logspace(0, 6, points)) if points else np.empty(0)
    if eval_steps is None:
        steps = -(-np.ceil(wanted).astype(np.int64) // steps_per_epoch) * steps_per_epoch
        return np.unique(steps[steps <= budget])
    index = np.searchsorted(eval_steps, wanted)
    return np.unique(eval_steps[index[index < len(eval_steps)]]).astype(np.int64)
