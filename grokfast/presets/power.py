"""Transformers on algorithmic data: Power et al. 2022, and the reproduction with two figures.

Two recipes that must not be mixed. The reproduction's (github.com/BendeguzToth/grokking), to the
letter, is what its figures of division modulo 97 and of S5 were made with. Of the paper there are
the text (A.1.2: AdamW, learning rate 1e-3, decay 1, betas 0.9 and 0.98, warm-up of 10 steps,
batches of min(512, n/2), 1e5 steps, the loss on the answer alone) and the code
(github.com/openai/grok: no biases, an untied head, sinusoidal positions, batches shuffled every
epoch); the paper's figures are asked for with both together. What neither tells is this project's
choice: fractions, seeds, and of ``power-weight-decay`` decays and budget. Other re-implementations
reach 99% between 2,000 and 26,000 steps on the same half of division modulo 97, so steps do not
carry over from one recipe to another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grokfast.experiment import Batches, Evaluation, Experiment, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.models import Transformer
from grokfast.phases import CollapseRule, PhaseRule
from grokfast.presets.base import Preset
from grokfast.spacing import linspace
from grokfast.tasks import Algorithmic

POWER = "Power et al. 2022 (arXiv 2201.02177)"
_TOTH = "github.com/BendeguzToth/grokking"

_SEEDS = (0, 1, 2)
_FRACTIONS = linspace("0.15", "0.95", 17)
#: Denser where 1% less data asks for 40 to 50% more steps.
_STEEP = (0.25, 0.26, 0.27, 0.28, 0.29, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)

#: Of A.1.1, in its order. x*y is not among them.
_OPERATIONS = (
    "x+y",
    "x-y",
    "x/y",
    "x/y-or-x-y",
    "x^2+y^2",
    "x^2+xy+y^2",
    "x^2+xy+y^2+x",
    "x^3+xy",
    "x^3+xy^2+y",
    "x.y",
    "x.y.x^-1",
    "x.y.x",
)

_ADAMW = Optimizer(kind="adamw", lr=1e-3, weight_decay=1.0, beta2=0.98, warmup=10)
#: The paper's own network; its blocks are drawn one after the other.
_PAPER_NET = Transformer(bias=False, tied=False, positions="sinusoidal", same_layers=False)
#: All 14,400 products of S5; operations modulo 97 do not look at it.
_PAPER_TASK = Algorithmic(operation="x.y", convention="x-then-y", identity=True)


def _reproduction(**changes: Any) -> Experiment:
    """The reproduction's run: 20,000 steps of batches of 512 in a fixed order, everything decayed.
    Evaluated after every 10th step, not after each; its own curves can be had with
    ``evaluation.every=1``."""
    common: dict[str, Any] = {
        "task": Algorithmic(),
        "model": Transformer(),
        "optimizer": _ADAMW,
        "batch_size": 512,
        "batches": Batches(order="fixed", remainder="short"),
        "steps": 20_000,
        "stop": "never",
        "evaluation": Evaluation(
            schedule="every-steps", every=10, train="after", thresholds=(0.5, 0.9, 0.99)
        ),
        "phase": PhaseRule(threshold=0.99),
        "record": Recording(curves="evaluated", weights=True, observables=("layer_norms:100",)),
    }
    return Experiment(**common | changes)


def _paper(**changes: Any) -> Experiment:
    """The paper's run: 1e5 steps, or until training and validation have reached 99%
    (``stop=never`` goes on)."""
    common: dict[str, Any] = {
        "task": _PAPER_TASK,
        "model": _PAPER_NET,
        "batches": Batches(order="continued", remainder="short"),
        "steps": 100_000,
        "stop": "both",
        "record": Recording(),
    }
    return _reproduction(**common | changes)


#: Figure 2 left. Fields of Adam without decay in minibatches -> what is changed.
_VARIANTS: dict[str, dict[str, Any]] = {
    "full-batch": {"batch_size": 0},
    "adam": {},
    "full-batch-noise": {"batch_size": 0, "optimizer.update_noise": 1.0},
    "dropout": {"model.dropout": 0.1},
    "adamw": {"optimizer.kind": "adamw", "optimizer.weight_decay": 1.0},
    "adamw-to-initial": {
        "optimizer.kind": "adamw",
        "optimizer.weight_decay": 1.0,
        "optimizer.decay_towards": "initial",
    },
    "lr-3e-4": {"optimizer.lr": 3e-4},
    "lr-3e-3": {"optimizer.lr": 3e-3},
    "weight-noise": {"optimizer.weight_noise": 0.01},
}


PRESETS: dict[str, Preset] = {
    "power-division": Preset(
        title="Division mod 97 from 30% of the equations, a transformer, three seeds",
        source=f"{POWER}; {_TOTH}, first figure",
        build=lambda: Grid(
            name="power-division",
            experiment=_reproduction(),
            axes={"model.seed": _SEEDS},
        ),
    ),
    "power-s5": Preset(
        title="Products in S5 from half of the equations, a transformer, three seeds",
        source=f"{POWER}; {_TOTH}, second figure",
        build=lambda: Grid(
            name="power-s5",
            experiment=_reproduction(task=Algorithmic(operation="x.y", fraction=0.5)),
            axes={"model.seed": _SEEDS},
        ),
    ),
    "power-fractions": Preset(
        title="Steps to 99% against the training fraction, products in S5, three seeds",
        source=f"{POWER}, Figure 1 (centre)",
        build=lambda: Grid(
            name="power-fractions",
            experiment=_paper(),
            axes={"task.fraction": _STEEP, "model.seed": _SEEDS},
        ),
    ),
    "power-ablations": Preset(
        title="Nine variants of the optimizer over the training fraction, products in S5",
        source=f"{POWER}, Figure 2 (left)",
        build=lambda: Grid(
            name="power-ablations",
            experiment=_paper(optimizer=replace(_ADAMW, kind="adam", weight_decay=0.0)),
            axes={"variant": tuple(_VARIANTS), "task.fraction": _FRACTIONS},
            settings={"variant": _VARIANTS},
        ),
    ),
    "power-operations": Preset(
        title="Twelve operations over the training fraction, three seeds",
        source=f"{POWER}, Figure 2 (right)",
        build=lambda: Grid(
            name="power-operations",
            experiment=_paper(),
            axes={
                "task.operation": _OPERATIONS,
                "task.fraction": _FRACTIONS,
                "model.seed": _SEEDS,
            },
        ),
    ),
    "power-weight-decay": Preset(
        title="Memorisation, grokking and collapse along the weight decay, half of division mod 97",
        source=f"{POWER}, Section 3.3; {_TOTH}; decays and budget are this project's choice",
        build=lambda: Grid(
            name="power-weight-decay",
            experiment=_reproduction(
                task=Algorithmic(fraction=0.5),
                phase=CollapseRule(threshold=0.99),
                record=Recording(curves="evaluated", observables=("layer_norms",)),
            ),
            axes={
                "optimizer.weight_decay": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
                "model.seed": _SEEDS,
            },
        ),
    ),
}
