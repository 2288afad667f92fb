"""IPR by the convention of the authors' code; discrete logarithms; phases."""

import numpy as np
import pytest

from grokfast.analyses import (
    Neurons,
    discrete_log_order,
    histogram,
    ipr,
    network_ipr,
    neuron_ipr,
    phase_sums,
    primitive_root,
    solution,
    vector_ipr,
)
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.results import Results
from grokfast.tasks import Modular


@pytest.mark.parametrize("p", [5, 12, 97])
def test_a_cosine_scores_one_at_any_phase_and_scale(p):
    turns = 2 * np.pi * np.arange(p) / p
    for frequency in range(1, (p + 1) // 2):
        for phase in (0.0, 1.0):
            assert ipr(1e-30 * np.cos(frequency * turns + phase)) == pytest.approx(1, abs=1e-12)
    assert ipr(np.ones(p)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("p", [5, 12, 97])
def test_one_entry_scores_one_by_the_number_of_frequencies(p):
    bins = p // 2 + 1  # all have the same magnitude
    assert ipr(np.eye(p)) == pytest.approx(np.full(p, 1 / bins), rel=1e-12)


def test_noise_scores_as_in_the_specification():
    """At p = 97, [P24]'s convention: 0.0403, and near 2 / 49, that of 48 exponential powers."""
    scores = ipr(np.random.RandomState(0).normal(size=(2000, 97)))
    error = scores.std() / np.sqrt(len(scores))
    # Both sides are means of 2000 draws, the other one rounded to 4 decimals.
    assert abs(scores.mean() - 0.0403) < 5 * np.sqrt(2) * error + 5e-5
    assert 0.02 < scores.min() < scores.max() < 0.12


def test_ipr_is_the_authors_formula():
    x = np.random.RandomState(1).normal(size=(3, 4, 10))
    for vector, score in zip(x.reshape(-1, 10), ipr(x).reshape(-1), strict=True):
        spectrum = np.abs(np.fft.rfft(vector))
        normed = spectrum / np.sqrt((spectrum**2).sum())
        assert score == pytest.approx((normed**4).sum(), rel=1e-12)


def test_a_vector_of_zeros_has_none():
    assert np.isnan(ipr(np.zeros((2, 7)))).all()


def test_a_neuron_scores_the_mean_of_its_three_vectors(make_net):
    net = make_net(7, 5)
    k = 3
    vectors = [ipr(net.u[k]), ipr(net.v[k]), ipr(net.w[:, k])]
    assert vector_ipr(net)[:, k].tolist() == pytest.approx(vectors)
    assert neuron_ipr(net)[k] == pytest.approx(np.mean(vectors))


def test_histograms_count_every_neuron_once():
    counts, edges = histogram([0.0, 0.024, 0.026, 0.5, 1.0, 1 + 1e-15, np.nan])
    assert len(counts) == 40
    assert (edges[0], edges[-1]) == (0, 1)
    assert counts.sum() == 6
    assert (counts[0], counts[1], counts[20], counts[-1]) == (2, 1, 1, 2)


@pytest.mark.parametrize(
    ("p", "root"), [(2, 1), (3, 2), (5, 2), (7, 3), (23, 5), (41, 6), (97, 5), (191, 19)]
)
def test_smallest_primitive_roots(p, root):
    assert primitive_root(p) == root
    order = discrete_log_order(p)
    assert sorted(order.tolist()) == list(range(1, p))
    assert order[0] == 1
    assert (order[1:] == order[:-1] * root % p).all()


@pytest.mark.parametrize("p", [-3, 0, 1, 4, 9, 91, 100])
def test_only_primes_have_discrete_logarithms(p):
    with pytest.raises(UsageError, match=f"p is {p}; discrete logarithms need a prime"):
        discrete_log_order(p)


def test_multiplication_is_periodic_in_discrete_logarithms_only():
    net = solution(23, 100, operation="multiplication")
    in_order = neuron_ipr(net, multiplicative=True)
    assert in_order[:-1] == pytest.approx(np.ones(99), abs=1e-12)
    assert np.isnan(in_order[-1]), "the neuron of the symbol 0 is nothing but that"
    assert neuron_ipr(net)[:-1].mean() < 0.3


@pytest.mark.parametrize("operation", ["addition", "multiplication"])
def test_training_makes_neurons_periodic_in_the_order_of_the_operation(trained, operation):
    task = Modular(p=13, fraction=0.8, operation=operation)
    before, after = (Neurons.of(trained(task, 60, steps, 5.0)) for steps in (0, 100))
    learned = operation == "multiplication"
    # Found here: 0.26 for noise (near 2 / 8, for 7 powers), 0.75 after training.
    for net, multiplicative in ((before, False), (before, True), (after, not learned)):
        assert neuron_ipr(net, multiplicative=multiplicative).mean() < 0.4
    assert neuron_ipr(after, multiplicative=learned).mean() > 0.6


def test_phases_of_the_solution_add_up_to_zero():
    p = 13
    frequency, phase = phase_sums(solution(p, 3 * p))
    cycle = np.arange(3 * p) % p
    waves = cycle > 0
    np.testing.assert_array_equal(frequency[waves], np.minimum(cycle, p - cycle)[waves])
    np.testing.assert_allclose(phase[waves], 0, atol=1e-12)
    assert np.isnan(phase[~waves]).all(), "a constant has no phase"


def test_phases_of_noise_are_spread():
    u, v, w = np.random.default_rng(0).normal(size=(3, 2000, 13))
    _, phase = phase_sums(Neurons(u, v, w.T))
    # The mean of 2000 unit vectors of uniform directions: 5 standard errors.
    assert abs(np.exp(1j * phase).mean()) < 5 / np.sqrt(2000)


def test_phases_shift_with_the_symbols():
    p, k = 11, 2
    net = solution(p, p)
    shifted = Neurons(net.u, net.v, np.roll(net.w, 1, axis=0))
    _, phase = phase_sums(shifted)
    assert phase[k] == pytest.approx(2 * np.pi * k / p, abs=1e-12)


def test_phases_need_a_frequency(make_net):
    with pytest.raises(UsageError, match="p is 1; phases need a period of 2 or more"):
        phase_sums(make_net(1, 3))


def test_mean_ipr_of_the_cells_of_a_file(make_net):
    nets = [solution(7, 14, operation="multiplication"), make_net(7, 14)]
    dead = Neurons(*np.zeros((2, 14, 7)), np.zeros((7, 14)))
    weights = [net.weights() for net in (*nets, dead)]
    experiment = Experiment(
        task=Modular(p=7, operation="b * a"),
        model=Mlp(width=14, depth=2, one_hot=True, bias=False, activation="square"),
        loss="mse",
    )
    grid = Grid(experiment=experiment, axes={"optimizer.lr": (0.1, 0.2, 0.3)}, name="modular")
    bucket = {name: np.stack([w[name] for w in weights]) for name in weights[0]}
    results = Results(
        grid, {"run": (("run",), np.arange(3))}, weights=[{"run": np.arange(3), **bucket}]
    )
    means = network_ipr(results)
    assert means[0] == pytest.approx(1, abs=1e-12)
    assert means[1] == pytest.approx(neuron_ipr(nets[1], multiplicative=True).mean())
    assert np.isnan(means[2])
