"""One training step of a block of models at once, on stacked tensors.

Plain torch functions without data-dependent control flow, fit for ``torch.compile`` and for a
CUDA graph: what changes from step to step is read from tables, at a position that the step
itself advances.

The forward pass of step i + 1 uses the very weights that are validated after step i, so one pass
does both: step i is judged at the start of the pass that does step i + 1. A pass after the last
step judges that one and updates nothing. Outputs and gradients come from ``lockstep_explicit``,
whose backward pass is written out, or from ``lockstep_autograd``, for any other network. A large
one is judged by a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.experiment import Optimizer
from grokfast.losses import LOSSES
from grokfast.models.layers import Plain
from grokfast.models.stacked import Stacked
from grokfast.noise import UPDATE_NOISE, WEIGHT_NOISE, normal
from grokfast.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Spec:
    """What a pass depends on besides its tensors; equal specs share one compilation."""

    net: Stacked
    plain: Plain | None  # the same in simpler terms, where there are any
    parameters: tuple[str, ...]  # names, [G]
    buffers: tuple[str, ...]
    loss: str
    predict: str
    train_accuracy: str  # "running" or "after"
    full_batch: bool
    steps_per_epoch: int
    num_train: int
    num_val: int
    counted: int  # training samples that an accuracy is counted over
    need_train: int
    need_val: int
    need_more: tuple[tuple[int, int], ...]  # of training and validation, by further threshold
    stop_at_both: bool
    optimizer: Optimizer  # without the numbers that differ from cell to cell
    warms_up: bool  # whether learning rates change from step to step

    @classmethod
    def of(cls, bucket: Bucket) -> Spec:
        cell = bucket.cell
        assert bucket.stacked is not None
        return cls(
            net=bucket.stacked,
            plain=bucket.plain,
            parameters=bucket.names,
            buffers=tuple(bucket.init_buffers[0]),
            loss=cell.loss,
            predict=cell.predict,
            train_accuracy=cell.evaluation.train,
            full_batch=bucket.orders is None,
            steps_per_epoch=bucket.steps_per_epoch,
            num_train=bucket.num_train,
            num_val=bucket.num_val,
            counted=bucket.counted,
            need_train=bucket.need_train,
            need_val=bucket.need_val,
            need_more=tuple(zip(bucket.need_train_more, bucket.need_val_more, strict=True)),
            stop_at_both=bucket.stop_at_both,
            optimizer=replace(
                cell.optimizer,
                lr=0.0,
                weight_decay=0.0,
                encoder_lr=0.0,
                encoder_weight_decay=None,
                warmup=0,
            ),
            warms_up=bool(bucket.warmup.any()),
        )

    @property
    def explicit(self) -> bool:
        """Whether the backward pass is written out for this network and loss."""
        net = self.plain
        known = net is not None and net.bias and not net.activate_embedding
        known = known and not self.optimizer.weight_noise
        return known and self.loss in ("cross_entropy", "mse")

    @property
    def same_in_evaluation(self) -> bool:
        """Whether the network computes in training what it computes in evaluation."""
        return self.net.same_in_evaluation and not self.optimizer.weight_noise


class Data(NamedTuple):
    """The samples of a block, training rows first; U is 1 where its models share them, else M."""

    x: Tensor  # [U, N + V, I], or tokens [U, N + V, K]; explicitly: how often each occurs [.., P]
    y: Tensor  # [U, N + V] int64
    targets: Tensor | None  # [U, C, O]
    order: Tensor | None  # [U, S, B] int64: the rows of each of S passes; None for the full batch
    seeds: Tensor  # [M] int64: of dropout and other noise
    initial: tuple[Tensor, ...]  # [G] of [M, ...], where decay is towards initial values, else none


class Tables(NamedTuple):
    """What each of the S passes of a call needs to know."""

    next: Tensor  # [1] int64: the pass that comes next
    flags: Tensor  # [S, 4] int64: step number, judge the one before?, train?, first of an epoch?
    bias: Tensor  # [S, 2]: 1 / (1 - beta1**i), 1 / sqrt(1 - beta2**i)
    factor: Tensor  # [S, M]: what learning rates are multiplied with
    lr: Tensor  # [G, M]
    keep: Tensor  # [G, M]: 1 - lr * weight_decay
    decay: Tensor  # [G, M]: weight decay


class Models(NamedTuple):
    """A block of M models; a pass changes them in place."""

    params: list[Tensor]  # G of [M, ...]
    slots: list[list[Tensor]]  # of the optimizer, each as params
    buffers: dict[str, Tensor]  # [M, ...]
    live: Tensor  # [M] bool: did the last step; what judging it changes shows in the next pass
    progress: dict[str, Tensor]  # outcomes.PROGRESS, [M]
    crossings: dict[str, Tensor]  # outcomes.CROSSINGS, [M, H]
    batch_loss: Tensor  # [M] float64: of the last step
    judged: Tensor  # [4, M] float32: losses and accuracies of the step judged last (state.CURVES)


class Batch(NamedTuple):
    """What the network says of a pass's samples."""

    output: Tensor  # [M, B, O] of the batch to learn from
    y: Tensor  # [U, B]
    loss: Tensor  # [M]
    gradients: Callable[[], list[Tensor]]  # of the mean loss, by parameter
    buffers: Mapping[str, Tensor]  # after this batch
    val_output: Tensor | None  # [M, V, O], where the pass judges
    train_output: Tensor | None  # [M, N, O], where it judges and the batch's will not do


