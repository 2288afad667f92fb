"""The solution in closed form, and the map between the two ways to write the net."""

import numpy as np
import pytest
import torch
from torch import nn

from grokfast.analyses import (
    absorbed,
    absorbing_factor,
    amplitude,
    answers,
    evaluate,
    mean_field,
    outputs,
    solution,
    width_table,
)
from grokfast.analyses.module import as_module
from grokfast.errors import UsageError
from grokfast.tasks import Modular


@pytest.mark.parametrize(("width", "accuracy"), [(50, 0.88), (97, 0.997), (200, 1.0)])
def test_accuracy_against_width_at_p_97(width, accuracy):
    found, loss = width_table(97, [width])
    assert found.shape == loss.shape == (1, 3)
    assert found.mean() == pytest.approx(accuracy, abs=0.01)
    # Means of three seeds, which scatter by some per cent.
    assert loss.mean() == pytest.approx(4 / width, rel=0.1)


@pytest.mark.parametrize("p", [2, 3, 5, 12, 15, 23])
def test_addition_is_solved_modulo_any_number(p):
    assert evaluate(solution(p, 60 * p), answers("addition", p))[0] == 1


@pytest.mark.parametrize("p", [2, 3, 5, 11, 23])
def test_multiplication_is_solved_modulo_primes(p):
    net = solution(p, 60 * p + 1, operation="multiplication")
    assert evaluate(net, answers("multiplication", p))[0] == 1


def test_the_right_output_is_one():
    """With (2 / N)^(+1/3); the exponent as printed would give (N / 2)^2 times as much."""
    p, width = 11, 40 * 11
    total = outputs(solution(p, width)).reshape(p, p, p)
    m, n = np.indices((p, p))
    right = total[m, n, (m + n) % p]
    # Per neuron the right output is 2/N (1/2 + terms with zero mean of size about 1/2).
    assert right.mean() == pytest.approx(1, abs=5 / np.sqrt(width))
    assert amplitude(500) == pytest.approx((2 / 500) ** (1 / 3))


def test_element_zero_has_a_neuron_of_its_own():
    p = 7
    net = solution(p, 30, operation="multiplication")
    expected = np.eye(p)[0]
    for vector in (net.u[-1], net.v[-1], net.w[:, -1]):
        np.testing.assert_array_equal(vector, expected)
    assert not net.u[:-1, 0].any()
    assert not net.w[0, :-1].any()
    assert solution(p, 1, operation="multiplication").width == 1


def test_solutions_are_modules_as_trained_ones_are():
    p = 7
    module = as_module(solution(p, 210))
    assert {name: tuple(t.shape) for name, t in module.state_dict().items()} == {
        "embedding.weight": (2 * p, 210),
        "layers.0.weight": (p, 210),
    }
    data = Modular(p=p).build()
    assert (module(data.x_val).argmax(dim=1) == data.y_val).all()


def test_phases_follow_from_the_seed():
    np.testing.assert_array_equal(solution(7, 20, seed=1).u, solution(7, 20, seed=1).u)
    assert (solution(7, 20, seed=1).u != solution(7, 20, seed=2).u).any()


def test_what_has_no_solution():
    with pytest.raises(UsageError, match="p is 0; give 1 or more"):
        solution(0, 5)
    with pytest.raises(UsageError, match="width is 0; give 1 or more"):
        solution(5, 0)
    with pytest.raises(UsageError, match="no analytic solution of 'a - b'"):
        solution(5, 5, operation="a - b")
    with pytest.raises(UsageError, match="p is 12; discrete logarithms need a prime"):
        solution(12, 5, operation="multiplication")
    with pytest.raises(UsageError, match="seeds is 0"):
        width_table(5, [5], seeds=0)
    with pytest.raises(UsageError, match="'c' is neither a nor b"):
        answers("a + c", 5)


def gradient_step(weights, lr, data, prefactor):
    """One step of gradient descent on the squared error of prefactor W (sum of embeddings)^2."""
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    hidden = leaves["embedding.weight"][data.x_train].sum(dim=1)
    out = prefactor * (hidden**2) @ leaves["layers.0.weight"].T
    loss = nn.functional.mse_loss(out, torch.eye(out.shape[1], dtype=out.dtype)[data.y_train])
    loss.backward()
    return {name: w.detach() - lr * w.grad for name, w in leaves.items()}


def test_a_step_of_gradient_descent_commutes_with_the_map():
    p, width, lr = 7, 20, 300.0
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in (("embedding.weight", (2 * p, width)), ("layers.0.weight", (p, width)))
    }
    data = Modular(p=p, fraction=0.6).build()
    small, small_lr = absorbed(weights, lr, p=p, width=width)
    there = gradient_step(small, small_lr, data, 1.0)
    mapped = gradient_step(weights, lr, data, 1 / (2 * p * width))
    back, _ = absorbed(mapped, lr, p=p, width=width)
    for name, value in weights.items():
        moved = (mapped[name] - value).abs().max()
        assert moved > 0.01, "the step is not nothing"
        torch.testing.assert_close(there[name], back[name], rtol=1e-12, atol=1e-14)


def test_the_map_has_the_numbers_of_the_papers():
    assert absorbing_factor(97, 500) == pytest.approx(0.0218, abs=5e-5)
    weights, lr = absorbed({"w": np.ones(3)}, 1e5, p=97, width=500)
    assert lr == pytest.approx(47.4, abs=0.05)
    again, lr_again = mean_field(weights, lr, p=97, width=500)
    assert lr_again == pytest.approx(1e5)
    assert again["w"] == pytest.approx(np.ones(3))
    # [P23]'s solution has the amplitude (2 D)^(1/3) in mean-field form.
    large, _ = mean_field(solution(97, 500).weights(), 1.0, p=97, width=500)
    assert np.abs(large["embedding.weight"]).max() == pytest.approx((4 * 97) ** (1 / 3), rel=1e-3)
    with pytest.raises(UsageError, match="width is 0"):
        absorbing_factor(97, 0)
