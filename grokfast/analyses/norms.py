"""Sizes of the weights, and what a BatchNorm makes of its neurons."""

from __future__ import annotations

import numpy as np

from grokfast.analyses.neurons import Floats, Neurons
from grokfast.analyses.spectrum import neuron_ipr
from grokfast.errors import UsageError


def frobenius(net: Neurons, *, squared: bool = False) -> dict[str, float]:
    """Frobenius norms of U, V and W, or their squares, of which the authors' scripts keep the
    sum."""
    squares = {name: float((m**2).sum()) for name, m in (("U", net.u), ("V", net.v), ("W", net.w))}
    return squares if squared else {name: float(np.sqrt(s)) for name, s in squares.items()}


def gamma_against_ipr(net: Neurons, *, multiplicative: bool = False) -> tuple[Floats, Floats]:
    """|gamma_k| of the normalisation and IPR_k, both ``[N]`` ([P24] Fig 5).

    Raises:
        UsageError: a net without a normalisation; else as
            :func:`grokfast.analyses.neuron_ipr`.
    """
    if net.norm is None:
        raise UsageError(
            "this net has no norm, so no gamma", hint="train with --set=model.norm=batch"
        )
    return np.abs(net.norm.gamma), neuron_ipr(net, multiplicative=multiplicative)
