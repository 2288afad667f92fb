"""The MLP and its layers: one network as a module, many in stacked tensors, initial values."""

from __future__ import annotations

import typing

import pytest
import torch
from torch import nn

import grokfast as gf
from grokfast.bucketing import initial_model, make_buckets
from grokfast.errors import UsageError
from grokfast.models import MODELS, Shape
from grokfast.models.chain import Chain, activate, stacked_forward
from grokfast.models.layers import (
    Activation,
    BatchNorm,
    Dropout,
    EmbeddingSum,
    Layer,
    LayerNorm,
    Linear,
    Scale,
    plain,
)
from grokfast.state import State
from grokfast.tasks import Modular

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS, DENSE = Shape(inputs=2, outputs=5, vocabulary=11), Shape(inputs=4, outputs=3)
ONE_HOT = {"one_hot": True, "bias": False, "depth": 2}
NETS = {
    "dense": (DENSE, {}),
    "depth 1": (DENSE, {"depth": 1}),
    "no biases": (DENSE, {"bias": False, "activation": "relu"}),
    "no output bias": (DENSE, {"output_bias": False, "activation": "relu"}),
    "embedding": (TOKENS, {"embedding_dim": 3, "activation": "leaky_relu"}),
    "one-hot": (TOKENS, ONE_HOT | {"activation": "square"}),
    "dropout": (TOKENS, ONE_HOT | {"dropout": 0.5, "depth": 4}),
    "batch norm": (TOKENS, ONE_HOT | {"norm": "batch", "activation": "square"}),
    "layer norm": (DENSE, {"norm": "layer"}),
    "mean-field": (TOKENS, ONE_HOT | {"parametrization": "mean-field"}),
    "everything": (
        DENSE,
        {"dropout": 0.3, "norm": "batch", "parametrization": "mean-field", "depth": 4},
    ),
}
M, ROWS = 3, 7


def mlp(**fields) -> gf.Mlp:
    return gf.Mlp(**{"width": 6, "init_dtype": "float64"} | fields)


def modules(model: gf.Mlp, shape: Shape) -> list[Chain]:
    """Of M seeds."""
    found = []
    for seed in range(M):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(model.build(shape))
    return found


def stacked(nets: list[Chain], tensors: str) -> dict[str, torch.Tensor]:
    """``parameters`` or ``buffers`` of all, by name."""
    each = [dict(getattr(net, f"named_{tensors}")()) for net in nets]
    return {name: torch.stack([own[name].detach() for own in each]) for name in each[0]}


def batch(shape: Shape, seed: int) -> torch.Tensor:
    """Inputs ``[B, I or K]``."""
    generator = torch.Generator().manual_seed(seed)
    if shape.vocabulary:
        return torch.randint(shape.vocabulary, (ROWS, shape.inputs), generator=generator)
    return torch.randn(ROWS, shape.inputs, generator=generator, dtype=torch.float64)


def gradients_of(layers, params, buffers, x, noise):
    """Of the sum of squared outputs; and the outputs, and the buffers after the batch."""

    def total(params):
        output, new = stacked_forward(layers, params, buffers, x, noise)
        return output.square().sum(), (output, new)

    return torch.func.grad(total, has_aux=True)(params)


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # float64 sums in another order


def test_the_nets_of_these_tests_have_every_kind_of_layer():
    kinds = {
        type(layer) for shape, fields in NETS.values() for layer in mlp(**fields).layers(shape)
    }
    assert kinds == set(typing.get_args(Layer))


@pytest.mark.parametrize("name", NETS)
def test_stacked_networks_are_the_modules_in_training_and_in_evaluation(name):
    """Outputs, gradients and running statistics over several batches, then without noise."""
    shape, fields = NETS[name]
    model = mlp(**fields)
    nets, layers = modules(model, shape), model.layers(shape)
    params, buffers = stacked(nets, "parameters"), stacked(nets, "buffers")
    seeds = torch.tensor([3, 2**32 - 1, 0])
    for step in (1, 2, 2**31 - 1):
        x = batch(shape, step)
        noise = seeds, torch.tensor(step)
        gradients, (output, buffers) = gradients_of(layers, params, buffers, x[None], noise)
        for m, net in enumerate(nets):
            net.train()
            net.noise = (int(seeds[m]), step)
            net.zero_grad()
            own = net(x)
            own.square().sum().backward()
            assert_close(output[m], own.detach())
            for key, parameter in net.named_parameters():
                assert_close(gradients[key][m], parameter.grad)
            for key, buffer in net.named_buffers():
                assert_close(buffers[key][m], buffer)
    x = batch(shape, 9)
    output, new = stacked_forward(layers, params, buffers, x[None])
    assert all(torch.equal(new[key], buffers[key]) for key in buffers)
    for m, net in enumerate(nets):
        assert_close(output[m], net.eval()(x).detach())


def test_networks_may_each_see_samples_of_their_own():
    shape, fields = NETS["everything"]
    model = mlp(**fields)
    nets, layers = modules(model, shape), model.layers(shape)
    params, buffers = stacked(nets, "parameters"), stacked(nets, "buffers")
    xs = [batch(shape, m) for m in range(M)]
    output, _ = stacked_forward(layers, params, buffers, torch.stack(xs))
    for m, net in enumerate(nets):
        assert_close(output[m], net.eval()(xs[m]).detach())


