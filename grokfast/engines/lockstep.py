"""One training step of a block of models at once: explicit formulas on stacked tensors.

Plain torch functions without data-dependent control flow, fit for ``torch.compile`` and for a
CUDA graph: what changes from step to step is read from tables, at a position that the step
itself advances. The backward pass is written out: no graph is kept.

The forward pass of step i + 1 uses the very weights that are validated after step i, so one pass
does both: validation rows are joined to the training rows, and step i is judged at the start of
the pass that does step i + 1. A pass after the last step judges that one and updates nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.model import activate


@dataclass(frozen=True)
class Spec:
    """What a pass depends on besides its tensors; equal specs share one compilation."""

    sizes: tuple[int, ...]  # (I, H, ..., O)
    vocabulary: int
    activation: str
    loss: str
    predict: str
    batch_size: int
    steps_per_epoch: int
    num_train: int
    num_val: int
    need_train: int
    need_val: int
    stop_at_both: bool
    betas: tuple[float, float]
    eps: float

    @classmethod
    def of(cls, bucket: Bucket) -> Spec:
        cell = bucket.cell
        return cls(
            sizes=bucket.sizes,
            vocabulary=bucket.vocabulary,
            activation=cell.model.activation,
            loss=cell.loss,
            predict=cell.predict,
            batch_size=bucket.batch_size,
            steps_per_epoch=bucket.steps_per_epoch,
            num_train=bucket.num_train,
            num_val=bucket.num_val,
            need_train=bucket.need_train,
            need_val=bucket.need_val,
            stop_at_both=bucket.stop_at_both,
            betas=(cell.optimizer.beta1, cell.optimizer.beta2),
            eps=cell.optimizer.eps,
        )


class Data(NamedTuple):
    """The samples of a block, training rows first; U is 1 where its models share them, else M."""

    x: Tensor  # [U, N + V, I], or how often each token occurs: [U, N + V, P]
    y: Tensor  # [U, N + V] int64
    targets: Tensor | None  # [U, C, O]
    order: Tensor | None  # [U, S, B] int64: the rows of each of S passes; None for the full batch


class Tables(NamedTuple):
    """What each of the S passes of a call needs to know."""

    next: Tensor  # [1] int64: the pass that comes next
    flags: Tensor  # [S, 4] int64: step number, judge the one before?, train?, first of an epoch?
    bias: Tensor  # [S, 2]: 1 / (1 - beta1**i), 1 / sqrt(1 - beta2**i)
    lr: Tensor  # [G, M]
    keep: Tensor  # [G, M]: 1 - lr * weight_decay


class Models(NamedTuple):
    """A block of M models; a pass changes them in place."""

    params: list[Tensor]  # G of [M, ...]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    live: Tensor  # [M] bool: did the last step; what judging it changes shows in the next pass
    step: Tensor  # [M] int64
    t_train: Tensor  # [M]
    t_val: Tensor  # [M]
    diverged_at: Tensor  # [M]
    epoch_correct: Tensor  # [M] int64
    epoch_loss: Tensor  # [M] float64
    judged: Tensor  # [4, M] float32: losses and accuracies of the step judged last (state.CURVES)


Pass = Callable[[Models, Data, Tables], None]


def make_pass(spec: Spec, judges: bool) -> Pass:
    """The pass for ``spec``; one that ``judges`` carries the validation rows."""

    def one_pass(models: Models, data: Data, tables: Tables) -> None:
        number, judge, train, first = tables.flags.index_select(0, tables.next)[0].unbind()
        x, y = _rows(spec, judges, data, tables.next)
        inputs, sums = _forward(spec, models.params, x)
        output = sums[-1]

        live = models.live
        if judges:
            live = _judge(spec, models, data, output[:, spec.batch_size :], number - 1, judge > 0)
        live = live & (train > 0)

        output, y = output[:, : spec.batch_size], y[:, : spec.batch_size]
        loss = _loss(spec, output, y, data.targets)  # [M]
        finite = torch.isfinite(loss)
        models.diverged_at.copy_(torch.where(live & ~finite, number, models.diverged_at))
        live = live & finite
        _count(spec, models, live, first > 0, loss, _correct(spec, output, y, data.targets))

        d_output = _loss_gradient(spec, output, y, data.targets)
        gradients = _backward(spec, models.params, x, inputs, sums, d_output)
        _adamw(spec, models, gradients, live, tables)
        models.step.copy_(torch.where(live, number, models.step))
        models.live.copy_(live)
        tables.next.add_(1)

    # Dynamo keeps compilations, and counts them against its limit, by code object.
    one_pass.__code__ = one_pass.__code__.replace()
    return one_pass


def _rows(spec: Spec, judges: bool, data: Data, position: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and labels of this pass: the batch, then the validation rows if it judges."""
    n = spec.num_train
    if data.order is None:
        return (data.x, data.y) if judges else (data.x[:, :n], data.y[:, :n])
    rows = data.order.index_select(1, position)[:, 0]  # [U, B]
    x = torch.take_along_dim(data.x, rows[:, :, None], dim=1)
    y = torch.take_along_dim(data.y, rows, dim=1)
    if judges:
        x, y = torch.cat([x, data.x[:, n:]], dim=1), torch.cat([y, data.y[:, n:]], dim=1)
    return x, y


