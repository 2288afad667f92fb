"""How periodic the neurons are: inverse participation ratios and phases of their spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from grokfast.analyses.neurons import Floats, Ints, Neurons
from grokfast.errors import UsageError
from grokfast.results import Results
from grokfast.tasks.modular import Modular, discrete_log_order

#: Of the histograms in [P24] Figs 2 and 4.
BINS = 40


def ipr(x: ArrayLike) -> Floats:
    """Inverse participation ratio (r = 2) of real vectors along the last axis.

    With F = |rfft(x)|, the constant component included: sum F^4 / (sum F^2)^2. A pure cosine
    scores 1; the least is 1 / (p // 2 + 1), the score of one hot entry (1/49 at p = 97). This is
    the convention of the authors' code and figures; the range [1/p, 1] of [P24] Eq. 3 fits the
    full Fourier transform, in which a cosine scores 1/2.

    Args:
        x: ``[..., p]``.

    Returns:
        float64 ``[...]``; NaN for a vector of zeros, which has no spectrum.
    """
    power = np.abs(np.fft.rfft(np.asarray(x, np.float64))) ** 2
    largest = power.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        power = power / largest  # weights that have decayed to 1e-80 have a spectrum, too
        return (power**2).sum(-1) / power.sum(-1) ** 2


def vector_ipr(net: Neurons, *, multiplicative: bool = False) -> Floats:
    """IPR of the vectors of each neuron, ``[3, N]``: of U[k], of V[k] and of W[:, k].

    Args:
        multiplicative: in the order of discrete logarithms (see :func:`discrete_log_order`), as
            multiplication is learned: in the order of the symbols its IPR stays at that of noise.

    Raises:
        UsageError: discrete logarithms of a p that is no prime.
    """
    vectors = np.stack((net.u, net.v, net.w.T))
    return ipr(vectors[..., discrete_log_order(net.p)] if multiplicative else vectors)


def neuron_ipr(net: Neurons, *, multiplicative: bool = False) -> Floats:
    """IPR_k of each neuron, ``[N]``: the mean of its three vectors, as the authors' code has it.
    Arguments and errors as :func:`vector_ipr`."""
    return vector_ipr(net, multiplicative=multiplicative).mean(axis=0)


def is_multiplicative(results: Results, cell: int) -> bool:
    """Whether the task of the cell at a position of a results file is multiplication, however it
    is written."""
    task = results.grid.cells[int(results["run"][cell])].task
    return isinstance(task, Modular) and task.is_multiplication


def network_ipr(results: Results) -> Floats:
    """Mean IPR_k of each cell of a results file, ``[run]``: over the neurons that have one, NaN
    where all have died; of multiplication in the order of discrete logarithms.

    Raises:
        UsageError: a cell without weights, or of another kind of net; else as
            :func:`vector_ipr`.
    """
    means = []
    for cell in range(len(results)):
        net = Neurons.of_cell(results, cell)
        values = neuron_ipr(net, multiplicative=is_multiplicative(results, cell))
        alive = values[np.isfinite(values)]
        means.append(alive.mean() if len(alive) else np.nan)
    return np.array(means)


def histogram(values: ArrayLike, bins: int = BINS) -> tuple[Ints, Floats]:
    """Neurons per bin of IPR, and the ``bins + 1`` edges on [0, 1]; NaN is left out."""
    known = np.asarray(values, np.float64)
    # Rounding lifts the IPR of a pure cosine above 1 by a few 1e-16.
    known = np.minimum(known[np.isfinite(known)], 1.0)
    counts, edges = np.histogram(known, bins, (0.0, 1.0))
    return counts.astype(np.int64), edges


def phase_sums(net: Neurons, *, multiplicative: bool = False) -> tuple[Ints, Floats]:
    """Frequency and a_k + b_k - c_k of each neuron, ``[N]`` ([P23] Fig 3).

    Near its frequency f a neuron is U[k, m] = cos(2 pi f m / p + a), V[k, n] = cos(2 pi f n / p +
    b), W[q, k] = cos(2 pi f q / p + c). f is the one with the largest power in the three vectors
    together, each normalised, the constant left aside. The phases of the analytic solution add up
    to 0, those of an untrained net are uniform.

    Returns:
        int64 frequencies in 1 .. p // 2, and phases in (-pi, pi], NaN where a vector is constant.

    Raises:
        UsageError: p < 2, which has no frequency; else as :func:`vector_ipr`.
    """
    vectors = np.stack((net.u, net.v, net.w.T))  # [3, N, p]
    if multiplicative:
        vectors = vectors[..., discrete_log_order(net.p)]
    if vectors.shape[-1] < 2:
        raise UsageError(f"p is {net.p}; phases need a period of 2 or more")
    spectra = np.fft.rfft(vectors)  # [3, N, frequency]
    power = np.abs(spectra) ** 2
    waves = power[..., 1:].sum(axis=-1, keepdims=True)
    # What a constant vector has beside its mean is rounding.
    wavy = waves > np.finfo(float).eps * power[..., :1]
    shares = np.divide(power[..., 1:], waves, out=np.zeros_like(power[..., 1:]), where=wavy)
    frequency = shares.sum(axis=0).argmax(axis=-1) + 1  # [N]
    a, b, c = np.angle(np.take_along_axis(spectra, frequency[None, :, None], axis=-1)[..., 0])
    phase = np.angle(np.exp(1j * (a + b - c)))
    return frequency, np.where(wavy[..., 0].all(axis=0), phase, np.nan)
