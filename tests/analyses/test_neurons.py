"""The net as a sum over neurons: outputs as of the module; what is refused, and by which name."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from grokfast.analyses import (
    Neurons,
    answers,
    evaluate,
    fourier_map,
    frobenius,
    gamma_against_ipr,
    neuron_ipr,
    output_map,
    outputs,
    preactivation_map,
    solution,
)
from grokfast.analyses.module import as_module
from grokfast.errors import UsageError
from grokfast.experiment import Experiment, Recording
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.results import Results
from grokfast.tasks import Modular


def all_pairs(p):
    m, n = np.divmod(np.arange(p * p), p)
    return torch.from_numpy(np.stack((m, p + n), axis=1))


# Sums of at most 600 terms in float64, in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("activation", ["square", "relu"])
@pytest.mark.parametrize(("p", "width"), [(1, 3), (2, 3), (7, 12), (47, 300), (48, 600)])
def test_outputs_are_those_of_the_module(make_net, p, width, activation):
    net = make_net(p, width, activation)
    expected = as_module(net, torch.float64)(all_pairs(p)).detach().numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(net) / scale, expected / scale, **CLOSE)


def test_neurons_of_a_module_are_its_weights(make_net):
    net = make_net(5, 9, "relu")
    module = as_module(net, torch.float64)
    assert module.embedding.weight[2, 3] == net.u[3, 2]
    assert module.embedding.weight[5 + 2, 3] == net.v[3, 2]
    assert module.layers[0].weight[4, 3] == net.w[4, 3]
    again = Neurons.of(module)
    assert again.activation == "relu"
    for name in ("u", "v", "w"):
        np.testing.assert_array_equal(getattr(again, name), getattr(net, name))


def test_batchnorm_is_that_of_evaluation_mode(normed):
    torch.manual_seed(0)
    module = normed(7, 12, "batch").double()
    with torch.no_grad():
        for tensor in (*module.norms[0].parameters(), module.norms[0].running_mean):
            tensor.normal_()
        module.norms[0].running_var.uniform_(1e-5, 1e-4)  # eps counts
    expected = module.eval()(all_pairs(7)).detach().numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(Neurons.of(module)) / scale, expected / scale, **CLOSE)


@pytest.mark.parametrize(("p", "width"), [(7, 12), (61, 20)])
def test_evaluation_is_that_of_the_whole_table(make_net, p, width):
    net, table = make_net(p, width), answers("addition", p)
    total, labels = outputs(net), table.reshape(-1)
    accuracy, loss = evaluate(net, table)
    assert accuracy == (total.argmax(axis=1) == labels).mean()
    assert loss == pytest.approx(((total - np.eye(p)[labels]) ** 2).mean(), rel=1e-12)
    with pytest.raises(UsageError, match=f"those of {p} x {p} pairs"):
        evaluate(net, answers("addition", p + 1))


def results_with(weights, cells=2, **model):
    experiment = Experiment(
        task=Modular(p=5),
        model=Mlp(
            **(
                {"width": 4, "depth": 2, "one_hot": True, "bias": False, "activation": "square"}
                | model
            )
        ),
        loss="mse",
        record=Recording(weights=True),
    )
    lrs = tuple(10.0 ** -np.arange(1, cells + 1))
    grid = Grid(experiment=experiment, axes={"optimizer.lr": lrs}, name="modular")
    return Results(grid, {"run": (("run",), np.arange(cells))}, weights=weights)


def test_neurons_of_a_cell_of_a_results_file(make_net):
    nets = [make_net(5, 4, seed=seed) for seed in range(2)]
    buckets = [  # in another order than the cells, as buckets may be
        {"run": np.array([run]), **{k: v[None] for k, v in nets[run].weights().items()}}
        for run in (1, 0)
    ]
    results = results_with(buckets)
    for cell, net in enumerate(nets):
        found = Neurons.of_cell(results, cell)
        np.testing.assert_array_equal(found.v, net.v)
        np.testing.assert_array_equal(found.w, net.w)


def test_a_file_without_weights_says_how_to_get_them():
    with pytest.raises(UsageError, match=r"kept no weights; .*record\.?=?weights"):
        Neurons.of_cell(results_with([]), 0)


@pytest.mark.parametrize(
    ("changes", "activation", "message"),
    [
        ({}, "tanh", "the activation tanh"),
        ({"embedding.weight": None}, "square", "no embedding, so its inputs are dense"),
        ({"layers.1.weight": (3, 3)}, "square", "2 linear layers behind the embedding"),
        ({"layers.0.bias": (5,)}, "square", "a bias in its linear layer"),
        ({"embedding.weight": (9, 4)}, "square", "9 tokens and 5 outputs"),
        ({"layers.0.weight": (5, 6)}, "square", "10 tokens of 4 numbers and a layer of 6"),
    ],
)
def test_other_nets_are_refused_by_what_they_are(changes, activation, message):
    shapes = {"embedding.weight": (10, 4), "layers.0.weight": (5, 4)} | changes
    weights = {name: np.ones(shape) for name, shape in shapes.items() if shape}
    with pytest.raises(UsageError, match=message) as error:
        Neurons.from_weights(weights, activation)
    assert "one linear layer without bias" in str(error.value)


def test_layernorm_has_an_ipr_but_is_no_sum(normed):
    net = Neurons.of(normed(5, 8, "layer"))
    assert np.isfinite(neuron_ipr(net)).all()
    with pytest.raises(UsageError, match="LayerNorm is no sum over neurons"):
        outputs(net)


def test_frobenius_norms_and_their_squares(make_net):
    net = make_net(5, 8)
    norms, squares = frobenius(net), frobenius(net, squared=True)
    for name, matrix in (("U", net.u), ("V", net.v), ("W", net.w)):
        assert norms[name] == pytest.approx(np.linalg.norm(matrix))
        assert squares[name] == pytest.approx(norms[name] ** 2)


def test_gamma_goes_with_the_ipr_of_its_neuron(normed, make_net):
    module = normed(5, 8, "batch")
    with torch.no_grad():
        module.norms[0].weight.copy_(torch.arange(8.0) - 4)
    gamma, ipr = gamma_against_ipr(Neurons.of(module))
    assert gamma.tolist() == [4, 3, 2, 1, 0, 1, 2, 3]
    np.testing.assert_array_equal(ipr, neuron_ipr(Neurons.of(module)))
    with pytest.raises(UsageError, match="no norm, so no gamma"):
        gamma_against_ipr(make_net(5, 8))


def test_maps_of_the_analytic_solution_have_the_peaks_of_its_frequency():
    p, k = 11, 3
    net = solution(p, 200)
    hidden = fourier_map(preactivation_map(net, k))
    middle = p // 2
    peaks = {(middle + a, middle + b) for a, b in ((k, 0), (-k, 0), (0, k), (0, -k))}
    assert set(zip(*np.nonzero(hidden > 0.5), strict=True)) == peaks
    written = output_map(net, 6)
    m, n = np.nonzero(written > 0.5)
    assert ((m + n) % p == 6).all()
    assert len(m) == p


def test_maps_of_what_is_not_there(make_net):
    net = make_net(5, 8)
    assert not fourier_map(np.ones((5, 5))).any()
    with pytest.raises(UsageError, match="no neuron 8; there are 8"):
        preactivation_map(net, 8)
    with pytest.raises(UsageError, match="no output -1; there are 5"):
        output_map(net, -1)


def test_importing_the_analyses_does_not_import_torch():
    code = "import sys, grokfast.analyses; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
