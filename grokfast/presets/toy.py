"""Toy addition: Figure 1 of Shabalin et al. 2023, after Liu et al. 2022."""

from __future__ import annotations

from grokfast.experiment import Experiment, Optimizer
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import PhaseRule
from grokfast.presets.base import LIU, SHABALIN, Preset
from grokfast.spacing import linspace
from grokfast.tasks import Addition

# As NumPy gave them on the machine of the first results. Cells are known by their values, so these
# stay, though some are not correctly rounded. logspace(-5, -2, 21):
# fmt: off
_TOY_LR = (
    1e-05, 1.4125375446227555e-05, 1.9952623149688786e-05, 2.818382931264455e-05,
    3.9810717055349695e-05, 5.623413251903491e-05, 7.943282347242822e-05, 0.0001122018454301963,
    0.00015848931924611142, 0.00022387211385683378, 0.00031622776601683794, 0.00044668359215096305,
    0.000630957344480193, 0.0008912509381337459, 0.0012589254117941675, 0.0017782794100389228,
    0.0025118864315095794, 0.0035481338923357532, 0.005011872336272719, 0.00707945784384138, 0.01,
)
# fmt: on
_RULE = PhaseRule(threshold=0.9, tolerance=1e-3, gap=1000)


def _addition(*, name: str, loss: str, predict: str, target_dim: int, decay_max: float) -> Grid:
    return Grid(
        name=name,
        experiment=Experiment(
            task=Addition(p=10, val_size=10, target_dim=target_dim, seed=42),
            model=Mlp(width=200, depth=3, embedding_dim=1, activation="tanh", seed=102),
            loss=loss,
            predict=predict,  # type: ignore[arg-type]
            optimizer=Optimizer(encoder="embedding", encoder_lr=1e-3, encoder_weight_decay=0.0),
            steps=100_000,
            phase=_RULE,
        ),
        axes={
            "optimizer.lr": _TOY_LR,
            "optimizer.weight_decay": linspace(0, decay_max, 21),
        },
    )


PRESETS: dict[str, Preset] = {
    "addition-classification": Preset(
        title="Toy addition, cross-entropy, 21 x 21",
        source=f"{LIU}; {SHABALIN}, Figure 1",
        build=lambda: _addition(
            name="addition-classification",
            loss="cross_entropy",
            predict="argmax",
            target_dim=0,
            decay_max=20.0,
        ),
    ),
    "addition-regression": Preset(
        title="Toy addition, MSE to random targets, 21 x 21",
        source=f"{LIU}; {SHABALIN}, Figure 1",
        build=lambda: _addition(
            name="addition-regression",
            loss="mse",
            predict="nearest",
            target_dim=30,
            decay_max=10.0,
        ),
    ),
}
