"""Outputs and gradients of any chain of layers: autograd through the stacked forward pass."""

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
    with_weight_noise,
)
from grokfast.models.chain import embedding_sum, stacked_forward
from grokfast.models.layers import EmbeddingSum

#: Numbers of the widest layer that an evaluation holds at once (1 GiB in float32): more rows go
#: through the network in parts.
_AT_ONCE = 2**28


def autograd_batch(
    spec: Spec, models: Models, data: Data, tables: Tables, judges: bool, rows: int
) -> Batch:
    """The batch forward and backward; what is judged by a forward pass of its own, in evaluation.

    The sum of the losses of independent models has each one's own gradient. An embedding sum is
    differentiated by hand: autograd would scatter, which on a GPU is another sum in every run.
    """
    n = spec.num_train
    if data.order is None:
        x, y = data.x[:, :n], data.y[:, :n]
    else:
        own = batch_rows(data, tables.next, rows)
        x = torch.take_along_dim(data.x, own[:, :, None], dim=1)
        y = torch.take_along_dim(data.y, own, dim=1)
    params = dict(zip(spec.parameters, models.params, strict=True))
    number = tables.flags.index_select(0, tables.next)[0, 0]
    layers, h, learned = spec.layers, x, with_weight_noise(spec, params, data, number)
    embedded = isinstance(layers[0], EmbeddingSum)
    if embedded:
        h = embedding_sum(learned.pop("embedding.weight"), x)
        layers = layers[1:]

    def total(learned: dict[str, Tensor], h: Tensor):
        noise = data.seeds, number
        output, buffers = stacked_forward(layers, learned, models.buffers, h, noise)
        loss = mean_loss(spec, output, y, data.targets)
        return loss.sum(), (output, loss, buffers)

    grad = torch.func.grad(total, argnums=(0, 1) if embedded else (0,), has_aux=True)
    (found, *rest), (output, loss, buffers) = grad(learned, h)
    if embedded:
        vocabulary = params["embedding.weight"].shape[1]
        found["embedding.weight"] = _embedding_gradient(rest[0], x, vocabulary)
    gradients = [found[name] for name in spec.parameters]
    train_output = val_output = None
    if judges:
        val_output = _evaluated(spec, params, models, data.x[:, n:])
        if spec.train_accuracy == "after" and not (spec.full_batch and spec.same_in_evaluation):
            train_output = _evaluated(spec, params, models, data.x[:, :n])
    return Batch(output, y, loss, lambda: gradients, buffers, val_output, train_output)


def _embedding_gradient(d: Tensor, tokens: Tensor, vocabulary: int) -> Tensor:
    """Of each token the sum of d ``[M, B, E]`` over the rows that show it, as often as they do:
    ``[M, P, E]``, for tokens ``[U, B, K]``."""
    m, width = len(d), d.shape[2]
    if d.is_cuda:  # a product: additions to one place come in another order every time
        shows = tokens[..., None] == torch.arange(vocabulary, device=d.device)  # [U, B, K, P]
        return torch.bmm(shows.sum(2).to(d.dtype).mT.expand(m, -1, -1), d)
    places = tokens + vocabulary * torch.arange(m)[:, None, None]  # [M, B, K]
    total = d.new_zeros(m * vocabulary, width)
    for k in range(tokens.shape[2]):
        total = total.index_add(0, places[..., k].reshape(-1), d.reshape(-1, width))
    return total.view(m, vocabulary, width)


def _evaluated(spec: Spec, params: dict[str, Tensor], models: Models, x: Tensor) -> Tensor:
    """Outputs [M, R, O] in evaluation."""
    widest = max(p.shape[-1] for p in params.values()) * len(models.live)
    parts = x.split(max(1, _AT_ONCE // widest), dim=1)
    outputs = [stacked_forward(spec.layers, params, models.buffers, part)[0] for part in parts]
    return torch.cat(outputs, dim=1)
