"""The MLP itself as an ``nn.Module``: the source of initial values, and what a user gets back."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from grokfast.experiment import Model

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def torch_dtype(name: str) -> torch.dtype:
    return _DTYPES[name]


def activate(x: Tensor, activation: str) -> Tensor:
    """The named activation, elementwise; ``leaky_relu`` has slope 0.1."""
    match activation:
        case "tanh":
            return torch.tanh(x)
        case "relu":
            return torch.relu(x)
        case "leaky_relu":
            return nn.functional.leaky_relu(x, 0.1)
        case "square":
            return x * x
    raise ValueError(f"unknown activation {activation!r}")


class MLP(nn.Module):
    """``depth`` linear layers with an activation between them, optionally behind an embedding sum.

    Args:
        sizes: ``(I, H, ..., O)``; with an embedding, I is its dimension.
        activation: see :func:`activate`.
        vocabulary: number of tokens P; 0 for dense inputs.

    The order of construction is that of the authors' code, because it consumes random numbers:
    the embedding with its default normal draw, uniform(-1/2, 1/2) over it, the linear layers.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        activation: str,
        vocabulary: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.embedding: nn.Embedding | None = None
        if vocabulary:
            self.embedding = nn.Embedding(vocabulary, sizes[0], dtype=dtype)
            nn.init.uniform_(self.embedding.weight, -0.5, 0.5)
        self.layers = nn.ModuleList(
            nn.Linear(i, o, dtype=dtype) for i, o in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``[N, O]`` of inputs ``[N, I]``, or of tokens ``[N, K]``."""
        if self.embedding is not None:
            x = self.embedding(x).sum(dim=1)  # [N, I]
        *hidden, last = self.layers
        for layer in hidden:
            x = activate(layer(x), self.activation)
        return last(x)


def initial_model(model: Model, sizes: tuple[int, ...], vocabulary: int) -> tuple[MLP, Tensor]:
    """The MLP before its first step, and torch's CPU generator state after the draws.

    The same function of the seed on every machine, device and grid; torch's global generator is
    left as it was. Minibatch shuffles continue from the returned state (``[5056]`` bytes).
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(model.seed)
        mlp = MLP(sizes, model.activation, vocabulary, torch_dtype(model.init_dtype))
        state = torch.get_rng_state()
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.mul_(model.init_scale)
    return mlp, state
