"""The transformer of the experiments on algorithmic data, as fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from grokfast.bounds import BELOW_ONE, Bounds
from grokfast.errors import UsageError
from grokfast.models.base import Model, Shape, model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grokfast.models.stacked import Stacked

SIZE = Bounds(1, 2**20, below=True)


@model("transformer")
@dataclass(frozen=True, kw_only=True)
class Transformer(Model):
    """A decoder-only transformer that answers at the last position of a sequence of tokens.

    By default that of github.com/BendeguzToth/grokking, the reproduction of Power et al. 2022
    (arXiv 2201.02177) with its two figures; Power's own code (github.com/openai/grok) has
    ``bias=false``, ``tied=false`` and ``positions=sinusoidal``.

    Attributes:
        depth: blocks of self-attention and a feed-forward net.
        width: components of an embedding.
        heads: of the attention; they share the width among them.
        feedforward: hidden units of the feed-forward nets.
        context: tokens of a sequence K, ``x o y =``.
        norm: layer norms, ``post`` (after each residual sum), ``pre`` (at the start of each branch
            and after the last block) or ``none``.
        bias: whether linear layers have biases; those of the norms stay, the head has none.
        tied: whether the logits are products with the embeddings of the tokens, else with a head of
            its own.
        positions: ``learned-rows``, the last K rows of the embedding table; ``learned``, a table of
            their own; ``sinusoidal``, fixed (Vaswani et al. 2017); or ``none``. They are added to
            the embeddings.
        activation: of the feed-forward nets.
        dropout: probability of a zero in what attention and feed-forward nets add to the residual
            stream, in training.
        loss_at: ``answer``, the token after ``=``. Power's code has the loss and the accuracy of
            the end token after it, too, which is refused.
        init: ``torch``, the defaults of its modules (embeddings N(0, 1)); or ``normal``: matrices
            N(0, 1/width), biases 0, drawn after those defaults (Nanda et al. 2023).
        init_scale: every initial parameter but the norms' is multiplied by it.
        same_layers: whether all blocks start with equal weights, as those of
            ``nn.TransformerEncoder`` do, which copies its layer.
    """

    depth: Annotated[int, SIZE] = 2
    width: Annotated[int, SIZE] = 128
    heads: Annotated[int, SIZE] = 4
    feedforward: Annotated[int, SIZE] = 512
    context: Annotated[int, SIZE] = 4
    norm: Literal["post", "pre", "none"] = "post"
    bias: bool = True
    tied: bool = True
    positions: Literal["learned-rows", "learned", "sinusoidal", "none"] = "learned-rows"
    activation: Literal["relu", "gelu"] = "relu"
    dropout: Annotated[float, BELOW_ONE] = 0.0
    loss_at: Literal["answer", "answer-and-end"] = "answer"
    init: Literal["torch", "normal"] = "torch"
    init_scale: Annotated[float, Bounds()] = 1.0
    same_layers: bool = True

    per_cell: ClassVar[tuple[str, ...]] = ("init", "init_scale", "same_layers")

    def check(self) -> None:
        if self.width % self.heads:
            raise UsageError(
                f"model.heads is {self.heads}, which does not divide model.width, {self.width}; "
                "give a divisor of it"
            )
        if self.loss_at != "answer":
            raise UsageError(
                f"model.loss_at is {self.loss_at!r}: sequences are x o y = and the answer, without "
                "an end token, which would be the same in all of them; give answer"
            )

    def fits(self, shape: Shape, task: str) -> None:
        if not shape.vocabulary:
            raise UsageError(f"task {task!r} gives dense inputs, but a transformer takes tokens")
        if shape.inputs != self.context:
            raise UsageError(
                f"task {task!r} gives {shape.inputs} tokens a sample, but model.context is "
                f"{self.context}; give model.context={shape.inputs}"
            )
        if self.tied and shape.outputs != shape.vocabulary:
            raise UsageError(
                f"task {task!r} has {shape.outputs} outputs and {shape.vocabulary} tokens, but "
                "model.tied=true gives one output a token: give model.tied=false"
            )

    def build(self, shape: Shape) -> nn.Module:
        from grokfast.models.decoder import Decoder, initialize

        net = Decoder(self, shape)
        initialize(net, self)
        return net

    def stacked(self, shape: Shape) -> Stacked:
        from grokfast.models.stacked_decoder import StackedDecoder

        shared = replace(self, seed=0, init="torch", init_scale=1.0, same_layers=True)
        return StackedDecoder(shared, shape.vocabulary, shape.outputs, (None,) * shape.inputs)

    @property
    def has_embedding(self) -> bool:
        return True

    def parameter_names(self, shape: Shape) -> tuple[str, ...]:
        def both(name: str, joint: str = ".") -> list[str]:
            return [f"{name}{joint}weight", *[f"{name}{joint}bias"] * self.bias]

        norms = ("norm1", "norm2") if self.norm != "none" else ()
        names = ["embedding.weight", *["positions.weight"] * (self.positions == "learned")]
        for n in range(self.depth):
            own = [*both("self_attn.in_proj", "_"), *both("self_attn.out_proj")]
            own += [*both("linear1"), *both("linear2")]
            own += [f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")]
            names += [f"layers.{n}.{name}" for name in own]
        names += [f"norm.{kind}" for kind in ("weight", "bias") if self.norm == "pre"]
        return (*names, *["head.weight"] * (not self.tied))

    def multiply_adds(self, shape: Shape) -> int:
        """Of the plain forward pass over all positions; one that shares prefixes needs fewer."""
        positions, width = shape.inputs, self.width
        linear = (4 * width + 2 * self.feedforward) * width  # projections, feed-forward net
        attention = 2 * positions * width  # scores, and sums of values
        return self.depth * positions * (linear + attention) + shape.outputs * width

    def least_parameters(self) -> int:
        return self.depth * (4 * self.width + 2 * self.feedforward) * self.width

    def group(self, parameter: str, shape: Shape) -> str:
        match parameter.partition(".")[0]:
            case "embedding" | "positions":
                return "embedding"
            case "head":
                return "output"
            case "layers" | "norm":
                return "hidden"
        raise ValueError(f"unknown parameter {parameter!r}")

    def shape_of(self, tensors: Mapping[str, Tensor]) -> Shape:
        rows = tensors["embedding.weight"].shape[0]
        vocabulary = rows - (self.context if self.positions == "learned-rows" else 0)
        outputs = vocabulary if self.tied else tensors["head.weight"].shape[0]
        return Shape(inputs=self.context, outputs=outputs, vocabulary=vocabulary)
