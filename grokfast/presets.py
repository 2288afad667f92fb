"""Presets: experiments with their grids, from the literature. Data, not code paths."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from grokfast.errors import UsageError
from grokfast.experiment import Evaluation, Experiment, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import PhaseRule
from grokfast.spacing import linspace
from grokfast.tasks import Addition, Digits, Mnist

# As NumPy gave them on the machine of the first results. Cells are known by their values, so these
# stay, though some are not correctly rounded. logspace(-5, -2, 21), (-6, 0, 10) and (-5, 1, 10):
# fmt: off
_TOY_LR = (
    1e-05, 1.4125375446227555e-05, 1.9952623149688786e-05, 2.818382931264455e-05,
    3.9810717055349695e-05, 5.623413251903491e-05, 7.943282347242822e-05, 0.0001122018454301963,
    0.00015848931924611142, 0.00022387211385683378, 0.00031622776601683794, 0.00044668359215096305,
    0.000630957344480193, 0.0008912509381337459, 0.0012589254117941675, 0.0017782794100389228,
    0.0025118864315095794, 0.0035481338923357532, 0.005011872336272719, 0.00707945784384138, 0.01,
)
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
_ADDITION_RULE = PhaseRule(threshold=0.9, tolerance=1e-3, gap=1000)
_MNIST_RULE = PhaseRule(threshold=0.6, strict=True, gap=1000, gap_inclusive=True)

_LIU = "Liu et al. 2022 (arXiv 2205.10343)"
_SHABALIN = "Shabalin, Sadrtdinov, Shabalin 2023"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named grid: what it reproduces, where it comes from, and how to build it."""

    title: str
    source: str
    build: Callable[[], Grid]


def _addition(*, name: str, loss: str, predict: str, target_dim: int, decay_max: float) -> Grid:
    return Grid(
        name=name,
        experiment=Experiment(
            task=Addition(p=10, val_size=10, target_dim=target_dim, seed=42),
            model=Mlp(width=200, depth=3, embedding_dim=1, activation="tanh", seed=102),
            loss=loss,  # type: ignore[arg-type]
            predict=predict,  # type: ignore[arg-type]
            optimizer=Optimizer(encoder="embedding", encoder_lr=1e-3, encoder_weight_decay=0.0),
            steps=100_000,
            phase=_ADDITION_RULE,
        ),
        axes={
            "optimizer.lr": _TOY_LR,
            "optimizer.weight_decay": linspace(0, decay_max, 21),
        },
    )


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
            phase=_MNIST_RULE,
            record=Recording(curve_points=1000),
        ),
        axes={
            "optimizer.lr": lr,
            "optimizer.weight_decay": decay,
        },
    )


PRESETS: dict[str, Preset] = {
    "addition-classification": Preset(
        title="Toy addition, cross-entropy, 21 x 21",
        source=f"{_LIU}; {_SHABALIN}, Figure 1",
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
        source=f"{_LIU}; {_SHABALIN}, Figure 1",
        build=lambda: _addition(
            name="addition-regression",
            loss="mse",
            predict="nearest",
            target_dim=30,
            decay_max=10.0,
        ),
    ),
    "mnist-original": Preset(
        title="MNIST, MSE, init x 9, 10 x 10",
        source=f"{_LIU}; {_SHABALIN}",
        build=lambda: _images(
            name="mnist-original",
            task=Mnist(seed=0),
            steps=150_000,
        ),
    ),
    "mnist-extended": Preset(
        title="MNIST, MSE, init x 9, 15 learning rates x 14 decays",
        source=_SHABALIN,
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


def preset(name: str) -> Grid:
    """The preset's grid; change it with ``.grid(lr=..., weight_decay=...)``.

    Raises:
        UsageError: no such preset; the message suggests the closest one.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
        raise UsageError(
            f"unknown preset {name!r}; known are {', '.join(PRESETS)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    return PRESETS[name].build()
