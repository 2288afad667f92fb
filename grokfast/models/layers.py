"""The layers that a chain may have: what every engine reads of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingSum:
    """Sum of the learned vectors of a sample's tokens: ``[B, K]`` -> ``[B, width]``.

    Where it is ``first_layer``, it stands for a linear layer without bias on the sum of the tokens'
    one-hot vectors, and is drawn as one.
    """

    vocabulary: int  # P
    width: int  # E
    first_layer: bool


@dataclass(frozen=True)
class Linear:
    inputs: int
    outputs: int
    bias: bool


@dataclass(frozen=True)
class Scale:
    """A constant factor."""

    factor: float


@dataclass(frozen=True)
class Activation:
    name: str


@dataclass(frozen=True)
class Dropout:
    """Zeroes with probability ``rate`` and divides the rest by ``1 - rate``, in training only."""

    rate: float
    site: int  # number of this layer among the places of the net that draw


@dataclass(frozen=True)
class BatchNorm:
    width: int


@dataclass(frozen=True)
class LayerNorm:
    width: int


Layer = EmbeddingSum | Linear | Scale | Activation | Dropout | BatchNorm | LayerNorm


def parameter_names(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Names of the parameters of :class:`grokfast.models.chain.Chain`, in its order."""
    embedding: list[str] = []
    linear: list[str] = []
    norms: list[str] = []
    for layer in layers:
        match layer:
            case EmbeddingSum():
                embedding.append("embedding.weight")
            case Linear(bias=bias):
                at = sum(name.endswith(".weight") for name in linear)
                linear += [f"layers.{at}.{kind}" for kind in ("weight", "bias")[: 1 + bias]]
            case BatchNorm() | LayerNorm():
                at = len(norms) // 2
                norms += [f"norms.{at}.{kind}" for kind in ("weight", "bias")]
            case Scale() | Activation() | Dropout():
                pass
            case _:
                raise TypeError(f"unknown layer {layer!r}")
    return (*embedding, *linear, *norms)


@dataclass(frozen=True)
class Plain:
    """A chain of the simplest kind, in the terms of ``csrc`` and ``kernels``: an embedding sum or
    none, then linear layers with one activation between them.

    Attributes:
        sizes: ``(I, H, ..., O)``; with an embedding, I is its width.
        vocabulary: P, 0 for dense inputs.
        activate_embedding: whether the activation comes right after the embedding sum, too.
        bias: whether the linear layers have biases, except maybe the last.
        output_bias: whether the last has one.
    """

    sizes: tuple[int, ...]
    vocabulary: int
    activation: str
    activate_embedding: bool
    bias: bool
    output_bias: bool


def plain(layers: Sequence[Layer]) -> Plain | None:
    """The chain in those terms, or None where it has other layers or another order."""
    first = layers[0]
    embedding = first if isinstance(first, EmbeddingSum) else None
    rest = list(layers[1:] if embedding else layers)
    names = {x.name for x in rest if isinstance(x, Activation)}
    linear = [x for x in rest if isinstance(x, Linear)]
    biases = {x.bias for x in linear[:-1] or linear}
    if len(names) > 1 or len(biases) != 1 or linear[-1].bias > linear[0].bias:
        return None
    name = names.pop() if names else "tanh"  # without hidden layers there is none to apply
    activate_embedding = isinstance(rest[0], Activation)
    expected: list[Layer] = [Activation(name)] if activate_embedding else []
    for layer in linear:
        expected += [layer, Activation(name)]
    if rest != expected[:-1] or (activate_embedding and embedding is None):
        return None
    return Plain(
        sizes=(linear[0].inputs, *(x.outputs for x in linear)),
        vocabulary=embedding.vocabulary if embedding else 0,
        activation=name,
        activate_embedding=activate_embedding,
        bias=biases.pop(),
        output_bias=linear[-1].bias,
    )
