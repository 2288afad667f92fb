"""A chain of layers in torch: one network as an ``nn.Module``, and many in stacked tensors.

The module is the source of initial values, what ``reference`` trains, and what a user gets back.
:func:`stacked_forward` is the same function for M networks at once; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grokfast.models.layers import (
    Activation,
    BatchNorm,
    Dropout,
    EmbeddingSum,
    Layer,
    LayerNorm,
    Linear,
    Scale,
)
from grokfast.models.noisy import Noisy
from grokfast.models.stacked import Differentiated, Loss, Noise, Stacked, Tensors
from grokfast.noise import dropout_mask

if TYPE_CHECKING:
    from grokfast.models.mlp import Mlp

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


class Chain(Noisy):
    """The layers as a module: ``embedding``, ``layers`` (the linear ones) and ``norms``.

    The order of construction is that of the authors' code, because it consumes random numbers: an
    embedding with its default normal draw, uniform(-1/2, 1/2) over it, the linear layers; an
    embedding that is a first layer is drawn as the linear layer that it stands for.

    Args:
        layers: see :mod:`grokfast.models.layers`.
        dtype: ``float32`` or ``float64``.
    """

    def __init__(self, layers: Sequence[Layer], dtype: str = "float32") -> None:
        super().__init__()
        kind = torch_dtype(dtype)
        self.chain = tuple(layers)
        self.embedding: nn.Embedding | None
        self.register_module("embedding", None)  # the first, whether there is one or not
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for layer in self.chain:
            match layer:
                case EmbeddingSum(vocabulary, width, first_layer):
                    self.embedding = _embedding(vocabulary, width, first_layer, kind)
                case Linear(inputs, outputs, bias):
                    self.layers.append(nn.Linear(inputs, outputs, bias=bias, dtype=kind))
                case BatchNorm(width):
                    norm = nn.BatchNorm1d(width, dtype=kind)
                    norm.num_batches_tracked = None  # counts for nothing where momentum is given
                    self.norms.append(norm)
                case LayerNorm(width):
                    self.norms.append(nn.LayerNorm(width, dtype=kind))

    @property
    def activation(self) -> str:
        """The name of the first activation; empty where there is none."""
        return next((x.name for x in self.chain if isinstance(x, Activation)), "")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``[B, O]`` of inputs ``[B, I]``, or of tokens ``[B, K]``."""
        linear, norms = iter(self.layers), iter(self.norms)
        for layer in self.chain:
            match layer:
                case EmbeddingSum():
                    assert self.embedding is not None
                    x = self.embedding(x).sum(dim=1)  # [B, E]
                case Linear():
                    x = next(linear)(x)
                case Scale(factor):
                    x = x * factor
                case Activation(name):
                    x = activate(x, name)
                case Dropout(rate, site):
                    x = self.drop(x, rate, site)
                case BatchNorm() | LayerNorm():
                    x = next(norms)(x)
                case _:
                    raise TypeError(f"unknown layer {layer!r}")
        return x


def _embedding(vocabulary: int, width: int, first_layer: bool, dtype: torch.dtype) -> nn.Embedding:
    if first_layer:
        linear = nn.Linear(vocabulary, width, bias=False, dtype=dtype)
        return nn.Embedding.from_pretrained(linear.weight.detach().T.contiguous(), freeze=False)
    embedding = nn.Embedding(vocabulary, width, dtype=dtype)
    nn.init.uniform_(embedding.weight, -0.5, 0.5)
    return embedding


@torch.no_grad()
def initialize(chain: Chain, model: Mlp) -> None:
    """Draws the initial weights that ``model.init`` asks for, in the order of the layers, and
    multiplies all by ``model.init_scale``."""
    if model.init != "torch":
        for weight in _weights(chain):
            drawn = torch.empty_like(weight, memory_format=torch.contiguous_format)
            inputs = weight.shape[1]
            weight.copy_(drawn.normal_(0.0, _deviation(model.init, inputs, model.width)))
    for name, parameter in chain.named_parameters():
        if not name.startswith("norms."):
            parameter.mul_(model.init_scale)


def _weights(chain: Chain) -> Iterator[Tensor]:
    """Weight matrix ``[outputs, inputs]`` of every linear layer, views of the module."""
    linear = iter(chain.layers)
    for layer in chain.chain:
        if isinstance(layer, EmbeddingSum) and layer.first_layer:
            assert chain.embedding is not None
            yield chain.embedding.weight.T
        elif isinstance(layer, Linear):
            module = next(linear)
            assert isinstance(module, nn.Linear)
            yield module.weight