Pass = Callable[[Models, Data, Tables], None]


def make_pass(spec: Spec, judges: bool, rows: int) -> Pass:
    """The pass for ``spec``; one that ``judges`` carries the validation rows, and does nothing else
    where the network is large.

    Args:
        rows: samples in the batch.
    """
    from grokfast.engines.lockstep_autograd import autograd_batch, judged_alone
    from grokfast.engines.lockstep_explicit import explicit_batch

    make_batch = explicit_batch if spec.explicit else autograd_batch

    def only_judge(models: Models, data: Data, tables: Tables) -> None:
        number, judge, *_ = tables.flags.index_select(0, tables.next)[0].unbind()
        batch, correct = judged_alone(spec, models, data)
        models.live.copy_(_judge(spec, models, data, batch, correct, number - 1, judge > 0))

    def one_pass(models: Models, data: Data, tables: Tables) -> None:
        number, judge, train, first = tables.flags.index_select(0, tables.next)[0].unbind()
        batch = make_batch(spec, models, data, tables, judges, rows)
        correct = count_correct(spec, batch.output, batch.y, data.targets)

        live = models.live
        if judges:
            live = _judge(spec, models, data, batch, correct, number - 1, judge > 0)
        live = live & (train > 0)

        finite = torch.isfinite(batch.loss)
        diverged_at = models.progress["diverged_at"]
        diverged_at.copy_(torch.where(live & ~finite, number, diverged_at))
        live = live & finite
        _count(models, live, first > 0, batch.loss, correct)
        _update(spec, models, data, batch, live, number, tables)
        step = models.progress["step"]
        step.copy_(torch.where(live, number, step))
        models.live.copy_(live)
        tables.next.add_(1)

    run = only_judge if judges and spec.net.large else one_pass
    # Dynamo keeps compilations, and counts them against its limit, by code object.
    run.__code__ = run.__code__.replace()
    return run


def batch_rows(data: Data, position: Tensor, rows: int) -> Tensor:
    """Rows of the training set in this pass's batch: [U, B]."""
    assert data.order is not None
    return data.order.index_select(1, position)[:, 0, :rows]


def goal(targets: Tensor | None, y: Tensor) -> Tensor:
    """Target of every row, [U, R, O]."""
    assert targets is not None
    return torch.take_along_dim(targets, y[:, :, None], dim=1)


