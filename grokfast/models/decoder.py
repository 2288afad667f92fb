"""A decoder-only transformer in torch, on sequences of a fixed length, read at the last position.

The module is the source of initial values, what ``reference`` trains, and what a user gets back.
Names and order of its parameters, and its random draws, are those of ``nn.Embedding`` followed by
``nn.TransformerEncoder``, whose code it is where that has a name for what is asked.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from grokfast.models.noisy import Noisy

if TYPE_CHECKING:
    from grokfast.models.base import Shape
    from grokfast.models.transformer import Transformer


class Block(nn.Module):
    """Self-attention and a feed-forward net, each around a residual connection.

    With ``norm="post"`` and no dropout it is ``nn.TransformerEncoderLayer``, with ``"pre"`` the
    same with ``norm_first=True``.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.kind, self.activation = model.norm, model.activation
        width, hidden, bias = model.width, model.feedforward, model.bias
        self.self_attn = nn.MultiheadAttention(width, model.heads, bias=bias, batch_first=True)
        self.linear1 = nn.Linear(width, hidden, bias=bias)
        self.linear2 = nn.Linear(hidden, width, bias=bias)
        if model.norm != "none":
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        """Causal self-attention: ``[B, K, width]`` to the same."""
        length = x.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        return self.self_attn(x, x, x, attn_mask=later, need_weights=False)[0]

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(activate(self.linear1(x), self.activation))

    def forward(self, x: Tensor, net: Noisy, rate: float, site: int) -> Tensor:
        """``[B, K, width]`` to the same; ``net`` drops elements at ``site`` and ``site + 1``."""

        def attended(x: Tensor) -> Tensor:
            return net.drop(self.attend(x), rate, site)

        def fed(x: Tensor) -> Tensor:
            return net.drop(self.feed_forward(x), rate, site + 1)

        match self.kind:
            case "post":
                x = self.norm1(x + attended(x))
                return self.norm2(x + fed(x))
            case "pre":
                x = x + attended(self.norm1(x))
                return x + fed(self.norm2(x))
            case "none":
                x = x + attended(x)
                return x + fed(x)
        raise ValueError(f"unknown norm {self.kind!r}")


class Decoder(Noisy):
    """The network: embedding, blocks, logits of the token after the last.

    Parameters: ``embedding.weight`` ``[P (+ K), width]``, with ``positions="learned-rows"`` the
    positions as its last K rows; ``positions.weight`` ``[K, width]`` where these are learned apart;
    ``layers.i...`` as ``nn.TransformerEncoder`` names them; ``norm`` after the last block, with
    ``norm="pre"``; ``head.weight`` ``[O, width]`` where it is not tied to the embedding.
    """

    def __init__(self, model: Transformer, shape: Shape) -> None:
        super().__init__()
        self.model, self.vocabulary, self.length = model, shape.vocabulary, shape.inputs
        width = model.width
        rows = self.length if model.positions == "learned-rows" else 0
        self.embedding = nn.Embedding(self.vocabulary + rows, width)
        if model.positions == "learned":
            self.positions = nn.Embedding(self.length, width)
        first = Block(model)
        self.layers = nn.ModuleList([first])
        for _ in range(model.depth - 1):
            # nn.TransformerEncoder copies the layer that it is given, initial values included.
            self.layers.append(copy.deepcopy(first) if model.same_layers else Block(model))
        if model.norm == "pre":
            self.norm = nn.LayerNorm(width)
        if not model.tied:
            self.head = nn.Linear(width, shape.outputs, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, O]`` of tokens ``[B, K]``."""
        model = self.model
        x = self.embedding(tokens)  # [B, K, width]
        match model.positions:
            case "learned-rows":
                x = x + self.embedding.weight[self.vocabulary :]
            case "learned":
                x = x + self.positions.weight
            case "sinusoidal":
                x = x + sinusoidal(self.length, model.width).to(x)
            case "none":
                pass
            case other:
                raise ValueError(f"unknown positions {other!r}")
        for n, block in enumerate(self.layers):
            x = block(x, self, model.dropout, 2 * n)
        if model.norm == "pre":
            x = self.norm(x)
        last = x[:, -1]  # [B, width]
        return last @ self.embedding.weight[: self.vocabulary].T if model.tied else self.head(last)


def activate(x: Tensor, activation: str) -> Tensor:
    """The named activation, elementwise; ``gelu`` is the exact one, with erf."""
    match activation:
        case "relu":
            return torch.relu(x)
        case "gelu":
            return functional.gelu(x)
    raise ValueError(f"unknown activation {activation!r}")


def sinusoidal(length: int, width: int) -> Tensor:
    """Fixed positions, float64 ``[length, width]``: sines in even components, cosines in odd ones
    (Vaswani et al. 2017, sec. 3.5)."""
    components = torch.arange(width, dtype=torch.float64)
    rate = 10000.0 ** (-(components - components % 2) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.where(components % 2 == 0, angle.sin(), angle.cos())


@torch.no_grad()
def initialize(net: Decoder, model: Transformer) -> None:
    """Draws the initial weights that ``model.init`` asks for, in the order of the parameters, and
    multiplies all but those of the norms by ``model.init_scale``."""
    learned = [(k, p) for k, p in net.named_parameters() if "norm" not in k]
    match model.init:
        case "torch":
            pass
        case "normal":
            for _, p in learned:
                p.normal_(0.0, model.width**-0.5) if p.ndim == 2 else p.zero_()
            for block in net.layers if model.same_layers else ():
                block.load_state_dict(net.layers[0].state_dict())
        case other:
            raise ValueError(f"unknown init {other!r}")
    for _, p in learned:
        p.mul_(model.init_scale)
