"""An Experiment: everything that defines a run, frozen, validated, JSON-round-tripping.

Imports no torch: the command line reads and checks experiments before it loads anything heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from grokfast.errors import UsageError
from grokfast.phases import PhaseRule, Rule, rule_from_dict
from grokfast.tasks.base import TASKS, Task, stand_in

ACTIVATIONS = ("tanh", "relu", "leaky_relu", "square")
MAX_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class Model:
    """An MLP of ``depth`` linear layers, optionally behind a learned embedding sum.

    Attributes:
        width: hidden units a layer.
        depth: linear layers, 1 to 4 (hidden layers: depth - 1).
        embedding_dim: 0 for dense inputs; else each token has a learned vector of this size and
            the first layer sees the sum over the sample's tokens.
        activation: after all layers but the last; ``leaky_relu`` has slope 0.1.
        init_scale: every initial parameter is multiplied by it.
        init_dtype: the precision in which initial values are drawn (draws differ with it).
        seed: the model seed, of the initial values and, with minibatches, of the shuffles.
    """

    width: int = 200
    depth: int = 3
    embedding_dim: int = 0
    activation: Literal["tanh", "relu", "leaky_relu", "square"] = "tanh"
    init_scale: float = 1.0
    init_dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW, decoupled decay before the update, as ``torch.optim.AdamW``.

    Attributes:
        lr, weight_decay: of every parameter outside the encoder group; biases are decayed too.
        encoder: which early parameters form a group with a learning rate of its own (Liu et al.
            2022 call them the representation, the rest the decoder).
        encoder_lr: learning rate of the encoder group.
        encoder_weight_decay: decay of the encoder group; ``None`` for that of the rest.
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    encoder: Literal["none", "embedding", "all-but-last"] = "none"
    encoder_lr: float = 1e-3
    encoder_weight_decay: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When accuracy is looked at: at the end of every epoch, or of the listed ones.

    With a full batch an epoch is one step. ``log-epochs`` evaluates after the epochs
    ``unique(int(logspace(0, log10(horizon), points) / steps_per_epoch))`` counted from 0 (its
    numbers correctly rounded), the schedule of Shabalin et al. 2023, whose horizon does not follow
    the budget of the run.
    """

    schedule: Literal["every-epoch", "log-epochs"] = "every-epoch"
    horizon: int = 300_000
    points: int = 1000


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is kept besides T_train and T_val.

    Attributes:
        curve_points: log-spaced steps at which losses and accuracies are kept (at most this many).
        embeddings: steps between snapshots of the embedding, 0 for none.
        weights: whether each cell's trained parameters go into the results file.
    """

    curve_points: int = 200
    embeddings: int = 0
    weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that defines the training of one cell.

    Attributes:
        batch_size: 0 for the full batch; else it must divide the number of training samples.
        steps: budget in optimizer updates.
        stop: ``both`` ends a cell when T_train and T_val exist, ``never`` at the budget.
        predict: ``argmax`` of the outputs, or the class whose target is ``nearest`` (Euclidean).
        precision: of float32 matrix products: ``ieee``, or on a GPU ``tf32x3`` or ``tf32``.

    Raises:
        UsageError: a field has a wrong type or value; the message names it and what would do.
    """

    task: Task
    model: Model = field(default_factory=Model)
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    predict: Literal["argmax", "nearest"] = "argmax"
    optimizer: Optimizer = field(default_factory=Optimizer)
    batch_size: int = 0
    steps: int = 100_000
    stop: Literal["both", "never"] = "both"
    evaluation: Evaluation = field(default_factory=Evaluation)
    phase: Rule = field(default_factory=PhaseRule)
    record: Recording = field(default_factory=Recording)
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["ieee", "tf32x3", "tf32"] = "ieee"

    def __post_init__(self) -> None:
        for path, kind in scalar_fields(self).items():
            _check_type(path, self.get(path), kind)
        _check_ranges(self)

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
        for name, value in values.items():
            path = resolve_field(self, name)
            *parents, leaf = path.split(".")
            node = tree
            for part in parents:
                node = node.setdefault(part, {})
            node[leaf] = _as_field_type(scalar_fields(self)[path], value)
        return _replace_tree(self, tree)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; task and phase rule carry their registered names under ``name``."""
        data = dataclasses.asdict(self)
        data["phase"] = self.phase.to_dict()
        data["task"] = {"name": self.task.name, **data["task"]}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Experiment:
        """The inverse of :meth:`to_dict`. A task or phase rule that is not registered is a
        stand-in, which can be read but not trained.

        Raises:
            UsageError: unknown field.
        """
        data = dict(data)
        task_data = dict(data.pop("task", {}))
        name = task_data.pop("name", None)
        nested = {
            "model": Model,
            "optimizer": Optimizer,
            "evaluation": Evaluation,
            "record": Recording,
        }
        try:
            parts = {key: kind(**data.pop(key, {})) for key, kind in nested.items()}
            parts["phase"] = rule_from_dict(data.pop("phase", {}))
            task = TASKS[name](**task_data) if name in TASKS else stand_in(str(name), task_data)
            return cls(task=task, **parts, **data)
        except TypeError as error:
            raise UsageError(f"this is not an experiment: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        return cls.from_dict(json.loads(text))

    def identity(self) -> str:
        """SHA-256 of everything but the budget: equal cells have equal results step for step."""
        data = self.to_dict()
        del data["steps"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def data_identity(self) -> str:
        """What the data set follows from, as JSON: the task with its fields, and the data type."""
        data = self.to_dict()
        return json.dumps({name: data[name] for name in ("task", "dtype")}, sort_keys=True)


#: Short names of the fields that are most often an axis.
SHORT_NAMES: dict[str, str] = {
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "data_seed": "task.seed",
    "model_seed": "model.seed",
    "activation": "model.activation",
    "init_scale": "model.init_scale",
    "width": "model.width",
    "depth": "model.depth",
}
_SHORT_OF = {path: short for short, path in SHORT_NAMES.items()}


def short_name(path: str) -> str:
    """The name of a field in files and figures: ``optimizer.lr`` is ``lr``."""
    return _SHORT_OF.get(path, path)


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def scalar_fields(experiment: Experiment) -> dict[str, Any]:
    """Dotted name -> type annotation of every scalar field, in order of declaration."""
    found: dict[str, Any] = {}

    def walk(value: Any, prefix: str) -> None:
        hints = _type_hints(type(value))  # type: ignore[arg-type]
        for f in dataclasses.fields(value):
            inner = getattr(value, f.name)
            if dataclasses.is_dataclass(inner):
                walk(inner, f"{prefix}{f.name}.")
            else:
                found[prefix + f.name] = hints[f.name]

    walk(experiment, "")
    return found


def resolve_field(experiment: Experiment, name: str) -> str:
    """Dotted name of the field called ``name`` (short or dotted).

    Raises:
        UsageError: no such field; the message suggests the closest one.
    """
    path = SHORT_NAMES.get(name, name)
    known = scalar_fields(experiment)
    if path in known:
        return path
    close = difflib.get_close_matches(name, [*known, *SHORT_NAMES], n=1, cutoff=0.5)
    if not close:  # the leaf alone: `beta2` for `optimizer.beta2`
        close = [p for p in known if p.rsplit(".", 1)[-1] == name][:1]
    hint = f"did you mean {close[0]}?" if close else "grokfast run PRESET --dry-run lists them all"
    raise UsageError(f"unknown field {name!r}", hint=hint)


def parse_value(path: str, kind: Any, text: str) -> Any:
    """One value of a field from its command-line text.

    Raises:
        UsageError: the text is no value of the field's type.
    """
    options = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if options:
        if text in options:
            return text
        close = difflib.get_close_matches(text, options, n=1)
        raise UsageError(
            f"{short_name(path)}={text!r} is not one of {', '.join(options)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    if isinstance(kind, types.UnionType):
        if text.lower() == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise UsageError(f"{short_name(path)}={text!r} is not true or false")
    try:
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError
            return int(text) if text.lstrip("+-").isdigit() else int(number)
        if kind is float:
            return float(text)
    except (ValueError, OverflowError):
        what = "a whole number, such as 1000 or 1e5" if kind is int else "a number, such as 1e-3"
        raise UsageError(f"{short_name(path)}={text!r} is not {what}") from None
    return text


def value_text(value: Any) -> str:
    """The inverse of :func:`parse_value`: the text that is read back as this very value."""
    return repr(value) if isinstance(value, float) else str(value)


def _as_field_type(kind: Any, value: Any) -> Any:
    """Numbers from NumPy and whole floats take the field's own Python type."""
    if hasattr(value, "item"):
        value = value.item()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == (float | None) and isinstance(value, int):
        return float(value)
    return value


