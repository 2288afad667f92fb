"""Neurons as an ``nn.Module``; apart from the rest, because it imports torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokfast.analyses.neurons import Neurons
from grokfast.errors import UsageError


class SumOfNeurons(nn.Module):
    """The net of modular arithmetic with parameters named as in a trained one:
    ``embedding.weight`` ``[2p, N]`` and ``layers.0.weight`` ``[p, N]``."""

    def __init__(self, p: int, width: int, activation: str = "square") -> None:
        super().__init__()
        if activation not in ("square", "relu"):
            raise UsageError(f"activation is {activation!r}; give square or relu")
        self.activation = activation
        self.embedding = nn.Embedding(2 * p, width)
        self.layers = nn.ModuleList([nn.Linear(width, p, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``[N, p]`` of tokens ``[N, 2]``: m and p + n."""
        h = self.embedding(x).sum(dim=1)
        return self.layers[0](h * h if self.activation == "square" else torch.relu(h))


def as_module(net: Neurons, dtype: torch.dtype = torch.float32) -> SumOfNeurons:
    """A module with the weights of a net without normalisation, e.g. of
    :func:`grokfast.analyses.solution`.

    Raises:
        UsageError: a net with a normalisation.
    """
    if net.norm is not None:
        raise UsageError("a net with a norm is no plain sum of neurons", hint="Results.module")
    module = SumOfNeurons(net.p, net.width, net.activation).to(dtype)
    module.load_state_dict({k: torch.from_numpy(v).to(dtype) for k, v in net.weights().items()})
    return module
