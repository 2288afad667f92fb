"""Modular arithmetic: Gromov 2023 [P23], Doshi et al. 2024 [P24], and Doshi et al., polynomials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grokfast.experiment import Batches, Evaluation, Experiment, Optimizer, Recording
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import InversionRule
from grokfast.presets.base import Preset
from grokfast.spacing import linspace
from grokfast.tasks import Modular

_GROMOV = "Gromov 2023 (arXiv 2301.02679)"
_DOSHI = "Doshi, Das, He, Gromov 2024 (arXiv 2310.13061)"
_POLYNOMIALS = "Doshi, He, Das, Gromov 2024 (arXiv 2406.03495)"

#: alpha and xi of the phase diagrams: the scripts' values; the paper draws 19 xi from 0.
_SEVENTEEN = linspace("0.1", "0.9", 17)

#: Width 500, quadratic, no biases, one decimal of everything at width 500: std 0.05.
_NET = Mlp(
    width=500,
    depth=2,
    one_hot=True,
    bias=False,
    activation="square",
    init="cube-root",
    seed=None,
)


def _experiment(**changes: Any) -> Experiment:
    """The full-batch run of the authors' notebooks: everything after every step."""
    common: dict[str, Any] = {
        "task": Modular(p=97, fraction=0.5),
        "model": _NET,
        "loss": "mse",
        "optimizer": Optimizer(lr=0.01, weight_decay=5.0, beta2=0.98),
        "steps": 100,
        "stop": "never",
        "evaluation": Evaluation(schedule="every-steps", train="after"),
        "phase": InversionRule(),
        "record": Recording(curves="evaluated", weights=True),
    }
    return Experiment(**common | changes)


