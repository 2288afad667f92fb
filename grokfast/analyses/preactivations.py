"""Maps over all pairs, and their Fourier transforms ([P23] Fig 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from grokfast.analyses.neurons import Floats, Neurons, outputs
from grokfast.errors import UsageError


def preactivation_map(net: Neurons, neuron: int) -> Floats:
    """h(m, n) = U[k, m] + V[k, n] of one hidden neuron, ``[p, p]``.

    Raises:
        UsageError: no such neuron.
    """
    if not 0 <= neuron < net.width:
        raise UsageError(f"no neuron {neuron}; there are {net.width}, counted from 0")
    return net.u[neuron][:, None] + net.v[neuron][None, :]


def output_map(net: Neurons, output: int) -> Floats:
    """The output of one class on all pairs (m, n), ``[p, p]``.

    Raises:
        UsageError: no such class.
    """
    if not 0 <= output < net.p:
        raise UsageError(f"no output {output}; there are {net.p}, counted from 0")
    return outputs(net)[:, output].reshape(net.p, net.p)


def fourier_map(values: ArrayLike) -> Floats:
    """Magnitude of the two-dimensional Fourier transform of a map ``[p, p]``, its mean left out,
    with frequency 0 in the middle, as a share of the largest (all 0 for a constant map)."""
    values = np.asarray(values, np.float64)
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(values - values.mean())))
    return magnitude / (magnitude.max() or 1.0)
