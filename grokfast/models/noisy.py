"""Modules that draw random numbers in training: without a state, see :mod:`grokfast.noise`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokfast.noise import dropout_mask


class Noisy(nn.Module):
    """Base of a module with dropout: whoever trains it sets ``noise`` before every forward pass."""

    #: Model seed and number of the step (from 1) under way.
    noise: tuple[int, int] | None = None

    def drop(self, x: Tensor, rate: float, site: int) -> Tensor:
        """In training ``x`` ``[B, ...]`` with elements zeroed with probability ``rate`` and the
        rest divided by ``1 - rate``; the very ``x`` in evaluation.

        Args:
            site: number of this place among those of the network that draw.
        """
        if not self.training or not rate:
            return x
        if self.noise is None:
            raise RuntimeError("dropout in training needs `noise`: the seed and the step")
        seed, step = (torch.tensor(number, device=x.device) for number in self.noise)
        return x * dropout_mask(rate, seed[None], step, site, x.shape, x.dtype)[0]
