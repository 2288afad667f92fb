"""Experiments -> buckets: data checked and stacked, models drawn, orders and numbers laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grokfast.batches import (
    ByStepOrders,
    ContinuedOrders,
    FixedOrders,
    LoaderOrders,
    Orders,
    samples_of_batch,
)
from grokfast.bucket import Bucket, Parameter
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.grid import PER_CELL, static_key
from grokfast.losses import LOSSES
from grokfast.models import Model, Shape
from grokfast.models.chain import torch_dtype
from grokfast.schedule import Schedule
from grokfast.tasks import Task, TaskData


def make_buckets(cells: Sequence[Experiment], indices: Sequence[int]) -> list[Bucket]:
    """The buckets of a grid, in order of their first cell.

    Args:
        cells: experiments to train.
        indices: their flat grid indices, same length.

    Raises:
        UsageError: data and experiment do not fit each other.
        EnvironmentProblem: a data set is missing.
    """
    data: dict[Task, TaskData] = {}
    buckets: dict[object, list[int]] = {}
    for position, cell in enumerate(cells):
        if cell.task not in data:
            data[cell.task] = cell.task.build()
        built = data[cell.task]
        check_data(cell, built)
        key = (
            static_key(cell),
            built.x_train.shape,
            built.x_val.shape,
            built.num_classes,
            built.vocabulary,
            None if built.targets is None else built.targets.shape,
        )
        buckets.setdefault(key, []).append(position)
    return [
        _make_bucket([cells[p] for p in bucket], [indices[p] for p in bucket], data)
        for bucket in buckets.values()
    ]


def check_data(cell: Experiment, d: TaskData) -> None:
    """Looks at whether a task's data are what they should be, and fit the experiment.

    Raises:
        UsageError: they do not; the message says what and what would do.
    """
    name = cell.task.name
    samples = d.x_train.shape[0]
    if samples < 1 or d.x_val.shape[0] < 1:
        raise UsageError(
            f"task {name!r} gives {samples} training and {len(d.x_val)} validation samples; "
            "give at least 1 of each"
        )
    for what, x, y in (("train", d.x_train, d.y_train), ("val", d.x_val, d.y_val)):
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise UsageError(
                f"task {name!r}: x_{what} has shape {tuple(x.shape)} and y_{what} "
                f"{tuple(y.shape)}; give [N, I] and [N]"
            )
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < d.num_classes:
            raise UsageError(f"task {name!r}: labels y_{what} are not in 0..{d.num_classes - 1}")
        if d.vocabulary and not 0 <= int(x.min()) <= int(x.max()) < d.vocabulary:
            raise UsageError(f"task {name!r}: tokens x_{what} are not in 0..{d.vocabulary - 1}")
    cell.model.fits(_shape(d), name)
    if cell.model.seed is None and d.generator is None:
        raise UsageError(
            f"model.seed is none, but task {name!r} leaves no generator to go on with",
            hint="give model_seed a number",
        )
    if d.targets is None and (LOSSES[cell.loss].targets or cell.predict != "argmax"):
        raise UsageError(
            f"task {name!r} gives no dense targets, which loss={cell.loss} with "
            f"predict={cell.predict} needs",
            hint="--set=task.target_dim=30 for the addition task",
        )
    if d.targets is not None and d.targets.shape[0] != d.num_classes:
        raise UsageError(f"task {name!r}: {d.targets.shape[0]} targets for {d.num_classes} classes")
    if cell.predict == "sign":
        _check_signs(name, d)
    wide = d.targets is not None and d.targets.shape[1] != d.num_classes
    if wide and cell.loss == "cross_entropy":
        raise UsageError(f"task {name!r} has dense targets, which loss=cross_entropy cannot use")
    if wide and cell.predict == "argmax":
        raise UsageError(
            f"task {name!r} has {d.num_classes} classes, but their dense targets are of "
            f"{_shape(d).outputs} outputs, of which predict=argmax makes no class",
            hint="give predict=nearest, or sign for two classes and one output",
        )
    per_epoch = steps_per_epoch(cell, samples)
    by_epoch = cell.evaluation.schedule in ("every-epoch", "log-epochs")
    if by_epoch and cell.steps % per_epoch:
        raise UsageError(f"steps {cell.steps} is no multiple of the {per_epoch} steps of an epoch")


def _check_signs(task: str, d: TaskData) -> None:
    """Raises UsageError where the sign of one output does not tell two classes apart."""
    assert d.targets is not None
    if d.targets.shape != (2, 1) or not float(d.targets.prod()) < 0:
        classes, outputs = d.targets.shape
        raise UsageError(
            f"predict=sign needs two classes with targets of opposite sign, of one output; task "
            f"{task!r} has {classes} classes and {outputs} outputs"
            + (", both targets of one sign" if (classes, outputs) == (2, 1) else "")
        )


def steps_per_epoch(cell: Experiment, samples: int) -> int:
    """Steps of an epoch.

    Raises:
        UsageError: a batch size that does not go with the number of samples.
    """
    batch = samples_of_batch(cell, samples)
    if batch > samples:
        raise UsageError(
            f"batch_size {batch} is more than the {samples} training samples",
            hint="batch_size=0 is the full batch",
        )
    smallest = batch
    match cell.batches.remainder:
        case "none":
            if samples % batch:
                raise UsageError(
                    f"batch_size {batch} does not divide the {samples} training samples",
                    hint="--set=batches.remainder=dropped or short admits any",
                )
            steps = samples // batch
        case "dropped":
            steps = samples // batch
        case "short":
            steps = -(-samples // batch)
            smallest = samples - (steps - 1) * batch
        case other:
            raise ValueError(f"unknown remainder {other!r}")
    if smallest == 1 and getattr(cell.model, "norm", "none") == "batch":
        raise UsageError(
            f"model.norm=batch with batch_size {batch} has a batch of 1 sample, which has no "
            "variance: give batches of 2 or more"
        )
    return steps


def _shape(d: TaskData) -> Shape:
    outputs = d.num_classes if d.targets is None else d.targets.shape[1]
    return Shape(inputs=d.x_train.shape[1], outputs=outputs, vocabulary=d.vocabulary)


@dataclass(frozen=True)
class _Initial:
    """A model before its first step, and torch's CPU generator state after its draws."""

    module: nn.Module
    generator: Tensor  # [5056] bytes


