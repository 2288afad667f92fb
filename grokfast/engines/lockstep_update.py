"""The optimizer's part of a step in lockstep: noise on weights, the update of a block of models."""

from __future__ import annotations

import torch
from torch import Tensor

from grokfast.engines.lockstep import Batch, Data, Models, Spec, Tables
from grokfast.noise import UPDATE_NOISE, WEIGHT_NOISE, normal_like
from grokfast.optimizers import OPTIMIZERS


def with_weight_noise(
    spec: Spec, params: dict[str, Tensor], data: Data, number: Tensor
) -> dict[str, Tensor]:
    """The parameters that the forward pass of training sees in a step."""
    size = spec.optimizer.weight_noise
    if not size:
        return dict(params)
    noise = normal_like(list(params.values()), data.seeds, number, WEIGHT_NOISE)
    return {name: p + size * z for (name, p), z in zip(params.items(), noise, strict=True)}


def update(
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
    size, noise = spec.optimizer.update_noise, []
    if size:
        noise = normal_like(models.params, data.seeds, number, UPDATE_NOISE)
    for g, (p, gradient) in enumerate(zip(models.params, gradients, strict=True)):
        slots = [own[g] for own in models.slots]
        shape = (-1,) + (1,) * (p.ndim - 1)
        lr, keep, decay = (t[g].view(shape) for t in (tables.lr, tables.keep, tables.decay))
        if spec.changes_decay:  # judging the step before may just have found T_train
            memorised = (models.progress["t_train"] >= 0).view(shape)
            keep = torch.where(memorised, tables.keep_memorised[g].view(shape), keep)
            decay = torch.where(memorised, tables.decay_memorised[g].view(shape), decay)
        if spec.warms_up:
            lr = lr * tables.factor.index_select(0, tables.next)[0].view(shape)
            keep = 1 - lr * decay
        new_p, new_slots = rule(spec, p, gradient, slots, lr, keep, decay, number, tables)
        new_p = _towards(spec, new_p, g, lr, decay, data)
        if size:
            new_p = new_p - lr * size * noise[g]
        go = live.view(shape)
        for old, new in zip((*slots, p), (*new_slots, new_p), strict=True):
            old.copy_(torch.where(go, new, old))
    for name, buffer in models.buffers.items():
        go = live.view((-1,) + (1,) * (buffer.ndim - 1))
        buffer.copy_(torch.where(go, batch.buffers[name], buffer))


def _towards(spec: Spec, p: Tensor, g: int, lr: Tensor, decay: Tensor, data: Data) -> Tensor:
    """Parameter g, which a rule has just drawn to zero and updated, drawn to where it should be."""
    match spec.optimizer.decay_towards:
        case "zero":
            return p
        case "initial":  # p - lr decay (p - initial), of which the rule does the first half
            return p + lr * decay * data.initial[g]
    raise ValueError(f"unknown aim of decay {spec.optimizer.decay_towards!r}")


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
