"""Pruned nets score as copies with zeroed neurons do."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from grokfast.analyses import (
    PARTS,
    Neurons,
    neuron_ipr,
    order_by_ipr,
    parts,
    prune,
    pruning,
    solution,
)
from grokfast.analyses.module import as_module
from grokfast.errors import UsageError
from grokfast.tasks import Addition, Modular

TASK = Modular(p=7, fraction=0.6, corruption=0.4)


def plainly(module, data, redrawn, order, removed):
    """Accuracy and loss by part of a copy whose first ``removed`` neurons are zeroed."""
    pruned, gone = copy.deepcopy(module).eval(), torch.tensor(order[:removed], dtype=torch.long)
    with torch.no_grad():
        pruned.embedding.weight[:, gone] = 0
        pruned.layers[0].weight[:, gone] = 0
        samples = {
            "train": (data.x_train, data.y_train),
            "corrupted": (data.x_train[:redrawn], data.y_train[:redrawn]),
            "uncorrupted": (data.x_train[redrawn:], data.y_train[redrawn:]),
            "val": (data.x_val, data.y_val),
            "all": (
                torch.cat((data.x_train, data.x_val)),
                torch.cat((data.y_clean, data.y_val)),
            ),
        }
        scores = {}
        for name, (x, y) in samples.items():
            out = pruned(x)
            loss = nn.functional.mse_loss(out, torch.eye(out.shape[1], dtype=out.dtype)[y])
            scores[name] = (float((out.argmax(1) == y).double().mean()), float(loss))
    return scores


def assert_same(curve, module, data, redrawn, order):
    for look, removed in enumerate(curve.removed.tolist()):
        for name, (accuracy, loss) in plainly(module, data, redrawn, order, removed).items():
            assert curve.accuracy[name][look] == pytest.approx(accuracy, abs=1e-12), (name, removed)
            # Sums of a dozen terms in float64, in another order.
            assert curve.loss[name][look] == pytest.approx(loss, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("activation", ["square", "relu"])
def test_both_orders_and_the_controls_score_as_copies_do(make_net, activation):
    net, data = make_net(7, 12, activation), TASK.build()
    module, redrawn = as_module(net, torch.float64), TASK.corrupted_rows()
    removed = [0, 1, 5, 11, 12]
    found = pruning(net, parts(data), removed=removed, controls=2, seed=5)
    order = np.argsort(neuron_ipr(net))
    assert_same(found.ascending, module, data, redrawn, order)
    assert_same(found.descending, module, data, redrawn, order[::-1].copy())
    for i, control in enumerate(found.controls):
        shuffled = np.random.default_rng(5 + i).permutation(12)
        assert_same(control, module, data, redrawn, shuffled)
    assert set(found.ascending.accuracy) == set(PARTS)
    assert found.width == 12
    assert found.ascending.removed.tolist() == removed


def test_batchnorm_nets_score_as_copies_do(normed):
    torch.manual_seed(1)
    module, data = normed(7, 12, "batch").double(), TASK.build()
    with torch.no_grad():
        module.norms[0].bias.normal_()
        module(data.x_train)  # moves the running statistics
    net = Neurons.of(module.eval())
    order = order_by_ipr(net)
    curve = prune(net, parts(data), order)
    assert curve.removed.tolist() == list(range(12)), "by default after each neuron"
    assert_same(curve, module, data, TASK.corrupted_rows(), order)


def test_an_empty_net_says_nothing(make_net):
    net, data = make_net(7, 12), TASK.build()
    curve = prune(net, parts(data), np.arange(12), [3, 12])
    assert curve.removed.tolist() == [3, 12]
    for name in PARTS:
        assert curve.loss[name][-1] == 1 / 7
    assert curve.accuracy["all"][-1] == 1 / 7, "as many pairs have the answer 0"


def test_a_solution_stands_more_pruning_of_noise_than_of_waves(make_net):
    p, many, data = 11, 220, Modular(p=11).build()
    wave, noise = solution(p, many), make_net(p, many)
    net = Neurons(
        np.concatenate((wave.u, 0.05 * noise.u)),
        np.concatenate((wave.v, 0.05 * noise.v)),
        np.concatenate((wave.w, 0.05 * noise.w), axis=1),
    )
    assert set(order_by_ipr(net)[:many].tolist()) == set(range(many, 2 * many))
    found = pruning(net, parts(data), removed=[0, many], controls=1)
    assert found.ascending.accuracy["all"][1] == 1
    assert found.descending.accuracy["all"][1] < 0.5
    losses = [c.loss["all"][1] for c in (found.ascending, *found.controls, found.descending)]
    assert losses == sorted(losses), "a random order lies between"
    assert "corrupted" not in found.ascending.accuracy, "a part without a row is left out"


def test_neurons_that_have_died_go_first(make_net):
    net = make_net(7, 5)
    net.u[2] = 0
    assert order_by_ipr(net)[0] == 2


def test_wrong_input_is_named(make_net):
    net, rows = make_net(7, 5), parts(TASK.build())
    with pytest.raises(UsageError, match="no permutation of the 5 neurons"):
        prune(net, rows, [0, 1, 2, 3, 3])
    for removed in ([], [-1], [6], [2, 1]):
        with pytest.raises(UsageError, match="no ascending list of numbers in 0 to 5"):
            prune(net, rows, np.arange(5), removed)
    with pytest.raises(UsageError, match="the data have 49 pairs, the net 25"):
        prune(make_net(5, 5), rows, np.arange(5))
    with pytest.raises(UsageError, match="controls is -1"):
        pruning(net, rows, controls=-1)


def test_inputs_that_are_no_pairs():
    with pytest.raises(UsageError, match=r"no tokens \(m, p \+ n\)"):
        parts(Addition().build())


def test_layernorm_is_refused(normed):
    net = Neurons.of(normed(7, 12, "layer"))
    with pytest.raises(UsageError, match="LayerNorm is no sum over neurons"):
        pruning(net, parts(TASK.build()))
