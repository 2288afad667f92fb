"""Presets: experiments with their grids, from the literature. Data, not code paths."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grokfast.errors import UsageError
from grokfast.experiment import Evaluation, Experiment, Model, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.phases import PhaseRule
from grokfast.tasks import Addition, Digits, Mnist

_TOY_LR = tuple(np.logspace(-5, -2, 21).tolist())
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
            model=Model(width=200, depth=3, embedding_dim=1, activation="tanh", seed=102),
            loss=loss,  # type: ignore[arg-type]
            predict=predict,  # type: ignore[arg-type]
            optimizer=Optimizer(encoder="embedding", encoder_lr=1e-3, encoder_weight_decay=0.0),
            steps=100_000,
            phase=_ADDITION_RULE,
        ),
        axes={
            "optimizer.lr": _TOY_LR,
            "optimizer.weight_decay": tuple(np.linspace(0, decay_max, 21).tolist()),
        },
    )


def _images(
    *, name: str, task: Mnist | Digits, steps: int, lr: np.ndarray, decay: np.ndarray
) -> Grid:
    return Grid(
        name=name,
        experiment=Experiment(
            task=task,
            model=Model(
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
            "optimizer.lr": tuple(lr.tolist()),
            "optimizer.weight_decay": tuple(decay.tolist()),
        },
    )


_MNIST_EXTENDED_LR = np.concatenate(
    [10.0 ** (8 * np.arange(13) / 9 - 80 / 9), [250.0, 10.0 ** (8 / 3)]]
)
_MNIST_EXTENDED_DECAY = np.concatenate([10.0 ** np.arange(-9, 2), [50.0, 100.0, 300.0]])

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
            lr=np.logspace(-6, 0, 10),
            decay=np.logspace(-5, 1, 10),
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
            lr=np.logspace(-6, 0, 10),
            decay=np.logspace(-5, 1, 10),
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
