"""What the heads of a transformer attend to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from grokfast.errors import UsageError
from grokfast.models.decoder import Decoder


@torch.no_grad()
def attention(net: nn.Module, tokens: Tensor, wanted: str = "attention") -> Tensor:
    """Attention weights of all heads, ``[layers, B, heads, K, K]``: at ``[..., i, j]`` how much
    position i takes of position j.

    Args:
        net: in evaluation mode.
        tokens: ``[B, K]``.
        wanted: what asks, for the message.

    Raises:
        UsageError: a network without attention.
    """
    if not isinstance(net, Decoder):
        raise UsageError(f"{wanted}: this experiment has no attention; give model=transformer")
    inputs: list[Tensor] = []
    heads = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    hooks = [
        head.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for head in heads
    ]
    try:
        net(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([_weights(head, x) for head, x in zip(heads, inputs, strict=True)])


def _weights(head: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Causal attention weights ``[B, heads, K, K]`` of inputs ``[B, K, width]``."""
    width, length = head.embed_dim, x.shape[1]
    bias = None if head.in_proj_bias is None else head.in_proj_bias[: 2 * width]
    both = functional.linear(x, head.in_proj_weight[: 2 * width], bias)  # queries, keys
    query, key = (
        t.unflatten(2, (head.num_heads, -1)).transpose(1, 2) for t in both.split(width, dim=2)
    )
    scores = query @ key.mT / query.shape[-1] ** 0.5
    later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)
