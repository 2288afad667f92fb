"""Random numbers without a state: a function of (seed, step, site, element).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in torch's
integer arithmetic, so that every engine and device draws the same numbers, in any order: a run that
goes on, or trains other cells beside, needs nothing but the number of its step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Sites of the noise on all parameters; dropout layers count from 0.
UPDATE_NOISE, WEIGHT_NOISE = 2**20, 2**21

_LOW = 0xFFFFFFFF
#: Less 2^32: the product with a word then fits into 64 bits. One that overflows is undefined in
#: C++, and torch.compile's code does give other words.
_MULTIPLIERS = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Four random words of each counter.

    Args:
        counter: four tensors of 32-bit words in int64 that broadcast together.
        key: two of them.

    Returns:
        Four int64 tensors of the broadcast shape, values in 0 .. 2^32 - 1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for round in range(10):
        if round:
            k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((b >> 32) + c2) ^ c1 ^ k0,
            b & _LOW,
            ((a >> 32) + c0) ^ c3 ^ k1,
            a & _LOW,
        )
    return c0, c1, c2, c3


def random_words(seeds: Tensor, step: Tensor, site: int, count: int) -> Tensor:
    """``count`` random words for each of M models.

    Args:
        seeds: model seeds, int64 ``[M]``.
        step: number of the step, an int64 scalar.
        site: the place of the network that draws.

    Returns:
        int64 ``[M, count]``, values in 0 .. 2^32 - 1.
    """
    # Masked, because torch.compile (2.13) takes a multiple of arange for an index and wraps it.
    block = torch.arange(-(-count // 4), device=seeds.device) & _LOW
    zero = torch.zeros_like(block)
    step = step.to(seeds.device)
    key = seeds[:, None] & _LOW, zero + site
    words = philox((block, zero, zero + (step & _LOW), zero + (step >> 32)), key)
    words = torch.broadcast_tensors(*words)
    return torch.stack(words, 2).reshape(len(seeds), -1)[:, :count]


def dropout_mask(
    rate: float, seeds: Tensor, step: Tensor, site: int, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """0 with probability ``rate``, else 1 / (1 - rate): ``[M, *shape]``."""
    kept = random_words(seeds, step, site, math.prod(shape)) >= round(rate * 2**32)
    return kept.reshape(len(seeds), *shape).to(dtype) / (1 - rate)


def normal(
    seeds: Tensor, step: Tensor, site: int, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Standard normal numbers ``[M, *shape]``: two of every two words (Box and Muller 1958)."""
    count = math.prod(shape)
    words = random_words(seeds, step, site, count + count % 2).reshape(len(seeds), -1, 2)
    uniform = (words.to(dtype) + 0.5) / 2**32  # never 0
    radius = (-2 * uniform[..., 0].log()).sqrt()
    angle = 2 * math.pi * uniform[..., 1]
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], 2)
    return pairs.reshape(len(seeds), -1)[:, :count].reshape(len(seeds), *shape)


def normal_like(params: Sequence[Tensor], seeds: Tensor, step: Tensor, site: int) -> list[Tensor]:
    """Standard normal numbers for every element of the parameters ``[M, ...]`` of a network,
    counted from one tensor to the next: one draw, which compiles once."""
    sizes = [p[0].numel() for p in params]
    numbers = normal(seeds, step, site, (sum(sizes),), params[0].dtype)
    parts = numbers.split(sizes, dim=1)
    return [part.reshape(p.shape) for part, p in zip(parts, params, strict=True)]
