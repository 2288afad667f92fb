"""M transformers in stacked tensors: :class:`grokfast.models.decoder.Decoder` with less work.

Under the causal mask a position depends on the tokens up to it alone, so that, exactly,

- in the first layer, the queries, keys and values of a position are computed once for each token
  that it may show;
- in the further ones, positions up to which only one token varies (``x o`` of ``x o y =``) are
  computed once for each of its values: *shared prefixes*;
- in the last layer only the last position asks and goes through the feed-forward net.

Dropout, in training, acts on every row: it leaves the last saving alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from grokfast.models.decoder import activate, sinusoidal
from grokfast.models.stacked import Noise, Stacked, Tensors, pick
from grokfast.models.transformer import Transformer
from grokfast.noise import dropout_mask

_EPS = 1e-5  # of torch's LayerNorm by default

#: What the rows of a position are: the samples; one row for all; else (from 0) the values of the
#: token at that position.
_SAMPLES, _SAME = -1, -2


@dataclass(frozen=True)
class StackedDecoder(Stacked):
    """The transformers of a bucket.

    Attributes:
        model: the fields that they share.
        vocabulary: P.
        outputs: O.
        constant: of each position the token that all samples show there, or None: [K].
    """

    model: Transformer
    vocabulary: int
    outputs: int
    constant: tuple[int | None, ...]

    large = True

    @property
    def positions(self) -> int:  # type: ignore[override]
        return len(self.constant)

    @property
    def same_in_evaluation(self) -> bool:  # type: ignore[override]
        return not self.model.dropout

    def on(self, *samples: Tensor) -> StackedDecoder:
        first = samples[0][0, 0]
        same = torch.stack([(x == first).flatten(0, 1).all(0) for x in samples]).all(0)
        tokens = zip(first.tolist(), same.tolist(), strict=True)
        return replace(self, constant=tuple(token if one else None for token, one in tokens))

    def rows(self, t: int) -> int:
        """What the rows of position ``t`` are once it has attended to those before it, where
        nothing is drawn by row."""
        varying = [j for j, token in enumerate(self.constant[: t + 1]) if token is None]
        if len(varying) > 1:
            return _SAMPLES
        return varying[0] if varying else _SAME

    def multiply_adds(self, samples: int, training: bool) -> int:
        width, drawn = self.model.width, training and self.model.dropout > 0
        known = {_SAMPLES: samples, _SAME: 1}
        sizes = [
            samples if drawn else self.vocabulary if token is None else 1 for token in self.constant
        ]
        positions = range(self.positions)
        total = samples * width * self.outputs
        for layer in range(self.model.depth):
            asking = positions[-1:] if layer == self.model.depth - 1 else positions
            own = [
                samples if drawn else known.get(self.rows(t), self.vocabulary) for t in positions
            ]
            total += width**2 * (2 * sum(sizes) + sum(sizes[t] for t in asking))
            total += sum(own[t] * 2 * (t + 1) * width for t in asking)
            total += sum(own[t] for t in asking) * width * (width + 2 * self.model.feedforward)
            sizes = own
        return total

    def forward(
        self, params: Tensors, buffers: Tensors, x: Tensor, noise: Noise = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        last = _Pass(self, params, x, noise if self.model.dropout else None).run()
        if self.model.norm == "pre":
            last = _layer_norm(last, params, "norm")
        if self.model.tied:
            head = params["embedding.weight"][:, : self.vocabulary]
        else:
            head = params["head.weight"]
        return torch.bmm(last, head.mT), {}


@dataclass
class _Block:
    """A position's vectors ``[M, R, E]`` and what its R rows are."""

    x: Tensor
    rows: int


