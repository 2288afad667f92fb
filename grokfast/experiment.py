"""An Experiment: everything that defines a run, frozen, validated, JSON-round-tripping.

Imports no torch: the command line reads and checks experiments before it loads anything heavy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from grokfast.bounds import BELOW_ONE, SHARE, Bounds, check_bounds
from grokfast.errors import UsageError
from grokfast.fields import (
    as_field_type,
    check_type,
    replace_tree,
    resolve_field,
    scalar_fields,
    short_name,
    walk,
    without_newer,
)
from grokfast.losses import LOSSES
from grokfast.models import MODELS, Mlp, Model
from grokfast.models.base import stand_in as model_stand_in
from grokfast.observables import OBSERVABLES
from grokfast.optimizers import OPTIMIZERS
from grokfast.phases import PhaseRule, Rule, rule_from_dict
from grokfast.tasks.base import TASKS, Task
from grokfast.tasks.base import stand_in as task_stand_in

#: Fields that came with these versions of results files.
_NEW: dict[str, Any] = {"since": 2}
_NEWER: dict[str, Any] = {"since": 3}

NOT_NEGATIVE = Bounds(0.0)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How gradients become updates.

    Attributes:
        kind: ``adamw``, decoupled decay before the update, as ``torch.optim.AdamW``; ``adam``,
            coupled decay (added to the gradient), as ``torch.optim.Adam``; ``sgd``, coupled decay
            and momentum, as ``torch.optim.SGD``; or a user's own.
        lr: learning rate of every parameter outside the encoder group.
        weight_decay: weight decay of the same parameters as ``lr``; biases are decayed, too.
        beta1: how much of the first moment an Adam step keeps.
        beta2: how much of the second moment an Adam step keeps.
        eps: added to the root of the second moment in an Adam step.
        momentum: of ``sgd``: how much of the last update's direction the next one keeps.
        warmup: steps over which every learning rate rises linearly from 0, which the first step
            has; 0 for none.
        encoder: which early parameters form a group with a learning rate of its own (Liu et al.
            2022 call them the representation, the rest the decoder).
        encoder_lr: learning rate of the encoder group.
        encoder_weight_decay: decay of the encoder group; ``None`` for that of the rest.
        weight_decay_memorised: decay of every parameter once the model has memorised: from the step
            after the one in which T_train came to exist. Needs ``evaluation.train=after``; ``None``
            for no change.
        decay_towards: the values that AdamW's decay draws parameters to: ``zero``, or the
            ``initial`` ones of the model.
        update_noise: every parameter also moves by the learning rate times this times a standard
            normal number; ``noise_factor`` of github.com/openai/grok, there divided by
            1 - beta1**step.
        weight_noise: standard deviation of normal numbers that are added to every parameter in the
            forward pass of training; the gradient there is applied to the parameters without them.
    """

    kind: Annotated[str, OPTIMIZERS] = "adamw"
    lr: Annotated[float, NOT_NEGATIVE] = 1e-3
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    encoder: Literal["none", "embedding", "all-but-last"] = "none"
    encoder_lr: Annotated[float, NOT_NEGATIVE] = 1e-3
    encoder_weight_decay: Annotated[float | None, NOT_NEGATIVE] = None
    beta1: Annotated[float, BELOW_ONE] = 0.9
    beta2: Annotated[float, BELOW_ONE] = 0.999
    eps: Annotated[float, BELOW_ONE] = 1e-8
    momentum: Annotated[float, NOT_NEGATIVE] = field(default=0.0, metadata=_NEW)
    warmup: Annotated[int, Bounds(0)] = field(default=0, metadata=_NEW)
    weight_decay_memorised: Annotated[float | None, NOT_NEGATIVE] = field(
        default=None, metadata=_NEWER
    )
    decay_towards: Literal["zero", "initial"] = field(default="zero", metadata=_NEWER)
    update_noise: Annotated[float, NOT_NEGATIVE] = field(default=0.0, metadata=_NEWER)
    weight_noise: Annotated[float, NOT_NEGATIVE] = field(default=0.0, metadata=_NEWER)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How minibatches are made of the training set, epoch by epoch.

    Attributes:
        order: ``loader``, torch's DataLoader with a shuffling sampler; ``continued``, one
            ``torch.randperm`` an epoch; both from the generator as the model's initial draws left
            it. ``by-step``, ``torch.randperm`` after seeding with the number of steps done, the
            same for all models; ``fixed``, the order of the data, never shuffled.
        remainder: what is left over at the end of an epoch: ``none`` (the batch size must divide
            the training set), ``dropped``, or ``short`` (a last, smaller batch).
        share: where this share of the training set, rounded up, is less than ``batch_size``, a
            batch has so many samples: 0.5 in Power et al. 2022. ``None`` for no such bound.
    """

    order: Literal["loader", "continued", "by-step", "fixed"] = "loader"
    remainder: Literal["none", "dropped", "short"] = "none"
    share: Annotated[float | None, SHARE] = field(default=None, metadata=_NEWER)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When accuracy is looked at, and of what.

    Attributes:
        schedule: ``every-epoch`` (with a full batch an epoch is one step); ``every-steps``, after
            every ``every`` steps; ``log-steps``, after the steps
            ``unique(int(logspace(0, log10(horizon), points)))``; ``end``, after the last step of
            the budget alone. ``log-epochs``, after the epochs
            ``unique(int(logspace(0, log10(horizon), points) / steps_per_epoch))`` counted from 0,
            the schedule of Shabalin et al. 2023, whose horizon does not follow the budget of the
            run (numbers correctly rounded).
        horizon: of the log-spaced schedules, the last candidate.
        points: of the log-spaced schedules, the number of candidates.
        every: of ``every-steps``, steps between evaluations.
        train: the training accuracy is ``running``, counted over the batches of the epoch before
            their updates, or of the whole training set ``after`` the update, in evaluation mode.
        train_loss: with ``train=after``, the recorded training loss is that of the step's own batch
            ``before`` its update, or the mean over the whole training set ``after`` it.
        initial: whether losses and accuracies of the initial state are recorded, too, as step 0 of
            the curves (the training loss is then that of the whole training set).
        thresholds: further accuracies whose first crossings are kept, besides the phase rule's.
    """

    schedule: Literal["every-epoch", "log-epochs", "every-steps", "log-steps", "end"] = (
        "every-epoch"
    )
    horizon: Annotated[int, Bounds(1)] = 300_000
    points: Annotated[int, Bounds(1)] = 1000
    every: Annotated[int, Bounds(1)] = field(default=1, metadata=_NEW)
    train: Literal["running", "after"] = field(default="running", metadata=_NEW)
    train_loss: Literal["before", "after"] = field(default="before", metadata=_NEWER)
    initial: bool = field(default=False, metadata=_NEWER)
    thresholds: Annotated[tuple[float, ...], SHARE] = field(default=(), metadata=_NEW)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is kept besides T_train and T_val.

    Attributes:
        curves: losses and accuracies are kept at ``log-spaced`` evaluated steps, or at all that
            are ``evaluated``.
        curve_points: of the log-spaced steps to 10^6, whatever the budget, so that a run whose
            budget is raised keeps those that it has: fewer lie within a smaller one; 0 for none.
        embeddings: steps between snapshots of the embedding, 0 for none.
        weights: whether each cell's trained parameters go into the results file.
        observables: names of :data:`grokfast.observables.OBSERVABLES`, each at log-spaced steps,
            or as ``norms:100`` every so many steps.
    """

    curves: Literal["log-spaced", "evaluated"] = field(default="log-spaced", metadata=_NEW)
    curve_points: Annotated[int, Bounds(0)] = 200
    embeddings: Annotated[int, Bounds(0)] = 0
    weights: bool = False
    observables: tuple[str, ...] = field(default=(), metadata=_NEW)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that defines the training of one cell.

    Attributes:
        loss: of a batch, its mean over the samples.
        batch_size: samples of a batch, 0 for the full training set; else see ``batches``.
        steps: budget in optimizer updates.
        stop: ``both`` ends a cell when T_train and T_val exist, ``never`` at the budget.
        predict: ``argmax`` of the outputs; the class whose target is ``nearest`` (Euclidean); or by
            the ``sign`` of the one output, the class whose target has it: 0 is wrong for both.
        dtype: precision of parameters and arithmetic.
        precision: of float32 matrix products: ``ieee``, or on a GPU ``tf32x3`` or ``tf32``.

    Raises:
        UsageError: a field has a wrong type or value; the message names it and what would do.
    """

    task: Task
    model: Model = field(default_factory=Mlp)
    loss: Annotated[str, LOSSES] = "cross_entropy"
    predict: Literal["argmax", "nearest", "sign"] = "argmax"
    optimizer: Optimizer = field(default_factory=Optimizer)
    batch_size: Annotated[int, Bounds(0, 2**20, below=True)] = 0
    batches: Batches = field(default_factory=Batches, metadata=_NEW)
    steps: Annotated[int, Bounds(1, 2**31, below=True)] = 100_000  # kernels count in 32 bits
    stop: Literal["both", "never"] = "both"
    evaluation: Evaluation = field(default_factory=Evaluation)
    phase: Rule = field(default_factory=PhaseRule)
    record: Recording = field(default_factory=Recording)
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["ieee", "tf32x3", "tf32"] = "ieee"

    def __post_init__(self) -> None:
        for path, kind, value in walk(self):
            check_type(path, value, kind)
        try:
            _check_bounds(self)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.model.check()
        self.phase.check()
        _check_together(self)

    def get(self, path: str) -> Any:
        """Value of the field with this dotted name."""
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        return value

    def replace(self, **values: Any) -> Experiment:
        """A copy with fields changed: ``replace(lr=1e-3, **{"task.p": 12})``, short or dotted.

        Raises:
            UsageError: an unknown name, or a value that the field does not admit.
        """
        tree: dict[str, Any] = {}
        kinds = scalar_fields(self)
        for name, value in values.items():
            path = name if name in kinds else resolve_field(self, name)
            if isinstance(value, dict):  # which replace_tree would take for a part
                raise UsageError(f"{path} is {value!r}; give a single value")
            *parents, leaf = path.split(".")
            node = tree
            for part in parents:
                node = node.setdefault(part, {})
            node[leaf] = as_field_type(kinds[path], value)
        return replace_tree(self, tree)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; task, model and phase rule carry their registered name as ``name``."""
        data = dataclasses.asdict(self)
        for part in ("task", "model"):
            data[part] = {"name": getattr(self, part).name, **data[part]}
        data["phase"] = self.phase.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Experiment:
        """The inverse of :meth:`to_dict`; fields that an older version did not have are at their
        default. What is registered under no name here is a stand-in, which can be read but not
        trained.

        Raises:
            UsageError: unknown field.
        """
        try:
            data = dict(data)
            parts: dict[str, Any] = {
                "task": _registered(TASKS, task_stand_in, data.pop("task", {}), ""),
                "model": _registered(MODELS, model_stand_in, data.pop("model", {}), "mlp"),
            }
            for key, kind in _PARTS.items():
                parts[key] = kind(**_with_tuples(data.pop(key, {})))
            parts["phase"] = rule_from_dict(data.pop("phase", {}))
            LOSSES.tolerate(data.get("loss", "mse"))
            OPTIMIZERS.tolerate(parts["optimizer"].kind)
            for entry in parts["record"].observables:
                OBSERVABLES.tolerate(entry.partition(":")[0])
            return cls(**parts, **data)
        except MALFORMED as error:
            raise UsageError(f"this is not an experiment: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        return cls.from_dict(json.loads(text))

    def identity(self) -> str:
        """SHA-256 of everything but the budget: equal cells have equal results step for step."""
        data = without_newer(self)
        del data["steps"]
        data["task"] = {"name": self.task.name, **data["task"]}
        data["phase"] = self.phase.to_dict()
        if self.model.name != "mlp":  # the only one of the first version
            data["model"] = {"name": self.model.name, **data["model"]}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def data_identity(self) -> str:
        """What the data set follows from, as JSON: the task with its fields, and the data type."""
        data = self.to_dict()
        return json.dumps({name: data[name] for name in ("task", "dtype")}, sort_keys=True)


#: What data that were never an experiment raise, wherever they are taken for one.
MALFORMED = (
    LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip

_PARTS: dict[str, type] = {
    "optimizer": Optimizer,
    "batches": Batches,
    "evaluation": Evaluation,
    "record": Recording,
}


def _registered(
    registry: Any, stand_in: Callable[[str, dict[str, Any]], Any], data: dict[str, Any], usual: str
) -> Any:
    """What the registry builds of ``{"name": ..., field: value, ...}``, or its stand-in."""
    values = _with_tuples(data)
    name = str(values.pop("name", usual))
    return registry[name](**values) if name in registry else stand_in(name, values)


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}


def _check_bounds(value: Any, prefix: str = "") -> None:
    """Raises ValueError where a number of an experiment or of a part of it is out of bounds."""
    check_bounds(value, lambda name: short_name(prefix + name))
    for f in dataclasses.fields(value):
        part = getattr(value, f.name)
        if dataclasses.is_dataclass(part):
            _check_bounds(part, f"{prefix}{f.name}.")


def _check_together(e: Experiment) -> None:
    """Raises UsageError where fields do not go with each other."""
    if e.optimizer.decay_towards == "initial" and e.optimizer.kind != "adamw":
        raise UsageError(
            f"optimizer.decay_towards=initial is for the decay of adamw, but optimizer.kind is "
            f"{e.optimizer.kind!r}"
        )
    if e.dtype == "float64" and e.precision != "ieee":
        raise UsageError(f"precision is {e.precision!r}; float64 is computed in ieee only")
    for entry in e.record.observables:
        name, colon, every = entry.partition(":")
        if not OBSERVABLES.admits(name):
            OBSERVABLES[name]  # raises
        if colon and not (every.isdecimal() and int(every) > 0):
            raise UsageError(f"record.observables has {entry!r}; give NAME or NAME:STEPS")
    names = [entry.partition(":")[0] for entry in e.record.observables]
    if e.record.embeddings:
        names.append("embeddings")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is to be recorded twice; give it once")
    if e.evaluation.schedule == "every-steps" and e.evaluation.every > e.steps:
        raise UsageError(
            f"evaluation.every is {e.evaluation.every}, but steps is {e.steps}: nothing would be "
            "evaluated"
        )
    if e.optimizer.encoder == "embedding" and not e.model.has_embedding:
        raise UsageError("optimizer.encoder is 'embedding' but model.embedding_dim is 0")
    if e.record.embeddings and not e.model.has_embedding:
        raise UsageError("record=embeddings: this experiment has no embedding to record")
    if e.evaluation.train == "running":
        _check_running(e)


def _check_running(e: Experiment) -> None:
    """What there is not where the training accuracy is counted over batches before updates."""
    if e.optimizer.weight_decay_memorised is not None:
        raise UsageError(
            f"optimizer.weight_decay_memorised is {e.optimizer.weight_decay_memorised!r}, but a "
            "running accuracy tells of no single model that it has memorised: give "
            "evaluation.train=after"
        )
    if e.evaluation.train_loss == "after":
        raise UsageError("evaluation.train_loss=after goes with evaluation.train=after only")
    if e.evaluation.schedule in _BY_STEP and e.batch_size:
        raise UsageError(
            f"evaluation.schedule={e.evaluation.schedule} looks at steps inside an epoch, where "
            "there is no running accuracy: give evaluation.train=after"
        )


#: Schedules that do not go by epochs.
_BY_STEP = ("every-steps", "log-steps", "end")
