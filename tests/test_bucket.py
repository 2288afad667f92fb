"""Data, initial values and shuffles against the authors' own, to the bit."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import grokfast as gf
from grokfast.batches import LoaderOrders
from grokfast.bucketing import make_buckets
from grokfast.models import Shape, Transformer
from grokfast.schedule import Schedule, evaluated_steps
from grokfast.state import State
from grokfast.tasks import Algorithmic

TOY = ("addition-classification", "addition-regression")


def bucket_of(grid):
    (bucket,) = make_buckets(grid.cells, range(grid.size))
    return bucket


@pytest.mark.parametrize("name", TOY)
def test_split_and_initial_values_are_the_authors(name, trace):
    grid = gf.preset(name).grid(lr=1e-3, weight_decay=5.0)
    bucket = bucket_of(grid)
    assert bucket.x_train[0].tolist() == trace[name]["train_pairs"]
    assert bucket.x_val[0].tolist() == trace[name]["val_pairs"]
    init = trace[name]["init_float32"]
    got = dict(zip(bucket.names, State.initial(bucket).params, strict=True))
    assert got["embedding.weight"][0, :, 0].tolist() == init["embedding"]
    for layer in (0, 1, 2):
        weight = got[f"layers.{layer}.weight"][0].flatten()
        assert weight[:5].tolist() == init[f"layer{layer + 1}_weight_first5"]
        assert got[f"layers.{layer}.bias"][0, :5].tolist() == init[f"layer{layer + 1}_bias_first5"]


def test_a_seed_gives_the_same_cell_in_every_grid():
    small = gf.preset("addition-regression").grid(lr=1e-3, weight_decay=0.0, model_seed=7)
    large = gf.preset("addition-regression").grid(
        lr=[1e-4, 1e-3], weight_decay=0.0, model_seed=[5, 6, 7], data_seed=[1, 42]
    )
    torch.manual_seed(0)
    a = State.initial(bucket_of(small))
    torch.rand(17)  # the global generator must not matter
    bucket = bucket_of(large)
    b = State.initial(bucket)
    at = next(i for i, c in enumerate(large.cells) if c.model.seed == 7)
    for p, q in zip(a.params, b.params, strict=True):
        assert torch.equal(p[0], q[at])
    assert bucket.x_train.shape[0] == 2
    assert sorted(set(bucket.data_index.tolist())) == [0, 1]


def test_drawing_models_leaves_torchs_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    bucket_of(gf.preset("addition-regression").grid(lr=1e-3, weight_decay=0.0))
    assert torch.equal(torch.rand(3), expected)


def test_parameter_groups_follow_the_spec():
    bucket = bucket_of(gf.preset("addition-regression").grid(lr=3e-3, weight_decay=7.0))
    assert bucket.lr[:, 0].tolist() == [1e-3] + [3e-3] * 6
    assert bucket.weight_decay[:, 0].tolist() == [0.0] + [7.0] * 6
    digits = bucket_of(gf.preset("mnist-digits").grid(lr=0.5, weight_decay=2.0))
    assert digits.lr[:, 0].tolist() == [1e-3] * 4 + [0.5] * 2
    assert digits.weight_decay[:, 0].tolist() == [2.0] * 6


def test_shuffles_are_those_of_torchs_data_loader():
    """The order and the generator's draws of a DataLoader loop with evaluation, re-run."""
    from torch.utils.data import DataLoader, TensorDataset

    samples, batch, epochs = 12, 4, 9
    evaluation = gf.Evaluation(schedule="log-epochs", horizon=27, points=6)
    schedule = Schedule(evaluation, gf.Recording(), samples // batch, epochs * samples // batch)
    evaluated = [schedule.evaluates_epoch(epoch) for epoch in range(epochs)]
    assert 3 < sum(evaluated) < 8
    data = TensorDataset(torch.arange(samples))
    torch.manual_seed(11)
    state = torch.get_rng_state()
    train = DataLoader(data, batch_size=batch, shuffle=True)
    val = DataLoader(data, batch_size=batch, shuffle=False)
    seen = []
    for epoch in range(epochs):
        seen.append(torch.cat([x for (x,) in train]))
        if evaluated[epoch]:
            list(val)
    orders = LoaderOrders([state], samples, schedule)
    got = torch.cat([orders.order(0, 4), orders.order(4, epochs), orders.order(0, 0)], dim=1)
    assert torch.equal(got[0], torch.stack(seen))


def test_schedule_is_that_of_a_long_horizon_whatever_the_budget():
    evaluation = gf.Evaluation(schedule="log-epochs", horizon=300_000, points=1000)
    short, long = (evaluated_steps(evaluation, 5, n) for n in (500, 150_000))
    assert (long[: len(short)] == short).all() and short[-1] <= 500 < long[len(short)]
    expected = np.unique((np.logspace(0, np.log10(3e5), 1000) / 5).astype(int))
    assert long.tolist() == (5 * (expected[expected < 30_000] + 1)).tolist()


def test_curve_steps_of_a_raised_budget_begin_with_the_old_ones():
    grid = gf.preset("addition-regression").grid(lr=1e-3, weight_decay=0.0)
    short = bucket_of(grid.grid(steps=500)).curve_steps
    long = bucket_of(grid.grid(steps=5000)).curve_steps
    assert torch.equal(long[: len(short)], short)
    assert 60 < len(long) < 200


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 7}, "batch_size 7 does not divide the 1000"),
        ({"steps": 13}, "steps 13 is no multiple of the 5 steps"),
        ({"model.embedding_dim": 2}, "gives dense inputs, but model.embedding_dim is 2"),
        ({"loss": "cross_entropy"}, None),
    ],
)
def test_data_and_experiment_must_fit(changes, says):
    grid = gf.preset("mnist-digits").grid(lr=0.5, weight_decay=2.0, **changes)
    if says is None:
        bucket_of(grid)
        return
    with pytest.raises(gf.UsageError, match=says):
        bucket_of(grid)


def test_mse_without_targets_is_refused():
    grid = gf.preset("addition-classification").grid(lr=1e-3, weight_decay=0.0, loss="mse")
    with pytest.raises(gf.UsageError, match="no dense targets"):
        bucket_of(grid)


@pytest.mark.parametrize("options", [{}, {"depth": 3, "norm": "pre", "tied": False, "bias": False}])
def test_products_of_a_transformer_are_those_that_torch_counts(options):
    model = Transformer(width=16, heads=2, feedforward=24, **options)
    shape = Shape(inputs=4, outputs=7, vocabulary=7)
    net, tokens = model.build(shape).eval(), torch.zeros(5, 4, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(tokens)
    assert 2 * 5 * model.multiply_adds(shape) == counter.get_total_flops()


def test_a_model_that_is_no_chain_has_operations_too():
    task = Algorithmic(operation="x+y", p=5, fraction=0.5)
    cell = gf.Experiment(task=task, model=Transformer(width=8, heads=2, feedforward=8), steps=10)
    (bucket,) = make_buckets([cell], [0])
    form, all_of_it = bucket.stacked, bucket.cell.model.multiply_adds(bucket.shape)
    assert form.multiply_adds(12, True) < 12 * all_of_it
    forward = form.multiply_adds(12, True), form.multiply_adds(13, False)
    assert bucket.flops_per_step() == 2 * (3 * forward[0] + forward[1])