class _Pass:
    """One forward pass over tokens ``[U, B, K]``."""

    def __init__(self, net: StackedDecoder, params: Tensors, tokens: Tensor, noise: Noise) -> None:
        self.net, self.model = net, net.model
        self.params, self.tokens, self.noise = params, tokens, noise

    def run(self) -> Tensor:
        """The last position after all layers: ``[M, B, width]``."""
        stream = self._embedded()
        for layer in range(self.model.depth):
            stream = self._layer(stream, layer)
        return self._as(stream[-1], _SAMPLES).expand(-1, self.tokens.shape[1], -1)

    def _embedded(self) -> list[_Block]:
        """Token vectors and those of positions, before the first layer."""
        places = self._places()
        table = self.params["embedding.weight"][:, : self.net.vocabulary]
        stream = []
        for t, token in enumerate(self.net.constant):
            if self.noise is not None:
                block = _Block(pick(table, self.tokens[:, :, t]), _SAMPLES)
            elif token is None:
                block = _Block(table, t)
            else:
                block = _Block(table[:, token : token + 1], _SAME)
            if places is not None:
                block.x = block.x + places[:, t : t + 1]
            stream.append(block)
        return stream

    def _places(self) -> Tensor | None:
        """Vectors of the positions ``[M or 1, K, width]``."""
        table = self.params["embedding.weight"]
        match self.model.positions:
            case "learned-rows":
                return table[:, self.net.vocabulary :]
            case "learned":
                return self.params["positions.weight"]
            case "sinusoidal":
                return sinusoidal(self.net.positions, self.model.width).to(table)[None]
            case "none":
                return None
        raise ValueError(f"unknown positions {self.model.positions!r}")

    def _as(self, block: _Block, rows: int) -> Tensor:
        """The vectors in other rows: ``[M, R, E]``, or ``[M, 1, E]`` to be broadcast."""
        if block.rows in (rows, _SAME):
            return block.x
        assert rows == _SAMPLES
        return pick(block.x, self.tokens[:, :, block.rows])

    def _layer(self, stream: list[_Block], layer: int) -> list[_Block]:
        """The stream after one layer; after the last one its last position alone."""
        params, model, name = self.params, self.model, f"layers.{layer}."
        length = self.net.positions
        asking = [length - 1] if layer == model.depth - 1 else range(length)
        blocks = self._attention(stream, name, asking)
        sizes = [block.x.shape[1] for block in blocks]
        x = torch.cat(
            [
                self._as(stream[t], block.rows).expand_as(block.x)
                for t, block in zip(asking, blocks, strict=True)
            ],
            1,
        )
        added = _linear(
            torch.cat([block.x for block in blocks], 1), params, f"{name}self_attn.out_proj"
        )
        x = x + self._dropped(added, 2 * layer)
        if model.norm == "post":
            x = _layer_norm(x, params, f"{name}norm1")
        inner = _layer_norm(x, params, f"{name}norm2") if model.norm == "pre" else x
        hidden = activate(_linear(inner, params, f"{name}linear1"), model.activation)
        x = x + self._dropped(_linear(hidden, params, f"{name}linear2"), 2 * layer + 1)
        if model.norm == "post":
            x = _layer_norm(x, params, f"{name}norm2")
        return [
            _Block(part, block.rows) for part, block in zip(x.split(sizes, 1), blocks, strict=True)
        ]

    def _attention(self, stream: list[_Block], name: str, asking: Sequence[int]) -> list[_Block]:
        """What the heads of the asking positions bring together, before their projection."""
        asked, keyed = self._projected(stream, name, asking)
        d = self.model.width
        brought: dict[tuple[int, int], tuple[Tensor, ...]] = {}

        def key_and_value(j: int, rows: int) -> tuple[Tensor, ...]:
            if (j, rows) not in brought:
                brought[j, rows] = self._as(_Block(keyed[j], stream[j].rows), rows).split(d, 2)
            return brought[j, rows]

        blocks = []
        for t, query in zip(asking, asked, strict=True):
            rows = self.net.rows(t) if self.noise is None else _SAMPLES
            keys, values = zip(*(key_and_value(j, rows) for j in range(t + 1)), strict=True)
            query = self._as(_Block(query, stream[t].rows), rows)
            blocks.append(_Block(_attend(query, keys, values, self.model.heads), rows))
        return blocks

    def _projected(
        self, stream: list[_Block], name: str, asking: Sequence[int]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Queries of the asking positions ``[M, R, width]``; of all, keys and values side by side
        ``[M, R, 2 width]``."""
        params, d = self.params, self.model.width
        sizes = [block.x.shape[1] for block in stream]
        x = torch.cat([block.x for block in stream], 1)
        if self.model.norm == "pre":
            x = _layer_norm(x, params, f"{name}norm1")
        weight = params[f"{name}self_attn.in_proj_weight"]
        bias = params.get(f"{name}self_attn.in_proj_bias")
        if len(asking) == len(stream):
            query, keyed = _affine(x, weight, bias).split([d, 2 * d], 2)
            return query.split(sizes, 1), keyed.split(sizes, 1)
        *_, last = x.split(sizes, 1)
        weights = weight.split([d, 2 * d], 1)
        biases = (None, None) if bias is None else bias.split([d, 2 * d], 1)
        return [_affine(last, weights[0], biases[0])], _affine(x, weights[1], biases[1]).split(
            sizes, 1
        )

    def _dropped(self, x: Tensor, site: int) -> Tensor:
        """``x`` ``[M, n B, width]`` of the last n positions, after dropout."""
        if self.noise is None:
            return x
        b = self.tokens.shape[1]
        shape = b, self.net.positions, self.model.width
        mask = dropout_mask(self.model.dropout, *self.noise, site, shape, x.dtype)
        return x * mask[:, :, -(x.shape[1] // b) :].transpose(1, 2).reshape(x.shape)


def _attend(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], heads: int) -> Tensor:
    """Attention of one position to a few, written out so that it fuses.

    Args:
        query: ``[M, R, width]``.
        keys, values: of each position that it sees ``[M, R or 1, width]``.
    """
    if len(keys) == 1:  # the only one has all the weight
        return values[0]
    by_head = (heads, query.shape[2] // heads)
    query = query.unflatten(2, by_head) * by_head[1] ** -0.5
    scores = [(query * key.unflatten(2, by_head)).sum(3, keepdim=True) for key in keys]
    highest = reduce(torch.maximum, scores).detach()
    parts = [(score - highest).exp() for score in scores]  # [M, R, heads, 1]
    total = sum(
        part * value.unflatten(2, by_head) for part, value in zip(parts, values, strict=True)
    )
    return (total / sum(parts)).flatten(2)


def _linear(x: Tensor, params: Tensors, name: str) -> Tensor:
    return _affine(x, params[f"{name}.weight"], params.get(f"{name}.bias"))


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[M, R, I]`` and ``[M, O, I]`` to ``[M, R, O]``."""
    product = torch.bmm(x, weight.mT)
    return product if bias is None else product + bias[:, None]


def _layer_norm(x: Tensor, params: Tensors, name: str) -> Tensor:
    variance, mean = torch.var_mean(x, 2, correction=0, keepdim=True)
    normal = (x - mean) * torch.rsqrt(variance + _EPS)
    return normal * params[f"{name}.weight"][:, None] + params[f"{name}.bias"][:, None]
