"""Kernel density estimates, with SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from grokfast.analyses.neurons import Floats
from grokfast.errors import EnvironmentProblem, UsageError

#: Places at which a density is evaluated, and bandwidths that it reaches beyond the values.
POINTS, BEYOND = 512, 3.0


def kernel_density(values: ArrayLike, points: int = POINTS) -> tuple[Floats, Floats]:
    """Density of some numbers: a Gaussian kernel with Scott's rule, the bandwidth n^(-1/5) standard
    deviations, as ``scipy.stats.gaussian_kde`` and seaborn have it.

    Args:
        values: n numbers, of any shape.
        points: places, evenly spaced to three bandwidths beyond the smallest and the largest.

    Returns:
        float64 places and densities, both ``[points]``; of values that are all equal, that value
        and inf, both ``[1]``.

    Raises:
        UsageError: fewer than two values, or one that is not finite.
        EnvironmentProblem: SciPy is missing.
    """
    x = np.asarray(values, np.float64).ravel()
    if len(x) < 2 or not np.isfinite(x).all():
        raise UsageError(f"{len(x)} values; a density needs two or more, all finite")
    try:
        from scipy.stats import gaussian_kde
    except ImportError as error:
        raise EnvironmentProblem(
            f"a kernel density needs SciPy ({error})", hint="pip install 'grokfast[analysis]'"
        ) from error
    low, high = float(x.min()), float(x.max())
    if low == high:
        return np.array([low]), np.array([np.inf])
    # In units of the range: the square of a deviation of 1e-200 is 0.
    scaled = (x - low) / (high - low)
    estimate = gaussian_kde(scaled)
    margin = BEYOND * estimate.factor * scaled.std(ddof=1)
    places = np.linspace(-margin, 1 + margin, points)
    return low + places * (high - low), estimate(places) / (high - low)