def _deviation(init: str, inputs: int, width: int) -> float:
    """Standard deviation of the normal draws of a layer."""
    match init:
        case "cube-root":
            return 0.5 / (2 * width) ** (1 / 3)
        case "standard-normal":
            return 1.0
        case "he":
            return (2 / inputs) ** 0.5
        case "lazy":
            return 2**0.5 / width ** (1 / 3)
    raise ValueError(f"unknown init {init!r}")


#: Of torch's BatchNorm1d and LayerNorm by default.
_EPS, _MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True)
class StackedChain(Stacked):
    """Chains of layers in stacked tensors."""

    layers: tuple[Layer, ...]

    @property
    def same_in_evaluation(self) -> bool:  # type: ignore[override]
        return not any(isinstance(x, (BatchNorm, Dropout)) for x in self.layers)

    def forward(
        self, params: Tensors, buffers: Tensors, x: Tensor, noise: Noise = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return stacked_forward(self.layers, params, buffers, x, noise)

    def differentiated(
        self, loss: Loss, params: Tensors, buffers: Tensors, x: Tensor, noise: Noise
    ) -> Differentiated:
        """An embedding sum by hand: autograd would scatter, which on a GPU is another sum in every
        run."""
        if not isinstance(self.layers[0], EmbeddingSum):
            return super().differentiated(loss, params, buffers, x, noise)
        learned = dict(params)
        table = learned.pop("embedding.weight")
        h = embedding_sum(table, x)

        def total(learned: Tensors, h: Tensor):
            output, new = stacked_forward(self.layers[1:], learned, buffers, h, noise)
            losses = loss(output)
            return losses.sum(), (output, losses, new)

        grad = torch.func.grad(total, argnums=(0, 1), has_aux=True)
        (found, d), (output, losses, new) = grad(learned, h)
        found["embedding.weight"] = _embedding_gradient(d, x, table.shape[1])
        return Differentiated(found, output, losses, new)


def stacked_forward(
    layers: Sequence[Layer],
    params: Tensors,
    buffers: Tensors,
    x: Tensor,
    noise: Noise = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """M networks on their samples.

    Args:
        layers: see :mod:`grokfast.models.layers`.
        params, buffers: by the module's names, each ``[M, ...]``.
        x: ``[U, B, I]``, or tokens ``[U, B, K]``; U is 1 where all networks see the same samples,
            else M.
        noise: seeds ``[M]`` and step (a scalar), int64, in training; None in evaluation.

    Returns:
        Outputs ``[M, B, O]``, and the buffers after this batch.
    """
    training = noise is not None
    new = dict(buffers)
    linear = norm = 0
    for layer in layers:
        match layer:
            case EmbeddingSum():
                x = embedding_sum(params["embedding.weight"], x)
            case Linear(_, _, bias):
                weight = params[f"layers.{linear}.weight"]
                x = torch.matmul(x, weight.mT)
                if bias:
                    x = x + params[f"layers.{linear}.bias"][:, None, :]
                linear += 1
            case Scale(factor):
                x = x * factor
            case Activation(name):
                x = activate(x, name)
            case Dropout(rate, site):
                if noise is not None:
                    x = x * dropout_mask(rate, *noise, site, x.shape[1:], x.dtype)
            case BatchNorm():
                x = _batch_norm(x, params, new, f"norms.{norm}.", training)
                norm += 1
            case LayerNorm():
                gamma, beta = (params[f"norms.{norm}.{k}"][:, None] for k in ("weight", "bias"))
                variance, mean = torch.var_mean(x, 2, correction=0, keepdim=True)
                x = (x - mean) * torch.rsqrt(variance + _EPS) * gamma + beta
                norm += 1
            case _:
                raise TypeError(f"unknown layer {layer!r}")
    return x, new


def embedding_sum(table: Tensor, tokens: Tensor) -> Tensor:
    """Sum of the vectors ``[M, P, E]`` of each sample's tokens ``[U, B, K]``: ``[M, B, E]``."""
    models = torch.arange(len(table), device=table.device)[:, None, None]
    return table[models, tokens].sum(2)


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


def _batch_norm(
    x: Tensor, params: Tensors, buffers: dict[str, Tensor], prefix: str, training: bool
) -> Tensor:
    """Normalised over the rows of the batch, or by the running averages, which training moves."""
    names = [prefix + "running_mean", prefix + "running_var"]
    if training:
        rows = x.shape[1]
        variance, mean = torch.var_mean(x, 1, correction=0)  # [M, width]
        unbiased = variance * (rows / (rows - 1))
        for name, now in zip(names, (mean, unbiased), strict=True):
            buffers[name] = (1 - _MOMENTUM) * buffers[name] + _MOMENTUM * now.detach()
    else:
        mean, variance = (buffers[name] for name in names)
    scale = params[prefix + "weight"] * torch.rsqrt(variance + _EPS)
    return (x - mean[:, None]) * scale[:, None] + params[prefix + "bias"][:, None]