def of_label(x: Tensor, y: Tensor) -> Tensor:
    """Where x [M, R, C] belongs to its row's label y [U, R]: bool [U, R, C]."""
    return torch.arange(x.shape[2], device=x.device) == y[:, :, None]


def mean_loss(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Mean loss of each model: [M]."""
    match spec.loss:
        case "mse":
            return (output - goal(targets, y)).square().mean((1, 2))
        case "cross_entropy":
            # where, not a product with 0: the logits of a diverging model may be infinite.
            own = torch.where(of_label(output, y), output, 0).sum(2)  # [M, R]
            return (torch.logsumexp(output, 2) - own).mean(1)
    loss = LOSSES[spec.loss]
    m, rows = output.shape[:2]
    target = goal(targets, y).expand(m, -1, -1) if loss.targets else None
    labels = y.expand(m, rows)
    if target is None:
        return torch.vmap(lambda o, label: loss.mean(o, label, None))(output, labels)
    return torch.vmap(loss.mean)(output, labels, target)


def count_correct(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Right predictions of each model, int64 [M]."""
    match spec.predict:
        case "argmax":
            return (output.argmax(2) == y).sum(1)
        case "nearest":
            assert targets is not None
            distance = (output[:, :, None, :] - targets[:, None]).square().sum(3)  # [M, R, C]
            return (distance.argmin(2) == y).sum(1)
    raise ValueError(f"unknown prediction {spec.predict!r}")


def _judge(
    spec: Spec,
    models: Models,
    data: Data,
    batch: Batch,
    batch_correct: Tensor,  # [M]
    number: Tensor,  # the step done last
    due: Tensor,  # whether it is to be judged
) -> Tensor:
    """What is known after the step done last; which models go on, [M]."""
    assert batch.val_output is not None
    progress, y = models.progress, data.y[:, spec.num_train :]
    val_correct = count_correct(spec, batch.val_output, y, data.targets)
    val_loss = mean_loss(spec, batch.val_output, y, data.targets)
    match spec.train_accuracy:
        case "running":
            train_correct = progress["epoch_correct"]
            train_loss = progress["epoch_loss"] / spec.steps_per_epoch
        case "after":
            train_correct, train_loss = batch_correct, models.batch_loss
            if batch.train_output is not None:
                y = data.y[:, : spec.num_train]
                train_correct = count_correct(spec, batch.train_output, y, data.targets)
        case other:
            raise ValueError(f"unknown training accuracy {other!r}")
    judged = models.live & due
    for name, correct, need, more in (
        ("train", train_correct, spec.need_train, [t for t, _ in spec.need_more]),
        ("val", val_correct, spec.need_val, [v for _, v in spec.need_more]),
    ):
        t, last, best = (progress[k] for k in _outcomes(name))
        t.copy_(torch.where(judged & (correct >= need) & (t < 0), number, t))
        last.copy_(torch.where(judged, correct, last))
        best.copy_(torch.where(judged, torch.maximum(best, correct), best))
        crossings = models.crossings[f"{name}_crossings"]
        for h, enough in enumerate(more):
            first = judged & (correct >= enough) & (crossings[:, h] < 0)
            crossings[:, h] = torch.where(first, number, crossings[:, h])
    curves = [
        train_loss,
        val_loss,
        train_correct / spec.counted,
        val_correct / spec.num_val,
    ]
    models.judged.copy_(torch.stack([c.float() for c in curves]))
    if not spec.stop_at_both:
        return models.live
    return models.live & ~((progress["t_train"] >= 0) & (progress["t_val"] >= 0))


def _outcomes(name: str) -> tuple[str, str, str]:
    return f"t_{name}", f"{name}_correct", f"best_{name}_correct"


def _count(models: Models, live: Tensor, fresh: Tensor, loss: Tensor, correct: Tensor) -> None:
    """Adds this batch to the epoch's sums, which start anew where the epoch is ``fresh``."""
    for name, own in (("epoch_correct", correct), ("epoch_loss", loss)):
        total = models.progress[name]
        so_far = torch.where(fresh, torch.zeros_like(total), total)
        total.copy_(torch.where(live, so_far + own, total))
    models.batch_loss.copy_(torch.where(live, loss, models.batch_loss))


def with_weight_noise(
    spec: Spec, params: dict[str, Tensor], data: Data, number: Tensor
) -> dict[str, Tensor]:
    """The parameters that the forward pass of training sees in a step."""
    size = spec.optimizer.weight_noise
    if not size:
        return dict(params)
    return {
        name: p + size * normal(data.seeds, number, WEIGHT_NOISE + g, p.shape[1:], p.dtype)
        for g, (name, p) in enumerate(params.items())
    }


def _update(
    spec: Spec,
    models: Models,
    data: Data,
    batch: Batch,
    live: Tensor,
    number: Tensor,
    tables: Tables,
) -> None:
    """The optimizer's step; models that are not live stay as they are to the bit: a select,
    because 0 * NaN is not 0.
    """
    rule = _adamw if spec.optimizer.kind == "adamw" else _by_rule
    gradients = batch.gradients()
    for g, (p, gradient) in enumerate(zip(models.params, gradients, strict=True)):
        slots = [own[g] for own in models.slots]
        shape = (-1,) + (1,) * (p.ndim - 1)
        lr, keep, decay = (t[g].view(shape) for t in (tables.lr, tables.keep, tables.decay))
        if spec.warms_up:
            lr = lr * tables.factor.index_select(0, tables.next)[0].view(shape)
            keep = 1 - lr * decay
        new_p, new_slots = rule(spec, p, gradient, slots, lr, keep, decay, number, tables)
        new_p = _besides(spec, new_p, g, lr, decay, number, data)
        go = live.view(shape)
        for old, new in zip((*slots, p), (*new_slots, new_p), strict=True):
            old.copy_(torch.where(go, new, old))
    for name, buffer in models.buffers.items():
        go = live.view((-1,) + (1,) * (buffer.ndim - 1))
        buffer.copy_(torch.where(go, batch.buffers[name], buffer))


def _besides(
    spec: Spec, p: Tensor, g: int, lr: Tensor, decay: Tensor, number: Tensor, data: Data
) -> Tensor:
    """Parameter g, which a rule has just updated, with what no rule knows of."""
    match spec.optimizer.decay_towards:
        case "zero":
            pass
        case "initial":  # p - lr decay (p - initial), of which the rule does the first half
            p = p + lr * decay * data.initial[g]
        case other:
            raise ValueError(f"unknown aim of decay {other!r}")
    if size := spec.optimizer.update_noise:
        noise = normal(data.seeds, number, UPDATE_NOISE + g, p.shape[1:], p.dtype)
        p = p - lr * size * noise
    return p


def _adamw(spec, p, g, slots, lr, keep, decay, number, tables):
    """AdamW with decoupled decay, as ``torch.optim.AdamW``, its corrections read from a table."""
    beta1, beta2 = spec.optimizer.beta1, spec.optimizer.beta2
    correction, root_correction = tables.bias.index_select(0, tables.next)[0].unbind()
    m, v = slots
    new_m = m + (1 - beta1) * (g - m)
    new_v = beta2 * v + (1 - beta2) * g * g
    update = new_m / (new_v.sqrt() * root_correction + spec.optimizer.eps)
    return p * keep - (lr * correction) * update, (new_m, new_v)


def _by_rule(spec, p, g, slots, lr, keep, decay, number, tables):
    """Any other optimizer, as it is registered."""
    rule = OPTIMIZERS[spec.optimizer.kind]
    # A power of a whole tensor would be one in float32.
    return rule.update(p, g, slots, lr, decay, number.double(), spec.optimizer)
