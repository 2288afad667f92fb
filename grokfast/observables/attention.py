"""What the last position of a transformer attends to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from grokfast.observables.base import Snapshot, observable

if TYPE_CHECKING:
    from torch import Tensor

    from grokfast.experiment import Experiment


def _heads(cell: Experiment) -> tuple[str, ...]:
    depth, heads = getattr(cell.model, "depth", 0), getattr(cell.model, "heads", 0)
    return tuple(f"layer {n}, head {h}" for n in range(depth) for h in range(heads))


def _blocks(cell: Experiment) -> tuple[str, ...]:
    return tuple(f"layer {n}" for n in range(getattr(cell.model, "depth", 0)))


@observable("attention_entropy", dims=("head",), label="entropy of attention", entries=_heads)
def attention_entropy(cells: Snapshot) -> Tensor:
    """Mean entropy ``[K, layers x heads]``, in nats, of what the last position attends to, over all
    inputs; at most the logarithm of the number of tokens."""
    return _over_inputs(cells, "attention_entropy", _entropy, training_alone=False)


@observable(
    "attention_entropy_train",
    dims=("head",),
    label="entropy of attention, training inputs",
    entries=_heads,
)
def attention_entropy_train(cells: Snapshot) -> Tensor:
    """:func:`attention_entropy` over the training inputs."""
    return _over_inputs(cells, "attention_entropy_train", _entropy, training_alone=True)


@observable(
    "head_similarity",
    dims=("block",),
    label="cosine similarity of attention heads",
    entries=_blocks,
)
def head_similarity(cells: Snapshot) -> Tensor:
    """Mean cosine similarity ``[K, layers]`` of what the last position attends to in two different
    heads of a layer, over all pairs of heads and all inputs."""
    return _over_inputs(cells, "head_similarity", _similarity, training_alone=False)


@observable(
    "head_similarity_train",
    dims=("block",),
    label="cosine similarity of attention heads, training inputs",
    entries=_blocks,
)
def head_similarity_train(cells: Snapshot) -> Tensor:
    """:func:`head_similarity` over the training inputs."""
    return _over_inputs(cells, "head_similarity_train", _similarity, training_alone=True)


def _over_inputs(
    cells: Snapshot, name: str, reduce: Callable[[Tensor], Tensor], *, training_alone: bool
) -> Tensor:
    """``reduce`` of the attention of the last position, ``[layers, B, heads, tokens]``, of each
    cell over its inputs."""
    import torch

    from grokfast.models.attention import attention

    found = []
    for k in range(len(cells.tasks)):
        samples = cells.samples(k)
        inputs = samples.x_train
        if not training_alone:
            inputs = torch.cat([inputs, samples.x_val])
        weights = attention(cells.module(k), inputs, name)  # [layers, B, heads, tokens, tokens]
        found.append(reduce(weights[..., -1, :].double()))
    return torch.stack(found)


def _entropy(last: Tensor) -> Tensor:
    """``[layers, B, heads, tokens]`` -> ``[layers * heads]``."""
    import torch

    return -torch.xlogy(last, last).sum(3).mean(1).flatten()


def _similarity(last: Tensor) -> Tensor:
    """``[layers, B, heads, tokens]`` -> ``[layers]``; NaN for a single head."""
    unit = last / last.norm(dim=3, keepdim=True)
    heads = last.shape[2]
    # All pairs, the heads with themselves among them, from the square of the sum.
    every = unit.sum(2).square().sum(2) - heads  # [layers, B]
    return every.mean(1) / (heads * (heads - 1)) if heads > 1 else every.mean(1) * float("nan")