def initial_model(model: Model, data: TaskData) -> _Initial:
    """The model before its first step.

    The same function of the seed on every machine, device and grid; torch's global generator is
    left as it was. Minibatch orders continue from the returned state.
    """
    with torch.random.fork_rng(devices=[]):
        if model.seed is None:
            assert data.generator is not None
            torch.set_rng_state(data.generator)
        else:
            torch.random.default_generator.manual_seed(model.seed)
        module = model.build(_shape(data))
        return _Initial(module, torch.get_rng_state())


def _stream(model: Model, data: TaskData) -> bytes:
    """What the initial draws of a model without a seed of its own go on from: models that go on
    from the same are the same."""
    if model.seed is not None or data.generator is None:
        return b""
    return data.generator.numpy().tobytes()


def _make_bucket(
    cells: list[Experiment], indices: list[int], built: dict[Task, TaskData]
) -> Bucket:
    first = cells[0]
    dtype = torch_dtype(first.dtype)
    tasks = list(dict.fromkeys(c.task for c in cells))
    data = [built[t] for t in tasks]
    shape = _shape(data[0])

    sources = [(c.model, _stream(c.model, built[c.task])) for c in cells]
    owner = {source: built[c.task] for source, c in zip(sources, cells, strict=True)}
    made = [initial_model(model, own) for (model, _), own in owner.items()]
    number = {source: k for k, source in enumerate(owner)}
    init_index = torch.tensor([number[source] for source in sources])
    module = made[0].module
    parameters = tuple(
        Parameter(name, tuple(p.shape), first.model.group(name, shape))
        for name, p in module.named_parameters()
    )

    samples = data[0].x_train.shape[0]
    per_epoch = steps_per_epoch(first, samples)
    schedule = Schedule(first.evaluation, first.record, per_epoch, first.steps)
    orders, order_index = _orders(first, samples, schedule, [m.generator for m in made], init_index)

    def stacked(name: str) -> Tensor:
        x = torch.stack([getattr(d, name) for d in data])
        return x.to(dtype) if x.is_floating_point() else x.long()

    lr, decay = _group_hyperparameters(cells, parameters)
    form = first.model.stacked(shape)
    return Bucket(
        cell=first,
        cells=tuple(indices),
        shape=shape,
        layers=first.model.layers(shape),
        stacked=form and form.on(stacked("x_train"), stacked("x_val")),
        parameters=parameters,
        tasks=tuple(tasks),
        num_classes=data[0].num_classes,
        x_train=stacked("x_train"),
        y_train=stacked("y_train"),
        x_val=stacked("x_val"),
        y_val=stacked("y_val"),
        targets=None if data[0].targets is None else stacked("targets"),
        data_index=torch.tensor([tasks.index(c.task) for c in cells]),
        lr=lr,
        weight_decay=decay,
        weight_decay_memorised=_decay_memorised(cells, decay),
        warmup=torch.tensor([c.optimizer.warmup for c in cells]),
        init=tuple(tuple(p.detach().to(dtype) for p in m.module.parameters()) for m in made),
        init_buffers=tuple(
            {name: b.detach().to(dtype) for name, b in m.module.named_buffers()} for m in made
        ),
        init_index=init_index,
        noise_seeds=torch.tensor([c.model.seed or 0 for c in cells]),
        orders=orders,
        order_index=order_index,
        schedule=schedule,
        values={
            f"optimizer.{name}": tuple(dict.fromkeys(getattr(c.optimizer, name) for c in cells))
            for name in PER_CELL
        },
    )


