"""High-dimensional points laid out in the plane, with scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.analyses.neurons import Floats
from grokfast.errors import EnvironmentProblem, UsageError

#: Neighbours that a point has in effect (van der Maaten and Hinton 2008, Eq. 4): scikit-learn's.
PERPLEXITY = 30.0


def tsne(points: ArrayLike, seed: int = 0, *, perplexity: float = PERPLEXITY) -> Floats:
    """t-distributed stochastic neighbour embedding (van der Maaten and Hinton 2008) in the plane,
    by scikit-learn with its defaults: from the principal components, Euclidean distances.

    On one thread, so that equal arguments give equal bits, whatever the number of cores. Points
    that all coincide are all laid out at the origin.

    Args:
        points: ``[N, d]``.
        seed: of scikit-learn's random numbers.
        perplexity: less than N.

    Returns:
        float64 ``[N, 2]``. Distances within clusters mean something, axes and the distances
        between clusters do not.

    Raises:
        UsageError: points that are not finite, too few for the perplexity, or a seed that is
            negative or has more than 32 bits.
        EnvironmentProblem: scikit-learn is missing.
    """
    x = _checked(points, perplexity)
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}; give 0 or more, less than 2**32")
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise EnvironmentProblem(
            f"t-SNE needs scikit-learn ({error})", hint="pip install 'grokfast[analysis]'"
        ) from error
    x = x - x.mean(axis=0)
    if not x.any():
        return np.zeros((len(x), 2))
    # float32 is what it computes in; a common factor changes nothing but what underflows there.
    x = (x / np.abs(x).max()).astype(np.float32)
    with threadpool_limits(1):
        return TSNE(random_state=seed, perplexity=perplexity).fit_transform(x).astype(np.float64)


def _checked(points: ArrayLike, perplexity: float) -> NDArray[np.float64]:
    x = np.asarray(points, np.float64)
    if x.ndim != 2 or not x.size:
        raise UsageError(f"points have shape {x.shape}; give [N, d]")
    if not np.isfinite(x).all():
        raise UsageError("points are not finite, so they have no layout")
    if not 0 < perplexity < len(x):
        raise UsageError(
            f"perplexity is {perplexity:g} for {len(x)} points; give more than 0 and less than "
            "their number"
        )
    return x
