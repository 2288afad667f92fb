"""Layouts in the plane."""

import sys

import numpy as np
import pytest

from grokfast.analyses import tsne
from grokfast.errors import EnvironmentProblem, UsageError

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def clusters():
    """Four clusters of 20 points in 50 dimensions, and the cluster of each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (4, 50))
    return np.repeat(centres, 20, axis=0) + rng.normal(0, 0.3, (80, 50)), np.repeat(
        np.arange(4), 20
    )


def test_clusters_are_apart_and_the_same_again(clusters):
    points, label = clusters
    flat = tsne(points, 0, perplexity=10)
    assert flat.shape == (80, 2)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    same = label[:, None] == label[None]
    assert distance[same].max() < distance[~same].min()
    np.testing.assert_array_equal(tsne(points, 0, perplexity=10), flat)


def test_a_common_factor_and_a_shift_change_nothing(clusters):
    points, _ = clusters
    flat = tsne(points[::2], 1, perplexity=5)
    # Powers of two: no digit is lost.
    np.testing.assert_array_equal(tsne(points[::2] * 2.0**-100, 1, perplexity=5), flat)


def test_points_that_coincide():
    np.testing.assert_array_equal(tsne(np.full((9, 4), 0.5), 0, perplexity=5), np.zeros((9, 2)))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (np.zeros((4, 0)), {}, r"points have shape \(4, 0\)"),
        (np.zeros(4), {}, r"points have shape \(4,\)"),
        (np.full((40, 2), np.nan), {}, "not finite"),
        (np.zeros((30, 2)), {}, "perplexity is 30 for 30 points"),
        (np.zeros((30, 2)), {"perplexity": 0.0}, "perplexity is 0 "),
        (np.zeros((40, 2)), {"seed": -1}, "seed is -1"),
    ],
)
def test_what_has_no_layout(points, options, message):
    with pytest.raises(UsageError, match=message):
        tsne(points, **options)


def test_without_scikit_learn(clusters, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'grokfast\[analysis\]'"):
        tsne(clusters[0])