def _diagram(
    *,
    name: str,
    panels: str,
    values: tuple[Any, ...],
    model: Mlp = _NET,
    decay: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> Grid:
    """A diagram over alpha and xi as the authors' scripts train it, panels over a third axis: one
    model seed, which every model starts from, 2,000 full-batch steps or as many epochs' worth."""
    return Grid(
        name=name,
        experiment=_experiment(
            model=replace(model, seed=1),
            optimizer=Optimizer(lr=0.01, weight_decay=decay, beta2=0.98),
            batches=Batches(order="by-step", remainder="dropped"),
            steps=2000,
            evaluation=Evaluation(schedule="every-steps", every=20, train="after"),
            record=Recording(curves="evaluated", observables=("ipr", "norms")),
        ),
        axes={panels: values, "task.corruption": _SEVENTEEN, "task.fraction": _SEVENTEEN},
        settings={panels: settings} if settings else {},
    )


def _batches(*sizes: int) -> dict[str, dict[str, Any]]:
    """Batch sizes with the scripts' learning rate, 0.01 sqrt(size / 256), and budget, that of
    2,000 steps of 256; evaluated 100 times."""
    found = {}
    for size in sizes:
        steps = 2000 * 256 // size
        found[str(size)] = {
            "batch_size": size,
            "optimizer.lr": 0.01 * math.sqrt(size / 256),
            "steps": steps,
            "evaluation.every": steps // 100,
        }
    return found


_FULL = {"full": {"batch_size": 0, "optimizer.lr": 0.01, "steps": 2000, "evaluation.every": 20}}
_MINI = _batches(8, 64, 256) | _FULL
_NORMED = _batches(8, 32, 64, 256)

PRESETS: dict[str, Preset] = {
    "modular-addition": Preset(
        title="Addition mod 97, all of it grokked in 100 steps",
        source=f"{_GROMOV}; {_DOSHI}, Figure 2",
        build=lambda: Grid(name="modular-addition", experiment=_experiment()),
    ),
    "modular-corruption": Preset(
        title="Addition mod 97 with 35% of the labels random: coexistence and inversion",
        source=f"{_DOSHI}, Figures 1, 4 and 6",
        build=lambda: Grid(
            name="modular-corruption",
            experiment=_experiment(task=Modular(p=97, fraction=0.5, corruption=0.35), steps=500),
            axes={"decay": ("0", "5", "15")},
            settings={
                "decay": {
                    "0": {"optimizer.weight_decay": 0.0, "steps": 1000},
                    "5": {"optimizer.weight_decay": 5.0, "steps": 500},
                    "15": {"optimizer.weight_decay": 15.0, "steps": 500},
                }
            },
        ),
    ),
    "modular-multiplication": Preset(
        title="Multiplication mod 97",
        source=f"{_POLYNOMIALS}, Figure 3",
        build=lambda: Grid(
            name="modular-multiplication",
            experiment=_experiment(
                task=Modular(p=97, operation="multiplication", fraction=0.5),
                optimizer=Optimizer(lr=0.005, weight_decay=5.0, beta2=0.98),
                steps=200,
            ),
        ),
    ),
    "modular-polynomial": Preset(
        title="Six polynomials mod 97, three learnable and three not, width 5000",
        source=f"{_POLYNOMIALS}, Table of Appendix C; the steps are this project's choice",
        build=lambda: Grid(
            name="modular-polynomial",
            experiment=_experiment(
                model=replace(_NET, width=5000),
                optimizer=Optimizer(lr=0.005, weight_decay=5.0, beta2=0.98),
                steps=400,
                evaluation=Evaluation(schedule="every-steps", every=10, train="after"),
                record=Recording(curves="evaluated"),
            ),
            axes={
                "task.operation": (
                    "(4*a + b**2)**3",
                    "(4*a + b**2)**3 + a*b",
                    "(2*a + 3*b)**4",
                    "(2*a + 3*b)**4 - a**2",
                    "(5*a**3 + 2*b**4)**2",
                    "(5*a**3 + 2*b**4)**2 - b",
                )
            },
        ),
    ),
    "modular-weight-decay": Preset(
        title="Phases over data fraction x corruption, four weight decays, 17 x 17 x 4",
        source=f"{_DOSHI}, Figure 3 (left), 8 and 24",
        build=lambda: _diagram(
            name="modular-weight-decay",
            panels="optimizer.weight_decay",
            values=(0.0, 5.0, 15.0, 20.0),
        ),
    ),
    "modular-dropout": Preset(
        title="Phases over data fraction x corruption, four dropout rates, 17 x 17 x 4",
        source=f"{_DOSHI}, Figure 3 (right), 19 and 25",
        build=lambda: _diagram(
            name="modular-dropout", panels="model.dropout", values=(0.0, 0.3, 0.6, 0.9)
        ),
    ),
    "modular-minibatch": Preset(
        title="Phases over data fraction x corruption, batches of 8, 64, 256 and all",
        source=f"{_DOSHI}, Figure 10",
        build=lambda: _diagram(
            name="modular-minibatch", panels="batch", values=tuple(_MINI), settings=_MINI
        ),
    ),
    "modular-batchnorm": Preset(
        title="Phases over data fraction x corruption with BatchNorm, batches of 8 to 256",
        source=f"{_DOSHI}, Figures 5 and 9",
        build=lambda: _diagram(
            name="modular-batchnorm",
            panels="batch",
            values=tuple(_NORMED),
            settings=_NORMED,
            model=replace(_NET, norm="batch"),
        ),
    ),
    "modular-meanfield": Preset(
        title="Addition mod 97 by plain gradient descent from N(0, 1), mean-field",
        source=f"{_GROMOV}, Figures 1 and 4; the learning rate is this project's choice",
        build=lambda: Grid(
            name="modular-meanfield",
            experiment=_experiment(
                model=replace(_NET, parametrization="mean-field", init="standard-normal", seed=0),
                optimizer=Optimizer(kind="sgd", lr=1e5, weight_decay=0.0),
                steps=20_000,
                evaluation=Evaluation(schedule="every-steps", every=100, train="after"),
                record=Recording(curves="evaluated", observables=("ipr", "norms"), weights=True),
            ),
        ),
    ),
}
