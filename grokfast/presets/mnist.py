"""MNIST: the original and the extended grid of Shabalin et al. 2023, and an offline stand-in."""

from __future__ import annotations

from grokfast.experiment import Evaluation, Experiment, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import PhaseRule
from grokfast.presets.base import LIU, SHABALIN, Preset
from grokfast.tasks import Digits, Mnist

# As NumPy gave them on the machine of the first results (see toy.py): logspace(-6, 0, 10) and
# (-5, 1, 10).
# fmt: off
_MNIST_LR = (
    1e-06, 4.641588833612782e-06, 2.1544346900318823e-05, 0.0001, 0.00046415888336127773,
    0.002154434690031882, 0.01, 0.046415888336127725, 0.21544346900318823, 1.0,
)
_MNIST_DECAY = (
    1e-05, 4.641588833612782e-05, 0.00021544346900318823, 0.001, 0.004641588833612777,
    0.021544346900318822, 0.1, 0.46415888336127725, 2.154434690031882, 10.0,
)
# 10 ** (8 k / 9 - 80 / 9) for k = 0 .. 12, two more; decades, three more.
_MNIST_EXTENDED_LR = (
    1.2915496650148826e-09, 1e-08, 7.742636826811262e-08, 5.994842503189396e-07,
    4.641588833612773e-06, 3.5938136638046256e-05, 0.00027825594022071204, 0.002154434690031882,
    0.016681005372000558, 0.12915496650148828, 1.0, 7.742636826811277, 59.94842503189397,
    250.0, 464.15888336127773,
)
_MNIST_EXTENDED_DECAY = (
    1e-09, 1e-08, 1e-07, 1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 50.0, 100.0, 300.0,
)
# fmt: on
_RULE = PhaseRule(threshold=0.6, strict=True, gap=1000, gap_inclusive=True)


def _images(
    *,
    name: str,
    task: Mnist | Digits,
    steps: int,
    lr: tuple[float, ...] = _MNIST_LR,
    decay: tuple[float, ...] = _MNIST_DECAY,
) -> Grid:
    return Grid(
        name=name,
        experiment=Experiment(
            task=task,
            model=Mlp(
                width=200,
                depth=3,
                activation="relu",
                init_scale=9.0,
                init_dtype="float64",
                seed=0,
            ),
            loss="mse",
            predict="argmax",
            optimizer=Optimizer(encoder="all-but-last", encoder_lr=1e-3),
            batch_size=200,
            steps=steps,
            evaluation=Evaluation(schedule="log-epochs", horizon=300_000, points=1000),
            phase=_RULE,
            record=Recording(curve_points=1000),
        ),
        axes={
            "optimizer.lr": lr,
            "optimizer.weight_decay": decay,
        },
    )


PRESETS: dict[str, Preset] = {
    "mnist-original": Preset(
        title="MNIST, MSE, init x 9, 10 x 10",
        source=f"{LIU}; {SHABALIN}",
        build=lambda: _images(
            name="mnist-original",
            task=Mnist(seed=0),
            steps=150_000,
        ),
    ),
    "mnist-extended": Preset(
        title="MNIST, MSE, init x 9, 15 learning rates x 14 decays",
        source=SHABALIN,
        build=lambda: _images(
            name="mnist-extended",
            task=Mnist(seed=0),
            steps=150_000,
            lr=_MNIST_EXTENDED_LR,
            decay=_MNIST_EXTENDED_DECAY,
        ),
    ),
    "mnist-digits": Preset(
        title="The MNIST experiment on scikit-learn's 8 x 8 digits, offline, 10 x 10",
        source="this project, after the two papers above",
        build=lambda: _images(
            name="mnist-digits",
            task=Digits(seed=0),
            steps=20_000,
        ),
    ),
}