def test_batch_norm_is_torchs_with_the_unbiased_running_variance():
    x = torch.randn(M, ROWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.rand(4, M, 4, dtype=torch.float64) + 0.5
    params = {"norms.0.weight": values[0], "norms.0.bias": values[1]}
    buffers = {"norms.0.running_mean": values[2], "norms.0.running_var": values[3]}
    noise = torch.zeros(M, dtype=torch.int64), torch.tensor(1)
    output, new = stacked_forward([BatchNorm(4)], params, buffers, x, noise)
    judged, _ = stacked_forward([BatchNorm(4)], params, buffers, x)
    for m in range(M):
        norm = nn.BatchNorm1d(4, dtype=torch.float64)
        state = {
            name.removeprefix("norms.0."): value[m] for name, value in (params | buffers).items()
        }
        norm.load_state_dict(state, strict=False)
        assert_close(judged[m], norm.eval()(x[m]).detach())
        assert_close(output[m], norm.train()(x[m]).detach())
        assert_close(new["norms.0.running_mean"][m], norm.running_mean)
        assert_close(new["norms.0.running_var"][m], norm.running_var)
    unbiased = 0.9 * values[3] + 0.1 * x.var(1, correction=1)
    assert_close(new["norms.0.running_var"], unbiased)


def test_dropout_comes_before_the_activation_and_the_norm_after_it():
    model = mlp(**ONE_HOT | {"depth": 3, "dropout": 0.5, "norm": "batch", "activation": "square"})
    assert model.layers(TOKENS) == (
        EmbeddingSum(11, 6, True),
        Dropout(0.5, 0),
        Activation("square"),
        BatchNorm(6),
        Linear(6, 6, False),
        Dropout(0.5, 1),
        Activation("square"),
        BatchNorm(6),
        Linear(6, 5, False),
    )


def test_dropout_without_noise_given_is_an_error():
    net = mlp(dropout=0.5).build(DENSE)
    with pytest.raises(RuntimeError, match="the seed and the step"):
        net(batch(DENSE, 0))


def test_mean_field_is_gromovs_formula():
    """f(x) = W2 (W1 x)^2 / (D N), arXiv 2301.02679, Eqs. 1-4 with a quadratic activation."""
    p, width = 5, 8
    shape = Shape(inputs=2, outputs=p, vocabulary=2 * p)
    model = mlp(**ONE_HOT, width=width, activation="square", parametrization="mean-field")
    net = model.build(shape)
    w1, w2 = net.embedding.weight.T, net.layers[0].weight  # [N, 2p], [p, N]
    x = torch.tensor([[1, p + 4], [0, p]])
    pair = nn.functional.one_hot(x, 2 * p).sum(1).double()
    assert_close(net(x), (pair @ w1.T) ** 2 @ w2.T / (2 * p * width))


@pytest.mark.parametrize("seed", [None, 1])
def test_cube_root_draws_are_the_authors(seed):
    """Default values first, which are thrown away, then normal ones (github.com/d-doshi/Grokking);
    without a seed they go on with the generator that the labels came from."""
    data = Modular(corruption=0.35).build()
    model = gf.preset("modular-addition").experiment.model
    net = initial_model(type(model)(**vars(model) | {"seed": seed}), data).module
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(data.generator)
        if seed is not None:
            torch.manual_seed(seed)
        first, last = nn.Linear(194, 500, bias=False), nn.Linear(500, 97, bias=False)
        for layer in (first, last):
            nn.init.normal_(layer.weight, 0, 0.5 / (2 * 500) ** (1 / 3))
    assert torch.equal(net.embedding.weight, first.weight.T)
    assert torch.equal(net.layers[0].weight, last.weight)


def test_models_without_a_seed_are_those_of_their_data_in_any_bucket():
    experiment = gf.preset("modular-corruption").experiment.replace(**{"task.p": 7}, width=4)
    cells = [experiment.replace(**{"task.corruption_seed": k}) for k in (0, 1, 0)]
    (bucket,) = make_buckets(cells, range(3))
    together = State.initial(bucket).params[0]
    for m, cell in enumerate(cells):
        (alone,) = make_buckets([cell], [0])
        assert torch.equal(State.initial(alone).params[0][0], together[m])
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])


def test_a_task_that_leaves_no_generator_needs_a_model_seed():
    experiment = gf.preset("addition-regression").experiment
    with pytest.raises(UsageError, match="leaves no generator to go on with"):
        make_buckets([experiment.replace(model_seed=None)], [0])


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("cube-root", lambda inputs, width: (16 * width) ** (-1 / 3)),
        ("standard-normal", lambda inputs, width: 1.0),
        ("he", lambda inputs, width: (2 / inputs) ** 0.5),
        ("lazy", lambda inputs, width: 2**0.5 / width ** (1 / 3)),
    ],
)
def test_initial_values_have_the_deviations_of_their_recipe(init, deviation):
    model = mlp(**ONE_HOT | {"depth": 3}, width=200, init=init, init_scale=3.0)
    net = initial_model(model, Modular(p=23).build()).module
    weights = {46: net.embedding.weight, 200: net.layers[0].weight}
    for inputs, weight in weights.items():
        found = float(weight.detach().std()) / (3.0 * deviation(inputs, 200))
        assert abs(found - 1) < 5 / (2 * weight.numel()) ** 0.5  # five deviations of a deviation