def _layers(spec: Spec, params: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight [M, O, I] and bias [M, O] of each layer."""
    linear = params[1:] if spec.vocabulary else params
    return list(zip(linear[0::2], linear[1::2], strict=True))


def _forward(spec: Spec, params: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Input [M or U, R, I] and weighted sum [M, R, O] of every layer; outputs are the last sum."""
    inputs = [torch.matmul(x, params[0]) if spec.vocabulary else x]
    sums: list[Tensor] = []
    for weight, bias in _layers(spec, params):
        if sums:
            inputs.append(activate(sums[-1], spec.activation))
        sums.append(_linear(inputs[-1], weight, bias))
    return inputs, sums


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.shape[2] == 1:  # nothing to sum over: fuses with the activation
        return x * weight[:, None, :, 0] + bias[:, None, :]
    return torch.baddbmm(bias[:, None, :], x.expand(len(weight), -1, -1), weight.mT)


def _through_activation(spec: Spec, d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """Gradient before the activation h of z, from the gradient d after it."""
    match spec.activation:
        case "tanh":
            return d * (1 - h * h)
        case "relu":
            return torch.where(h > 0, d, 0)
        case "leaky_relu":
            return torch.where(h > 0, d, 0.1 * d)
        case "square":
            return d * (2 * z)
    raise ValueError(f"unknown activation {spec.activation!r}")


def _backward(
    spec: Spec,
    params: list[Tensor],
    x: Tensor,
    inputs: list[Tensor],
    sums: list[Tensor],
    d_output: Tensor,  # [M, B, O]
) -> list[Tensor]:
    """Gradient of every parameter tensor, in their order."""
    b = spec.batch_size
    layers = _layers(spec, params)
    gradients: list[Tensor] = []
    d = d_output  # [M, B, O] of the layer at hand
    for k in reversed(range(len(layers))):
        weight, _ = layers[k]
        h = inputs[k][:, :b]
        gradients[:0] = [_weight_gradient(d, h), d.sum(1)]
        if k > 0:
            d = _through_activation(spec, torch.bmm(d, weight), sums[k - 1][:, :b], h)
        elif spec.vocabulary:
            d_embedded = _input_gradient(d, weight)  # [M, B, I]
            tokens = x[:, :b].mT.expand(len(weight), -1, -1)  # [M, P, B]
            gradients[:0] = [torch.bmm(tokens, d_embedded)]
    return gradients


def _weight_gradient(d: Tensor, h: Tensor) -> Tensor:
    """[M, O, I] of d [M, B, O] and h [M or U, B, I]."""
    if h.shape[2] == 1:
        return (d * h).sum(1)[:, :, None]
    return torch.bmm(d.mT, h.expand(len(d), -1, -1))


def _input_gradient(d: Tensor, weight: Tensor) -> Tensor:
    """[M, B, I] of d [M, B, O] and weight [M, O, I]."""
    if weight.shape[2] == 1:
        return (d * weight[:, None, :, 0]).sum(2, keepdim=True)
    return torch.bmm(d, weight)


def _of_label(x: Tensor, y: Tensor) -> Tensor:
    """Where x [M, R, C] belongs to its row's label y [U, R]: bool [U, R, C]."""
    return torch.arange(x.shape[2], device=x.device) == y[:, :, None]


def _loss(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Mean loss of each model: [M]."""
    if spec.loss == "mse":
        return (output - _goal(targets, y)).square().mean((1, 2))
    # where, not a product with 0: the logits of a diverging model may be infinite.
    own = torch.where(_of_label(output, y), output, 0).sum(2)  # [M, R]
    return (torch.logsumexp(output, 2) - own).mean(1)


def _loss_gradient(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """d loss / d output, [M, B, O]."""
    b, o = output.shape[1:]
    if spec.loss == "mse":
        return (output - _goal(targets, y)) * (2 / (b * o))
    return (torch.softmax(output, 2) - _of_label(output, y).to(output.dtype)) / b


def _goal(targets: Tensor | None, y: Tensor) -> Tensor:
    """Target of every row, [U, R, O]."""
    assert targets is not None
    return torch.take_along_dim(targets, y[:, :, None], dim=1)


def _correct(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Right predictions of each model, int64 [M]."""
    if spec.predict == "argmax":
        return (output.argmax(2) == y).sum(1)
    assert targets is not None
    distance = (output[:, :, None, :] - targets[:, None]).square().sum(3)  # [M, R, C]
    return (distance.argmin(2) == y).sum(1)


def _judge(
    spec: Spec,
    models: Models,
    data: Data,
    output: Tensor,  # [M, V, O]
    number: Tensor,  # the step done last
    due: Tensor,  # whether it ended an evaluated epoch
) -> Tensor:
    """Sets T_train and T_val for the step done last; which models go on, [M]."""
    y = data.y[:, spec.num_train :]
    val_correct = _correct(spec, output, y, data.targets)
    val_loss = _loss(spec, output, y, data.targets)
    judged = models.live & due
    for t, reached in (
        (models.t_train, models.epoch_correct >= spec.need_train),
        (models.t_val, val_correct >= spec.need_val),
    ):
        t.copy_(torch.where(judged & reached & (t < 0), number, t))
    curves = [
        models.epoch_loss / spec.steps_per_epoch,
        val_loss,
        models.epoch_correct / spec.num_train,
        val_correct / spec.num_val,
    ]
    models.judged.copy_(torch.stack([c.float() for c in curves]))
    if not spec.stop_at_both:
        return models.live
    return models.live & ~((models.t_train >= 0) & (models.t_val >= 0))


def _count(
    spec: Spec, models: Models, live: Tensor, fresh: Tensor, loss: Tensor, correct: Tensor
) -> None:
    """Adds this batch to the epoch's sums, which start anew where the epoch is ``fresh``."""
    for total, own in ((models.epoch_correct, correct), (models.epoch_loss, loss)):
        so_far = torch.where(fresh, torch.zeros_like(total), total)
        total.copy_(torch.where(live, so_far + own, total))


def _adamw(
    spec: Spec, models: Models, gradients: list[Tensor], live: Tensor, tables: Tables
) -> None:
    """AdamW with decoupled decay, as ``torch.optim.AdamW``; models that are not live stay as
    they are to the bit: a select, because 0 * NaN is not 0.
    """
    beta1, beta2 = spec.betas
    correction, root_correction = tables.bias.index_select(0, tables.next)[0].unbind()
    everything = zip(
        models.params, models.exp_avg, models.exp_avg_sq, gradients, tables.lr, tables.keep,
        strict=True,
    )  # fmt: skip
    for p, m, v, g, lr, keep in everything:
        shape = (-1,) + (1,) * (p.ndim - 1)
        go = live.view(shape)
        new_m = m + (1 - beta1) * (g - m)
        new_v = beta2 * v + (1 - beta2) * g * g
        update = new_m / (new_v.sqrt() * root_correction + spec.eps)
        new_p = p * keep.view(shape) - (lr.view(shape) * correction) * update
        m.copy_(torch.where(go, new_m, m))
        v.copy_(torch.where(go, new_v, v))
        p.copy_(torch.where(go, new_p, p))
