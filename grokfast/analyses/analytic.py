"""Weights that solve modular arithmetic, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grokfast.analyses.neurons import Floats, Ints, Neurons, evaluate
from grokfast.errors import UsageError
from grokfast.tasks.modular import discrete_log_order
from grokfast.tasks.modular import evaluate as value_of


def answers(operation: str, p: int) -> Ints:
    """The right answer of every pair, int64 ``[p, p]``.

    Args:
        operation: as the task ``modular`` has it.

    Raises:
        UsageError: no such operation, or p below 1.
    """
    if p < 1:
        raise UsageError(f"p is {p}; give 1 or more")
    symbols = np.arange(p)
    try:
        table: Ints = value_of(operation, symbols[:, None], symbols[None, :], p)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return table


def amplitude(width: int) -> float:
    """(2 / N)^(1/3), of the cosines in U, V and W: the right output is then 1.

    [P24] Eq. 2 and [POLY] Eq. 6 print the exponent -1/3, a sign error: the prefactor 2/N of [P24]
    App. D, [POLY]'s own (2^S / (N S!))^(1/(S+1)) at S = 2 and the authors' weights have +1/3.
    """
    return float((2 / width) ** (1 / 3))


def solution(p: int, width: int, *, operation: str = "addition", seed: int = 0) -> Neurons:
    """The analytic solution of [P23] Eqs 6, 7, 12 without prefactor ([P24] Eq. 2).

    U[k, m] = A cos(2 pi k m / p + a_k), V[k, n] = A cos(2 pi k n / p + b_k), W[q, k] = A cos(2 pi k
    q / p + a_k + b_k): frequencies cycle modulo p, phases are uniform in (-pi, pi]. Multiplication
    ([POLY] Eq. 6) has the same cosines over discrete logarithms, with the period p - 1 and one
    neuron less; the last neuron is 1 on the symbol 0 of U, V and W, and all others are 0 there.

    Args:
        p: number of symbols; a prime for multiplication.
        width: neurons N; accuracy needs about p of them, the squared error falls as 4 / N.
        seed: of the phases.

    Raises:
        UsageError: p or width below 1, an operation without such a solution, or multiplication
            with a p that is no prime.
    """
    for name, value in (("p", p), ("width", width)):
        if value < 1:
            raise UsageError(f"{name} is {value}; give 1 or more")
    match operation:
        case "addition":
            u, v, w = _cosines(p, width, seed)
        case "multiplication":
            vectors = np.zeros((3, width, p))
            vectors[:, -1, 0] = 1.0
            if width > 1:
                vectors[:, :-1, discrete_log_order(p)] = _cosines(p - 1, width - 1, seed)
            u, v, w = vectors
        case _:
            raise UsageError(
                f"no analytic solution of {operation!r}; there are addition, multiplication"
            )
    return Neurons(u, v, w.T.copy())


def _cosines(period: int, width: int, seed: int) -> Floats:
    """U, V and W transposed, ``[3, N, period]``."""
    a, b = np.random.default_rng(seed).uniform(-np.pi, np.pi, (2, width))
    turns = np.outer(np.arange(width) % period, np.arange(period)) % period / period  # [N, period]
    phases = np.stack((a, b, a + b))[:, :, None]
    return amplitude(width) * np.cos(2 * np.pi * turns + phases)


def width_table(
    p: int, widths: Sequence[int], *, operation: str = "addition", seeds: int = 3
) -> tuple[Floats, Floats]:
    """Accuracy and mean squared error of analytic solutions on all pairs, both ``[widths, seeds]``
    ([P23] Fig 4b).

    Raises:
        UsageError: as :func:`solution`, or less than one seed.
    """
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; give 1 or more")
    table = answers(operation, p)
    scores = [
        [evaluate(solution(p, n, operation=operation, seed=seed), table) for seed in range(seeds)]
        for n in widths
    ]
    accuracy, loss = np.moveaxis(np.array(scores).reshape(-1, seeds, 2), -1, 0)
    return accuracy, loss
