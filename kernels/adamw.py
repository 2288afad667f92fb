"""AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW computes it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tile import load_masked


def bias_corrections(first: int, last: int, beta1: float, beta2: float) -> Tensor:
    """1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) for updates t = first..last, float64 [T, 2].

    Python's own pow, one t at a time: a vectorised one may round by position, and then the bits
    of a run would depend on where its chunks begin.
    """
    rows = [(1.0 / (1.0 - beta1**t), (1.0 - beta2**t) ** -0.5) for t in range(first, last + 1)]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)


@triton.jit
def coefficients(cells, corrections, g, cell, num_cells, dtype: tl.constexpr):
    """Step size, decay factor and 1 / sqrt(1 - beta2^t) of tensor g of one cell, this step.

    Formed in float64 and rounded once, as torch does with Python floats.
    """
    rate = tl.load(cells.lr + g * num_cells + cell)
    decay = 1.0 - rate * tl.load(cells.weight_decay + g * num_cells + cell)
    rate = rate * tl.load(corrections)
    return rate.to(dtype), decay.to(dtype), tl.load(corrections + 1).to(dtype)


@triton.jit
def adamw(state, offset, mask, grad, step, SPEC: tl.constexpr):
    """One update of the elements at `offset`; `step` is what coefficients() returned.

    In float32 the root and the quotient are the GPU's own, right to 2 units of the last place: a
    relative error of 2e-7 of an update that is some thousandth of p, and p itself rounds by 6e-8.
    Their correctly rounded forms take half of the update's instructions.
    """
    rate, decay, root = step
    p = load_masked(state.p + offset, mask)
    m = load_masked(state.m + offset, mask)
    v = load_masked(state.v + offset, mask)
    m += (1.0 - SPEC.beta1) * (grad - m)
    v = SPEC.beta2 * v + (1.0 - SPEC.beta2) * grad * grad
    p = p * decay - rate * (m / (tl.sqrt(v) * root + SPEC.eps))
    tl.store(state.p + offset, p, mask=mask)
    tl.store(state.m + offset, m, mask=mask)
    tl.store(state.v + offset, v, mask=mask)
