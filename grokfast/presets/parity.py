"""Sparse parity: the (n, k)-parity blog of 2023 and its hypotheses, after Merrill et al. 2023 [M23]
and Barak et al. 2022; two phase diagrams that neither has.

The blog publishes no code; optimizer, loss, batches and epochs are those of [M23]'s code, with
which its figures come out (hinge, SGD at 0.1 with coupled decay 0.01, batches of 32). One seed is
one run, as there: of the training set, the initial values and the order of the batches. Here it is
of the validation set, too: 100 samples that all runs share would move the mean of all runs by 0.04
in accuracy, and replicates of a diagram are to be independent.

Phases of a delay count steps: 1000 are 100 epochs of 300 samples. Every run of the baseline
generalises about 170 epochs after it has memorised (grokking), and about 30 and 20 epochs after it
where the decay is then raised to 0.05 and 0.1 (comprehension); at 0.5 it never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grokfast.experiment import Batches, Evaluation, Experiment, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import InversionRule, PhaseRule, Rule
from grokfast.presets.base import Preset
from grokfast.spacing import linspace, logspace
from grokfast.tasks import Parity

_BLOG = "Grokking (n, k)-parity, blog 2023, after Merrill, Tsilivis, Shukla 2023 (arXiv 2303.11873)"
_OURS = "this project; the setting is that of the blog and of Merrill et al. 2023"

_EPOCHS, _BATCH = 500, 32
_RUNS = tuple(range(5))
#: Memorised and generalised, in the blog: every sample of the set is right.
_DELAY = PhaseRule(threshold=1.0, gap=1000)
#: In the code of [M23]: more than 98%. With flipped labels the final accuracies decide: whether the
#: labels as flipped are learned, and whether the rule behind them is.
_M23 = 0.98
_INVERSION = InversionRule(threshold=_M23)

#: Every epoch and the initial state, as drawn in the figures.
_EVERY_EPOCH = Evaluation(train="after", train_loss="after", initial=True)


def _experiment(
    *,
    task: Parity | None = None,
    decay: float = 0.01,
    rule: Rule = _DELAY,
    steps: int | None = None,
    evaluation: Evaluation = _EVERY_EPOCH,
    record: Recording | None = None,
) -> Experiment:
    """500 epochs of a net with 500 hidden units and no bias of its output; recorded, unless told
    otherwise, with everything that is drawn of every epoch."""
    task = task or Parity(redraw="both")
    per_epoch = -(-task.train_size // _BATCH)
    spectrum = (f"spectral_norm:{per_epoch}",)
    return Experiment(
        task=task,
        model=Mlp(width=500, depth=2, activation="relu", output_bias=False, seed=None),
        loss="hinge",
        predict="sign",
        optimizer=Optimizer(kind="sgd", lr=0.1, weight_decay=decay),
        batch_size=_BATCH,
        batches=Batches(remainder="short"),
        steps=steps or _EPOCHS * per_epoch,
        stop="never",
        evaluation=evaluation,
        phase=rule,
        record=record or Recording(curves="evaluated", observables=spectrum),
    )


def _runs(name: str, experiment: Experiment, axes: Mapping[str, tuple[Any, ...]]) -> Grid:
    """Five runs of every combination of the axes."""
    return Grid(name=name, experiment=experiment, axes={**axes, "task.seed": _RUNS})


def _diagram(
    name: str, rule: Rule, axes: Mapping[str, tuple[Any, ...]], steps: int | None = None
) -> Grid:
    """Five runs of every cell of a phase diagram, with what its phases follow from."""
    experiment = _experiment(
        rule=rule,
        steps=steps,
        evaluation=Evaluation(train="after", train_loss="after"),
        record=Recording(curve_points=50),
    )
    return _runs(name, experiment, axes)


#: Divided by the number of batches of every size below, so that epochs end where the budget does.
_COMMON = 5040
#: 2 to 30 batches.
_SIZES = tuple(_BATCH * k for k in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 30))

PRESETS: dict[str, Preset] = {
    "parity-baseline": Preset(
        title="Sparse parity, n 50, k 2: five runs that grok",
        source=f"{_BLOG}, Figures 1 to 4",
        build=lambda: _runs("parity-baseline", _experiment(), {}),
    ),
    "parity-h1": Preset(
        title="Sparse parity: weight decays from the epoch on that has memorised, five runs each",
        source=f"{_BLOG}, hypothesis 1, Figures 5 and 6",
        build=lambda: _runs(
            "parity-h1",
            _experiment(),
            {"optimizer.weight_decay_memorised": (0.005, 0.01, 0.05, 0.1, 0.5)},
        ),
    ),
    "parity-h2": Preset(
        title="Sparse parity with flipped labels, two weight decays, five runs each",
        source=f"{_BLOG}, hypothesis 2, Figures 7 and 8",
        build=lambda: _runs(
            "parity-h2",
            _experiment(rule=_INVERSION),
            {
                "optimizer.weight_decay": (0.01, 0.1),
                "task.flip": (0.0, 0.05, 0.1, 0.15, 0.2),
            },
        ),
    ),
    "parity-k3": Preset(
        title="Sparse parity, n 50, k 3, 1,000 samples: five runs",
        source=f"{_BLOG}, Figure 9 (removed later); sizes are those that reproduce it",
        build=lambda: _runs(
            "parity-k3",
            _experiment(
                task=Parity(k=3, train_size=1000, redraw="both"),
                rule=PhaseRule(threshold=1.0, gap=3200),
            ),
            {},
        ),
    ),
    "parity-noise": Preset(
        title="Phases of sparse parity over weight decay x flipped labels, 21 x 11, five runs",
        source=_OURS,
        build=lambda: _diagram(
            "parity-noise",
            _INVERSION,
            {
                "optimizer.weight_decay": logspace(-3, "-0.5", 21),
                "task.flip": linspace(0, "0.2", 11),
            },
        ),
    ),
    "parity-size": Preset(
        title="Phases of sparse parity over n x training samples, 10 x 17, five runs",
        source=_OURS,
        build=lambda: _diagram(
            "parity-size",
            PhaseRule(threshold=_M23, strict=True, gap=1000),
            {"task.n": tuple(range(10, 101, 10)), "task.train_size": _SIZES},
            steps=_COMMON,
        ),
    ),
}
