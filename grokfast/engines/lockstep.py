"""One training step of a block of models at once, on stacked tensors.

Plain torch functions without data-dependent control flow, fit for ``torch.compile`` and for a
CUDA graph: what changes from step to step is read from tables, at a position that the step
itself advances.

The forward pass of step i + 1 uses the very weights that are validated after step i, so one pass
does both: step i is judged at the start of the pass that does step i + 1. A pass after the last
step judges that one and updates nothing. Outputs and gradients come from ``lockstep_explicit``,
whose backward pass is written out, or from ``lockstep_autograd``, for any other network;
``lockstep_update`` is the optimizer's. A large network is judged by a pass of its own.
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
    train_loss: str  # "before" or "after"
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
    changes_decay: bool  # whether decays change once a model has memorised

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
            train_loss=cell.evaluation.train_loss,
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
                weight_decay_memorised=None,
            ),
            warms_up=bool(bucket.warmup.any()),
            changes_decay=bucket.weight_decay_memorised is not None,
        )

    @property
    def explicit(self) -> bool:
        """Whether the backward pass is written out for this network and loss."""
        net = self.plain
        known = net is not None and net.bias and net.output_bias and not net.activate_embedding
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
    keep_memorised: Tensor  # [G, M]: the same two once T_train is there
    decay_memorised: Tensor  # [G, M]


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
    from grokfast.engines.lockstep_update import update

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
        update(spec, models, data, batch, live, number, tables)
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
        case "hinge":
            return (1 - goal(targets, y) * output).relu().mean((1, 2))
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
        case "sign":
            return (output * goal(targets, y) > 0)[:, :, 0].sum(1)
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
            train_correct, train_loss = batch_correct, _train_loss(spec, models, data, batch)
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


def _train_loss(spec: Spec, models: Models, data: Data, batch: Batch) -> Tensor:
    """Of the last step's own batch before its update, or of the training set after it: [M]."""
    match spec.train_loss:
        case "before":
            return models.batch_loss
        case "after":
            if batch.train_output is None:  # the batch is the training set
                return batch.loss
            return mean_loss(spec, batch.train_output, data.y[:, : spec.num_train], data.targets)
    raise ValueError(f"unknown training loss {spec.train_loss!r}")


def _outcomes(name: str) -> tuple[str, str, str]:
    return f"t_{name}", f"{name}_correct", f"best_{name}_correct"


def _count(models: Models, live: Tensor, fresh: Tensor, loss: Tensor, correct: Tensor) -> None:
    """Adds this batch to the epoch's sums, which start anew where the epoch is ``fresh``."""
    for name, own in (("epoch_correct", correct), ("epoch_loss", loss)):
        total = models.progress[name]
        so_far = torch.where(fresh, torch.zeros_like(total), total)
        total.copy_(torch.where(live, so_far + own, total))
    models.batch_loss.copy_(torch.where(live, loss, models.batch_loss))