def test_init_scale_multiplies_all_but_norms():
    data = gf.preset("addition-regression").experiment.task.build()
    one, three = (
        initial_model(mlp(norm="batch", embedding_dim=2, init_scale=scale), data).module
        for scale in (1.0, 3.0)
    )
    for (name, a), b in zip(one.named_parameters(), three.parameters(), strict=True):
        assert torch.equal(b, a if name.startswith("norms.") else 3 * a), name


def by_hand(net, params, x):
    """A :class:`Plain` as csrc and kernels read it."""
    tensors = iter(params)
    if net.vocabulary:
        x = next(tensors)[x].sum(1)
        if net.activate_embedding:
            x = activate(x, net.activation)
    last = len(net.sizes) - 2
    for k in range(last + 1):
        x = activate(x, net.activation) if k else x
        x = x @ next(tensors).T
        if net.output_bias if k == last else net.bias:
            x = x + next(tensors)
    return x


PLAIN = ("dense", "depth 1", "no biases", "no output bias", "embedding", "one-hot")


@pytest.mark.parametrize("name", NETS)
def test_what_csrc_and_kernels_can_read_is_recognised_and_nothing_else(name):
    shape, fields = NETS[name]
    model = mlp(**fields)
    found = plain(model.layers(shape))
    assert (found is not None) == (name in PLAIN)
    if found is not None:
        net = model.build(shape)
        x = batch(shape, 0)
        assert_close(by_hand(found, list(net.parameters()), x), net(x))


EMBEDDING, ACT = EmbeddingSum(5, 3, False), Activation("tanh")


@pytest.mark.parametrize(
    "chain",
    [
        (EMBEDDING,),
        (ACT, Linear(3, 4, True)),  # dense inputs are not activated
        (Linear(3, 4, True), Linear(4, 2, True)),
        (Linear(3, 4, True), ACT),
        (Linear(3, 4, True), ACT, ACT, Linear(4, 2, True)),
        (Linear(3, 4, False), ACT, Linear(4, 2, True)),
        (Linear(3, 4, True), ACT, Linear(4, 4, True), Activation("relu"), Linear(4, 2, True)),
        (EMBEDDING, Activation("relu"), Linear(3, 4, True), ACT, Linear(4, 2, True)),
        (EMBEDDING, Linear(3, 4, True), ACT, LayerNorm(4), Linear(4, 2, True)),
        (EMBEDDING, Dropout(0.0, 0), ACT, Linear(3, 4, True)),
        (EMBEDDING, Linear(3, 4, True), Scale(1.0)),
        (Linear(3, 4, True), ACT, EMBEDDING, Linear(3, 2, True)),
    ],
    ids=str,
)
def test_other_chains_are_not_taken_for_plain_ones(chain):
    assert plain(chain) is None


def test_a_layer_that_nobody_knows_is_refused_by_both():
    class Other:
        pass

    with pytest.raises(TypeError, match="unknown layer"):
        stacked_forward([Other()], {}, {}, torch.zeros(1, 2, 3))
    with pytest.raises(TypeError, match="unknown layer"):
        Chain([Other()])(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 0}, "width is 0"),
        ({"depth": 5}, "depth is 5; give 1 to 4"),
        ({"dropout": 1.0}, "model.dropout is 1.0; give 0 <= dropout < 1"),
        ({"dropout": float("nan")}, "model.dropout is nan"),
        ({"one_hot": True}, "needs model.bias=false"),
        ({"one_hot": True, "bias": False, "depth": 1}, "give 2 to 4"),
        ({"one_hot": True, "embedding_dim": 3, "bias": False}, "one or the other"),
        ({"norm": "group"}, "model.norm is 'group'; give one of none, batch, layer"),
    ],
)
def test_impossible_fields_are_named_with_what_would_do(fields, says):
    with pytest.raises(UsageError) as error:
        gf.Experiment(task=Modular(p=5), model=gf.Mlp(**fields))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 1},
        {"batch_size": 11, "batches.remainder": "short"},  # one of twelve is left over
        {"task.fraction": 1 / 25},  # the full batch
    ],
)
def test_batch_norm_on_a_batch_of_one_sample_is_refused(changes):
    model = gf.Mlp(one_hot=True, bias=False, depth=2, norm="batch")
    experiment = gf.Experiment(task=Modular(p=5), model=model, loss="mse").replace(**changes)
    with pytest.raises(UsageError, match="a batch of 1 sample, which has no variance"):
        make_buckets([experiment], [0])


def test_the_name_of_a_model_is_its_class():
    assert {name: cls.name for name, cls in MODELS.items()} == {name: name for name in MODELS}