def _orders(
    cell: Experiment, samples: int, schedule: Schedule, states: list[Tensor], init_index: Tensor
) -> tuple[Orders | None, Tensor]:
    """The orders of the training rows, and the order of each cell ``[M]``."""
    if not cell.batch_size:
        return None, init_index
    same = torch.zeros_like(init_index)
    match cell.batches.order:
        case "loader":
            return LoaderOrders(states, samples, schedule), init_index
        case "continued":
            return ContinuedOrders(states, samples), init_index
        case "by-step":
            return ByStepOrders(samples, schedule.steps_per_epoch), same
        case "fixed":
            return FixedOrders(samples), same
    raise ValueError(f"unknown order {cell.batches.order!r}")


def in_encoder(encoder: str, group: str) -> bool:
    """Whether parameters of a group belong to the optimizer's encoder group."""
    match encoder:
        case "none":
            return False
        case "embedding":
            return group == "embedding"
        case "all-but-last":
            return group != "output"
    raise ValueError(f"unknown encoder {encoder!r}")


def _group_hyperparameters(
    cells: list[Experiment], parameters: tuple[Parameter, ...]
) -> tuple[Tensor, Tensor]:
    """Learning rate and weight decay of every parameter tensor and cell: float64 ``[G, M]``."""
    lr = torch.empty(len(parameters), len(cells), dtype=torch.float64)
    decay = torch.empty_like(lr)
    for m, cell in enumerate(cells):
        o = cell.optimizer
        own = o.weight_decay if o.encoder_weight_decay is None else o.encoder_weight_decay
        for g, parameter in enumerate(parameters):
            encoder = in_encoder(o.encoder, parameter.group)
            lr[g, m] = o.encoder_lr if encoder else o.lr
            decay[g, m] = own if encoder else o.weight_decay
    return lr, decay


def _decay_memorised(cells: list[Experiment], decay: Tensor) -> Tensor | None:
    """Weight decay of every parameter tensor and cell once the cell has memorised: float64
    ``[G, M]``, with that of before in cells where nothing changes; None where none does."""
    changed = [cell.optimizer.weight_decay_memorised for cell in cells]
    if all(value is None for value in changed):
        return None
    memorised = decay.clone()
    for m, value in enumerate(changed):
        if value is not None:
            memorised[:, m] = value
    return memorised
