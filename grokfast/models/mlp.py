"""The MLP of the toy, MNIST, modular-arithmetic and parity experiments, as fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from grokfast.bounds import BELOW_ONE, Bounds
from grokfast.errors import UsageError
from grokfast.models.base import Model, Shape, model
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

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_DEPTH = 4
_NEW: dict[str, Any] = {"since": 2}


@model("mlp")
@dataclass(frozen=True, kw_only=True)
class Mlp(Model):
    """An MLP of ``depth`` linear layers, optionally on tokens.

    Attributes:
        width: hidden units a layer.
        depth: linear layers, 1 to 4 (hidden layers: depth - 1).
        embedding_dim: 0 for none; else each token has a learned vector of this size and the first
            layer sees the sum over the sample's tokens.
        one_hot: the first layer sees the sum of the tokens' one-hot vectors, as in modular
            arithmetic (Gromov 2023): its weights ``[P, width]`` are kept as an embedding.
        bias: whether linear layers have biases.
        output_bias: whether the last of them has one, where ``bias`` is true.
        activation: after all layers but the last; ``leaky_relu`` has slope 0.1.
        dropout: probability of a zero before each activation, in training.
        norm: after each activation: ``batch`` (over the batch, running averages in evaluation) or
            ``layer``, both as torch's defaults.
        parametrization: ``mean-field`` multiplies the first layer's sums by 1 / sqrt(I) and the
            outputs by 1 / width (Gromov 2023, arXiv 2301.02679, Eqs. 1-4).
        init: ``torch``, the defaults of ``nn.Linear`` and uniform(-1/2, 1/2) for an embedding;
            or normal with mean 0, all drawn after those defaults: ``cube-root`` with variance
            (16 width)^(-2/3) (Doshi et al. 2024, their code), ``standard-normal``, ``he`` with
            variance 2 / inputs, ``lazy`` with variance 2 / width^(2/3) (Doshi et al., Fig. 7).
        init_scale: every initial parameter is multiplied by it.
        init_dtype: the precision in which initial values are drawn (draws differ with it).
        seed: the model seed, of the initial values and, with minibatches, of their order.
    """

    width: Annotated[int, Bounds(1, 2**20, below=True)] = 200
    depth: Annotated[int, Bounds(1, MAX_DEPTH)] = 3
    embedding_dim: Annotated[int, Bounds(0, 2**20, below=True)] = 0
    one_hot: bool = field(default=False, metadata=_NEW)
    bias: bool = field(default=True, metadata=_NEW)
    output_bias: bool = field(default=True, metadata={"since": 3})
    activation: Literal["tanh", "relu", "leaky_relu", "square"] = "tanh"
    dropout: Annotated[float, BELOW_ONE] = field(default=0.0, metadata=_NEW)
    norm: Literal["none", "batch", "layer"] = field(default="none", metadata=_NEW)
    parametrization: Literal["standard", "mean-field"] = field(default="standard", metadata=_NEW)
    init: Literal["torch", "cube-root", "standard-normal", "he", "lazy"] = field(
        default="torch", metadata=_NEW
    )
    init_scale: Annotated[float, Bounds()] = 1.0
    init_dtype: Literal["float32", "float64"] = "float32"

    per_cell: ClassVar[tuple[str, ...]] = ("init_scale", "init", "init_dtype")

    def check(self) -> None:
        if self.one_hot and self.embedding_dim:
            raise UsageError(
                f"model.one_hot=true with model.embedding_dim={self.embedding_dim}: tokens come as "
                "one or the other"
            )
        if self.one_hot and self.bias:
            raise UsageError("model.one_hot=true needs model.bias=false")
        if self.one_hot and self.depth < 2:
            raise UsageError(f"depth is {self.depth}; with model.one_hot give 2 to {MAX_DEPTH}")

    def fits(self, shape: Shape, task: str) -> None:
        if bool(shape.vocabulary) == (self.one_hot or bool(self.embedding_dim)):
            return
        what = "tokens" if shape.vocabulary else "dense inputs"
        if self.one_hot:
            raise UsageError(f"task {task!r} gives {what}, but model.one_hot is true")
        raise UsageError(
            f"task {task!r} gives {what}, but model.embedding_dim is {self.embedding_dim}"
        )

    def layers(self, shape: Shape) -> tuple[Layer, ...]:
        mean_field = {"standard": False, "mean-field": True}[self.parametrization]
        inputs = shape.vocabulary or shape.inputs
        chain: list[Layer] = []

        def hidden() -> None:
            if mean_field and sum(isinstance(x, Activation) for x in chain) == 0:
                chain.append(Scale(inputs**-0.5))
            if self.dropout:
                site = sum(isinstance(x, Dropout) for x in chain)
                chain.append(Dropout(self.dropout, site))
            chain.append(Activation(self.activation))
            match self.norm:
                case "none":
                    pass
                case "batch":
                    chain.append(BatchNorm(self.width))
                case "layer":
                    chain.append(LayerNorm(self.width))
                case other:
                    raise ValueError(f"unknown norm {other!r}")

        left = self.depth
        if self.one_hot:
            chain.append(EmbeddingSum(shape.vocabulary, self.width, True))
            left -= 1
            inputs_now = self.width
            hidden()
        elif shape.vocabulary:
            chain.append(EmbeddingSum(shape.vocabulary, self.embedding_dim, False))
            inputs_now = self.embedding_dim
        else:
            inputs_now = shape.inputs
        for _ in range(left - 1):
            chain.append(Linear(inputs_now, self.width, self.bias))
            inputs_now = self.width
            hidden()
        chain.append(Linear(inputs_now, shape.outputs, self.bias and self.output_bias))
        if mean_field:
            chain.append(Scale(1 / self.width))
        return tuple(chain)

    def build(self, shape: Shape) -> nn.Module:
        from grokfast.models.chain import Chain, initialize

        chain = Chain(self.layers(shape), self.init_dtype)
        initialize(chain, self)
        return chain

    def least_parameters(self) -> int:
        return max(self.depth - 2, 0) * self.width**2  # of the hidden layers alone

    def group(self, parameter: str, shape: Shape) -> str:
        if parameter.startswith("embedding."):
            return "embedding"
        last = self.depth - 1 - self.one_hot
        return "output" if parameter.startswith(f"layers.{last}.") else "hidden"

    def shape_of(self, tensors: Mapping[str, Tensor]) -> Shape:
        weights = [t for name, t in tensors.items() if name.startswith("layers.") and t.ndim == 2]
        vocabulary = tensors["embedding.weight"].shape[0] if "embedding.weight" in tensors else 0
        inputs = weights[0].shape[1]
        return Shape(inputs=inputs, outputs=weights[-1].shape[0], vocabulary=vocabulary)
