"""Neurons as an ``nn.Module``; apart from the rest, because it imports torch."""

from __future__ import annotations

import torch

from grokfast.analyses.neurons import Neurons
from grokfast.errors import UsageError
from grokfast.models.chain import Chain
from grokfast.models.layers import Activation, EmbeddingSum, Linear


def as_module(net: Neurons, dtype: torch.dtype = torch.float32) -> Chain:
    """A module with the weights of a net without normalisation, e.g. of
    :func:`grokfast.analyses.solution`, as a trained one has: ``embedding.weight`` ``[2p, N]`` and
    ``layers.0.weight`` ``[p, N]``; it maps tokens ``[B, 2]``, m and p + n, to outputs ``[B, p]``.

    Raises:
        UsageError: a net with a normalisation.
    """
    if net.norm is not None:
        raise UsageError("a net with a norm is no plain sum of neurons", hint="Results.module")
    chain = Chain(
        (
            EmbeddingSum(2 * net.p, net.width, first_layer=True),
            Activation(net.activation),
            Linear(net.width, net.p, bias=False),
        )
    ).to(dtype)
    chain.load_state_dict({k: torch.from_numpy(v).to(dtype) for k, v in net.weights().items()})
    return chain
