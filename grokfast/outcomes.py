"""The table of what is counted of every cell: one list for State, checkpoint and results file."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = "optimizer steps"

#: What may be said of a cell, and the codes of these.
STATUS: tuple[str, ...] = ("pending", "running", "ok", "diverged")
PENDING, RUNNING, OK, DIVERGED = range(4)


@dataclass(frozen=True)
class Outcome:
    """One number a cell.

    Attributes:
        name: in the State and in checkpoints.
        initial: before the first step; -1 where there is none yet.
        column: in results files.
        label: what it is.
        units: of its values.
        internal: kept in the file so that a run can go on; no result.
    """

    name: str
    initial: int | float
    label: str
    units: str = ""
    column: str = ""
    internal: bool = False

    @property
    def in_file(self) -> str:
        return self.column or self.name


PROGRESS: tuple[Outcome, ...] = (
    Outcome("step", 0, "optimizer steps taken", column="steps_done"),
    Outcome(
        "t_train",
        -1,
        "first step with training accuracy over the threshold, -1 for never",
        STEPS,
    ),
    Outcome(
        "t_val",
        -1,
        "first step with validation accuracy over the threshold, -1 for never",
        STEPS,
    ),
    Outcome("diverged_at", -1, "step whose loss was not finite, -1 for none"),
    Outcome("epoch_correct", 0, "right training predictions so far in the epoch", internal=True),
    Outcome("epoch_loss", 0.0, "sum of the epoch's batch losses so far", internal=True),
    Outcome("train_correct", -1, "right training predictions when last evaluated", internal=True),
    Outcome("val_correct", -1, "right validation predictions when last evaluated", internal=True),
    Outcome("best_train_correct", -1, "most right training predictions", internal=True),
    Outcome("best_val_correct", -1, "most right validation predictions", internal=True),
)

#: First steps over the further thresholds, -1 for never: ``[M, H]``.
CROSSINGS = {
    "train_crossings": "first step with training accuracy over each threshold, -1 for never",
    "val_crossings": "first step with validation accuracy over each threshold, -1 for never",
}

#: Losses and accuracies at the recorded steps: ``[M, T]``.
CURVES = {
    "train_loss": "training loss, before or after the update (evaluation.train_loss)",
    "val_loss": "validation loss after the update",
    "train_acc": "training accuracy",
    "val_acc": "validation accuracy after the update",
}

#: Accuracies of results files, from the counts of PROGRESS.
ACCURACIES = {
    "final_train_acc": ("train_correct", "training accuracy when last evaluated"),
    "final_val_acc": ("val_correct", "validation accuracy when last evaluated"),
    "best_train_acc": ("best_train_correct", "highest training accuracy"),
    "best_val_acc": ("best_val_correct", "highest validation accuracy"),
}


def crossing_name(part: str, threshold: float) -> str:
    """What the first step over a further threshold is called: ``t_val_0.99``; ``part`` is ``train``
    or ``val``."""
    return f"t_{part}_{threshold!r}"
