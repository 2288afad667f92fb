"""Kernel densities."""

import sys

import numpy as np
import pytest

from grokfast.analyses import kernel_density
from grokfast.errors import EnvironmentProblem, UsageError

pytest.importorskip("scipy")


def naive(values, places):
    """The mean of Gaussians around the values, with Scott's bandwidth."""
    width = len(values) ** -0.2 * np.std(values, ddof=1)
    z = (places[:, None] - values[None]) / width
    return np.exp(-(z**2) / 2).mean(axis=1) / (width * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-170])
def test_it_is_the_mean_of_gaussians_of_scotts_width(scale):
    values = np.random.default_rng(0).normal(0.3, 2, (15, 20)) * scale
    places, density = kernel_density(values, 101)
    unit = places / scale
    np.testing.assert_allclose(density * scale, naive(values.ravel() / scale, unit), rtol=1e-9)
    width = 300**-0.2 * (values / scale).std(ddof=1)
    assert unit[0] == pytest.approx((values / scale).min() - 3 * width)
    assert unit[-1] == pytest.approx((values / scale).max() + 3 * width)


def test_it_integrates_to_one():
    places, density = kernel_density(np.random.default_rng(1).exponential(size=400))
    assert np.trapezoid(density, places) == pytest.approx(1, abs=1e-3)


def test_equal_values_are_one_infinite_peak():
    assert [x.tolist() for x in kernel_density(np.full((3, 2), 0.5))] == [[0.5], [np.inf]]


@pytest.mark.parametrize("values", [[1.0], [], [1.0, np.nan], [1.0, np.inf]])
def test_what_has_no_density(values):
    with pytest.raises(UsageError, match="two or more, all finite"):
        kernel_density(values)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'grokfast\[analysis\]'"):
        kernel_density([1.0, 2.0])
