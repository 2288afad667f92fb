"""Sharpness against a landscape whose maximum is known."""

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.analyses.sharpness import sharpness, sharpness_of_cell

pytest.importorskip("scipy")


def linear(weights):
    net = torch.nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weights]))
    return net


def test_the_maximum_over_the_box_is_at_its_corner():
    # L(w) = mean (x . w - t)^2 is convex, so largest at a corner of the box.
    rng = np.random.default_rng(0)
    x, w, epsilon = rng.normal(size=(20, 4)), np.array([0.5, -2.0, 0.0, 1.0]), 0.1
    target = x @ w + rng.normal(size=20)
    corners = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T * epsilon * (np.abs(w) + 1)
    losses = [np.mean((x @ (w + corner) - target) ** 2) for corner in corners]
    least = np.mean((x @ w - target) ** 2)
    net = linear(w.tolist()).double()
    before = net.weight.detach().clone()
    found = sharpness(
        net,
        torch.from_numpy(x),
        torch.arange(20),
        targets=torch.from_numpy(target)[:, None],
        loss="mse",
        epsilon=epsilon,
        iterations=50,
    )
    assert found == pytest.approx(100 * (max(losses) - least) / (1 + least), rel=1e-9)
    assert torch.equal(net.weight, before)
    assert net.training


def test_a_subspace_is_less_sharp_than_all_parameters():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 30), torch.nn.Tanh(), torch.nn.Linear(30, 3))
    x, y = torch.randn(40, 5), torch.randint(0, 3, (40,))
    full = sharpness(net, x, y)
    some = sharpness(net, x, y, dimensions=3, seed=1)
    assert 0 < some < full
    assert some == sharpness(net, x, y, dimensions=3, seed=1)
    assert full < sharpness(net, x, y, epsilon=5e-3)


def test_of_a_trained_cell(tmp_path):
    grid = gf.preset("modular-addition").grid(
        width=8, model_seed=[1, 2], steps=3, **{"task.p": 5, "model.norm": "batch"}
    )
    r = gf.run(grid, engine="reference", device="cpu", progress=False)
    values = [sharpness_of_cell(r, k, iterations=3) for k in range(2)]
    assert np.isfinite(values).all()
    assert min(values) > 0


def test_what_is_out_of_range():
    for name in ("epsilon", "iterations", "dimensions"):
        with pytest.raises(gf.UsageError, match=f"{name} is 0; give more than 0"):
            sharpness(linear([1.0]), torch.ones(1, 1), torch.zeros(1), **{name: 0})