def _replace_tree(value: Any, tree: dict[str, Any]) -> Any:
    changes = {
        name: _replace_tree(getattr(value, name), inner) if isinstance(inner, dict) else inner
        for name, inner in tree.items()
    }
    try:
        return dataclasses.replace(value, **changes)
    except ValueError as error:  # a task's own check
        raise UsageError(str(error)) from error


def _check_type(path: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        if value not in options:
            raise UsageError(f"{path} is {value!r}; give one of {', '.join(map(str, options))}")
        return
    accepted = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in accepted:
        accepted = (*accepted, int)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(k.__name__ for k in accepted if k is not type(None))
        raise UsageError(f"{path} is {value!r}; give a value of type {names}")


def _check_ranges(e: Experiment) -> None:
    at_least = {
        "steps": 1,
        "batch_size": 0,
        "model.width": 1,
        "model.depth": 1,
        "model.embedding_dim": 0,
        "record.curve_points": 0,
        "record.embeddings": 0,
        "evaluation.horizon": 1,
        "evaluation.points": 1,
        "task.seed": 0,
        "model.seed": 0,
        "optimizer.lr": 0.0,
        "optimizer.weight_decay": 0.0,
        "optimizer.encoder_lr": 0.0,
    }
    for path, low in at_least.items():
        value = e.get(path)
        if not (value >= low and math.isfinite(value)):
            raise UsageError(
                f"{short_name(path)} is {value!r}; give a finite value of {low} or more"
            )
    decay = e.optimizer.encoder_weight_decay
    if decay is not None and not (decay >= 0 and math.isfinite(decay)):
        raise UsageError(f"optimizer.encoder_weight_decay is {decay!r}; give 0 or more, or none")
    if e.steps >= 2**31:  # the kernels count steps in 32 bits
        raise UsageError(f"steps is {e.steps}; give less than 2**31")
    for path in ("model.width", "model.embedding_dim", "batch_size"):
        if e.get(path) >= 2**20:
            raise UsageError(f"{short_name(path)} is {e.get(path)}; give less than 2**20")
    for path in ("task.seed", "model.seed"):
        if e.get(path) >= 2**32:  # NumPy's RandomState takes 32 bits
            raise UsageError(f"{short_name(path)} is {e.get(path)}; give less than 2**32")
    if e.model.depth > MAX_DEPTH:
        raise UsageError(f"depth is {e.model.depth}; give 1 to {MAX_DEPTH}")
    if not math.isfinite(e.model.init_scale):
        raise UsageError(f"init_scale is {e.model.init_scale!r}; give a finite number")
    for path in ("optimizer.beta1", "optimizer.beta2"):
        if not 0 <= e.get(path) < 1:
            raise UsageError(f"{path} is {e.get(path)!r}; give 0 <= beta < 1")
    if e.dtype == "float64" and e.precision != "ieee":
        raise UsageError(f"precision is {e.precision!r}; float64 is computed in ieee only")
    if not 0 <= e.optimizer.eps < 1:
        raise UsageError(f"optimizer.eps is {e.optimizer.eps!r}; give 0 <= eps < 1")
    e.phase.check()
    if e.optimizer.encoder == "embedding" and not e.model.embedding_dim:
        raise UsageError("optimizer.encoder is 'embedding' but model.embedding_dim is 0")
    if e.record.embeddings and not e.model.embedding_dim:
        raise UsageError("record=embeddings: this experiment has no embedding to record")
