"""The spectral norm of the first layer and the norms of its neurons."""

import pytest
import torch

from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.models import Mlp
from grokfast.observables import OBSERVABLES, Snapshot, largest_singular_value
from grokfast.presets import preset


def snapshot(model, **params):
    experiment = Experiment(task=preset("modular-addition").experiment.task, model=model)
    return Snapshot(params, experiment, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (45, 3), (50, 50), (500, 50), (3, 129)])
def test_the_largest_singular_value_is_that_of_a_decomposition(shape, dtype):
    matrices = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    matrices[1] = 0
    if min(shape) > 2:
        matrices[2, :, 1:] = 1e-7 * matrices[2, :, 1:]  # of rank 1, nearly
        matrices[3] = matrices[3] * 1e-30
    wanted = torch.linalg.matrix_norm(matrices.double(), 2)
    found = OBSERVABLES["spectral_norm"].compute(
        snapshot(Mlp(depth=1), **{"layers.0.weight": matrices})
    )
    # A Gram matrix and its eigenvalue, each with at most so many roundings, halved by the root.
    torch.testing.assert_close(
        found, wanted, rtol=max(shape) * torch.finfo(torch.double).eps, atol=0
    )


def test_singular_values_of_a_diverged_cell_are_nan_and_leave_others_alone():
    matrices = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))
    wanted = largest_singular_value(matrices[2:])
    matrices[0, 3, 3], matrices[1, 0, 0] = torch.nan, torch.inf
    found = largest_singular_value(matrices)
    assert found[:2].isnan().all()
    assert found[2] == wanted[0]


def test_the_first_layer_of_one_hot_tokens_is_the_embedding():
    table = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(2))
    cells = snapshot(
        Mlp(one_hot=True, bias=False, depth=2),
        **{"embedding.weight": table, "layers.0.weight": torch.zeros(2, 5, 4)},
    )
    norm = OBSERVABLES["spectral_norm"].compute(cells)
    torch.testing.assert_close(norm, torch.linalg.matrix_norm(table.double(), 2))
    rows = OBSERVABLES["neuron_norms"].compute(cells)
    torch.testing.assert_close(rows, table.double().square().sum(1).sqrt())


def test_norms_of_neurons_are_those_of_the_rows_of_their_weights():
    weights = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(3))
    params = {
        "layers.0.weight": weights,
        "layers.0.bias": torch.ones(2, 6),
        "layers.1.weight": torch.ones(2, 1, 6),
    }
    found = OBSERVABLES["neuron_norms"].compute(snapshot(Mlp(depth=2), **params))
    torch.testing.assert_close(found, weights.double().square().sum(2).sqrt())


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("spectral_norm", {"in_proj_weight": (1, 3, 3)}, "no layer that every input enters"),
        ("neuron_norms", {"in_proj_weight": (1, 3, 3)}, "no layer that every input enters"),
        ("neuron_norms", {"layers.0.weight": (1, 3, 3)}, "no hidden layer"),
    ],
)
def test_models_without_a_first_layer(name, params, message):
    cells = snapshot(Mlp(depth=1), **{key: torch.zeros(shape) for key, shape in params.items()})
    with pytest.raises(UsageError, match=f"{name}: this experiment has {message}"):
        OBSERVABLES[name].compute(cells)
