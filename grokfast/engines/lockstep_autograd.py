"""Outputs and gradients of any network with a stacked form: autograd through its forward pass."""

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
    mean_loss,
)
from grokfast.engines.lockstep_update import with_weight_noise

#: Numbers of the widest layer that an evaluation holds at once (1 GiB in float32): more rows go
#: through the network in parts.
_AT_ONCE = 2**28


def autograd_batch(
    spec: Spec, models: Models, data: Data, tables: Tables, judges: bool, rows: int
) -> Batch:
    """The batch forward and backward; what is judged, by a forward pass of its own."""
    n = spec.num_train
    if data.order is None:
        x, y = data.x[:, :n], data.y[:, :n]
    else:
        own = batch_rows(data, tables.next, rows)
        x = torch.take_along_dim(data.x, own[:, :, None], dim=1)
        y = torch.take_along_dim(data.y, own, dim=1)
    params = dict(zip(spec.parameters, models.params, strict=True))
    number = tables.flags.index_select(0, tables.next)[0, 0]
    learned = with_weight_noise(spec, params, data, number)

    def loss(output: Tensor) -> Tensor:
        return mean_loss(spec, output, y, data.targets)

    noise = data.seeds, number
    found = spec.net.differentiated(loss, learned, models.buffers, x, noise)
    gradients = [found.gradients[name] for name in spec.parameters]
    train_output = val_output = None
    if judges:
        val_output = _evaluated(spec, params, models, data.x[:, n:])
        if spec.train_accuracy == "after" and not (spec.full_batch and spec.same_in_evaluation):
            train_output = _evaluated(spec, params, models, data.x[:, :n])
    return Batch(
        found.output, y, found.losses, lambda: gradients, found.buffers, val_output, train_output
    )


def judged_alone(spec: Spec, models: Models, data: Data) -> tuple[Batch, Tensor]:
    """What is judged, beside a batch of no samples, and the right predictions of that: [M]."""
    n = spec.num_train
    params = dict(zip(spec.parameters, models.params, strict=True))
    begin = 0 if spec.train_accuracy == "after" else n
    everything = _evaluated(spec, params, models, data.x[:, begin:])
    train_output = everything[:, :n] if begin == 0 else None
    val_output = everything[:, n - begin :]
    none = torch.zeros_like(models.progress["step"])
    nothing = val_output[:, :0], data.y[:, :0], models.batch_loss
    return Batch(*nothing, lambda: [], {}, val_output, train_output), none


def _evaluated(spec: Spec, params: dict[str, Tensor], models: Models, x: Tensor) -> Tensor:
    """Outputs [M, R, O] in evaluation."""
    widest = max(p.shape[-1] for p in params.values()) * len(models.live) * spec.net.positions
    parts = x.split(max(1, _AT_ONCE // widest), dim=1)
    outputs = [spec.net.forward(params, models.buffers, part)[0] for part in parts]
    return torch.cat(outputs, dim=1)
