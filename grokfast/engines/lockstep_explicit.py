"""Outputs and gradients of plain MLPs with biases, by explicit formulas: no graph is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from grokfast.engines.lockstep import (
    Batch,
    Data,
    Models,
    Spec,
    Tables,
    batch_rows,
    goal,
    mean_loss,
    of_label,
)
from grokfast.models.chain import activate
from grokfast.models.layers import Plain


def explicit_batch(
    spec: Spec, models: Models, data: Data, tables: Tables, judges: bool, rows: int
) -> Batch:
    """One forward pass for the batch and, where the pass judges, for what it judges."""
    n = spec.num_train
    # With a full batch the training set after the last step is this very batch.
    whole = judges and spec.train_accuracy == "after" and not spec.full_batch
    x, y = _rows(data, tables.next, rows, n, judges, whole)
    inputs, sums = _forward(spec, models.params, x)
    everything = sums[-1]
    output, own = everything[:, :rows], y[:, :rows]
    train_output = everything[:, rows : rows + n] if whole else None
    val_output = everything[:, -spec.num_val :] if judges else None

    def gradients() -> list[Tensor]:
        d_output = _loss_gradient(spec, output, own, data.targets)
        return _backward(spec, models.params, x, inputs, sums, d_output)

    loss = mean_loss(spec, output, own, data.targets)
    return Batch(output, own, loss, gradients, {}, val_output, train_output)


def _rows(
    data: Data, position: Tensor, rows: int, n: int, judges: bool, whole: bool
) -> tuple[Tensor, Tensor]:
    """Inputs and labels: the batch, then the training set if it is judged ``whole``, then the
    validation rows if the pass judges."""
    if data.order is None:
        return (data.x, data.y) if judges else (data.x[:, :n], data.y[:, :n])
    own = batch_rows(data, position, rows)  # [U, B]
    x = torch.take_along_dim(data.x, own[:, :, None], dim=1)
    y = torch.take_along_dim(data.y, own, dim=1)
    if judges:
        begin = 0 if whole else n
        x, y = torch.cat([x, data.x[:, begin:]], dim=1), torch.cat([y, data.y[:, begin:]], dim=1)
    return x, y


def _net(spec: Spec) -> Plain:
    assert spec.plain is not None  # or spec.explicit is false
    return spec.plain


def _layers(spec: Spec, params: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight [M, O, I] and bias [M, O] of each layer."""
    linear = params[1:] if _net(spec).vocabulary else params
    return list(zip(linear[0::2], linear[1::2], strict=True))


def _forward(spec: Spec, params: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Input [M or U, R, I] and weighted sum [M, R, O] of every layer; outputs are the last sum."""
    net = _net(spec)
    inputs = [torch.matmul(x, params[0]) if net.vocabulary else x]
    sums: list[Tensor] = []
    for weight, bias in _layers(spec, params):
        if sums:
            inputs.append(activate(sums[-1], net.activation))
        sums.append(_linear(inputs[-1], weight, bias))
    return inputs, sums


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.shape[2] == 1:  # nothing to sum over: fuses with the activation
        return x * weight[:, None, :, 0] + bias[:, None, :]
    return torch.baddbmm(bias[:, None, :], x.expand(len(weight), -1, -1), weight.mT)


def _through_activation(spec: Spec, d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """Gradient before the activation h of z, from the gradient d after it."""
    match _net(spec).activation:
        case "tanh":
            return d * (1 - h * h)
        case "relu":
            return torch.where(h > 0, d, 0)
        case "leaky_relu":
            return torch.where(h > 0, d, 0.1 * d)
        case "square":
            return d * (2 * z)
    raise ValueError(f"unknown activation {_net(spec).activation!r}")


def _backward(
    spec: Spec,
    params: list[Tensor],
    x: Tensor,
    inputs: list[Tensor],
    sums: list[Tensor],
    d_output: Tensor,  # [M, B, O]
) -> list[Tensor]:
    """Gradient of every parameter tensor, in their order."""
    b = d_output.shape[1]
    layers = _layers(spec, params)
    gradients: list[Tensor] = []
    d = d_output  # [M, B, O] of the layer at hand
    for k in reversed(range(len(layers))):
        weight, _ = layers[k]
        h = inputs[k][:, :b]
        gradients[:0] = [_weight_gradient(d, h), d.sum(1)]
        if k > 0:
            d = _through_activation(spec, torch.bmm(d, weight), sums[k - 1][:, :b], h)
        elif _net(spec).vocabulary:
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


def _loss_gradient(spec: Spec, output: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """d loss / d output, [M, B, O]."""
    b, o = output.shape[1:]
    match spec.loss:
        case "mse":
            return (output - goal(targets, y)) * (2 / (b * o))
        case "cross_entropy":
            return (torch.softmax(output, 2) - of_label(output, y).to(output.dtype)) / b
    raise ValueError(f"no explicit gradient of loss {spec.loss!r}")
