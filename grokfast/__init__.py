"""grokfast: phase diagrams of grokking, the whole grid at once.

    import grokfast as gf

    r = gf.run(gf.preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0, 5]))
    r.phases()
    gf.figures.phase_diagram(r)

Names are loaded when first used, so that ``grokfast --help`` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokfast import figures
    from grokfast.aggregate import Aggregate
    from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
    from grokfast.experiment import Batches, Evaluation, Experiment, Optimizer, Recording
    from grokfast.grid import Grid
    from grokfast.losses import loss
    from grokfast.models import Mlp, Model, Shape, Transformer, model
    from grokfast.models.stacked import Stacked
    from grokfast.observables import observable
    from grokfast.optimizers import UpdateRule, optimizer
    from grokfast.phases import (
        PHASE_RULES,
        PHASES,
        CollapseRule,
        InversionRule,
        PhaseRule,
        Rule,
        phase_rule,
    )
    from grokfast.planning import Plan, plan
    from grokfast.presets import PRESETS, preset
    from grokfast.replaying import Replay, replay
    from grokfast.results import Results, load
    from grokfast.tasks import Task, TaskData, task
    from grokfast.trainer import Interrupted, run

_HOMES = {
    "figures": "grokfast.figures",
    "Aggregate": "grokfast.aggregate",
    "EnvironmentProblem": "grokfast.errors",
    "GrokfastError": "grokfast.errors",
    "UsageError": "grokfast.errors",
    "Batches": "grokfast.experiment",
    "Evaluation": "grokfast.experiment",
    "Experiment": "grokfast.experiment",
    "Optimizer": "grokfast.experiment",
    "Recording": "grokfast.experiment",
    "Grid": "grokfast.grid",
    "load": "grokfast.results",
    "loss": "grokfast.losses",
    "Mlp": "grokfast.models",
    "Model": "grokfast.models",
    "Shape": "grokfast.models",
    "Transformer": "grokfast.models",
    "model": "grokfast.models",
    "Stacked": "grokfast.models.stacked",
    "observable": "grokfast.observables",
    "UpdateRule": "grokfast.optimizers",
    "optimizer": "grokfast.optimizers",
    "PHASE_RULES": "grokfast.phases",
    "PHASES": "grokfast.phases",
    "CollapseRule": "grokfast.phases",
    "InversionRule": "grokfast.phases",
    "PhaseRule": "grokfast.phases",
    "Rule": "grokfast.phases",
    "phase_rule": "grokfast.phases",
    "PRESETS": "grokfast.presets",
    "preset": "grokfast.presets",
    "Replay": "grokfast.replaying",
    "replay": "grokfast.replaying",
    "Results": "grokfast.results",
    "Task": "grokfast.tasks",
    "TaskData": "grokfast.tasks",
    "task": "grokfast.tasks",
    "Interrupted": "grokfast.trainer",
    "Plan": "grokfast.planning",
    "plan": "grokfast.planning",
    "run": "grokfast.trainer",
}

__all__ = [
    "PHASES",
    "PHASE_RULES",
    "PRESETS",
    "Aggregate",
    "Batches",
    "CollapseRule",
    "EnvironmentProblem",
    "Evaluation",
    "Experiment",
    "Grid",
    "GrokfastError",
    "Interrupted",
    "InversionRule",
    "Mlp",
    "Model",
    "Optimizer",
    "PhaseRule",
    "Plan",
    "Recording",
    "Replay",
    "Results",
    "Rule",
    "Shape",
    "Stacked",
    "Task",
    "TaskData",
    "Transformer",
    "UpdateRule",
    "UsageError",
    "figures",
    "load",
    "loss",
    "model",
    "observable",
    "optimizer",
    "phase_rule",
    "plan",
    "preset",
    "replay",
    "run",
    "task",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from grokfast.installation import version

        return version()
    if name not in _HOMES:
        raise AttributeError(f"module 'grokfast' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return module if name == "figures" else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
