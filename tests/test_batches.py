"""The order of the training rows, and the batches made of it, row by row."""

from __future__ import annotations

import pytest
import torch
from parity import bucket_of

import grokfast as gf
from grokfast.batches import ByStepOrders, ContinuedOrders, FixedOrders
from grokfast.bucketing import initial_model
from grokfast.engines.lockstep_block import BatchRows
from grokfast.errors import UsageError
from grokfast.tasks import Modular

pytestmark = pytest.mark.usefixtures("one_thread")

N = 12  # of p = 5
BATCHES = {
    # remainder, batch size -> first and last row of the order in each step of an epoch
    ("none", 4): [(0, 4), (4, 8), (8, 12)],
    ("dropped", 5): [(0, 5), (5, 10)],
    ("short", 5): [(0, 5), (5, 10), (10, 12)],
    ("short", 4): [(0, 4), (4, 8), (8, 12)],
    ("none", 0): [(0, 12)],
}
ORDERS = ("loader", "continued", "by-step", "fixed")


def bucket(order="fixed", remainder="short", batch_size=5, share=None, **axes):
    experiment = gf.Experiment(
        task=Modular(p=5),
        model=gf.Mlp(width=3, depth=2, one_hot=True, bias=False),
        loss="mse",
        batch_size=batch_size,
        batches=gf.Batches(order=order, remainder=remainder, share=share),
        steps=60,
    )
    return bucket_of(*gf.Grid(experiment=experiment).grid(**axes).cells)


def epochs(bucket, order, count, m=0):
    """The definition of each order, written down once more: ``count`` permutations of cell m."""
    cell = bucket.cell.replace(model_seed=bucket.noise_seeds[m].item())
    generator = torch.Generator()
    generator.set_state(initial_model(cell.model, cell.task.build()).generator)
    for epoch in range(count):
        match order:
            case "fixed":
                yield list(range(N))
            case "by-step":
                torch_seed = epoch * bucket.steps_per_epoch
                yield torch.randperm(
                    N, generator=torch.Generator().manual_seed(torch_seed)
                ).tolist()
            case "continued":
                yield torch.randperm(N, generator=generator).tolist()
            case "loader":  # a base seed, the sampler's seed; after an evaluation one more
                draw = torch.empty((), dtype=torch.int64)
                draw.random_(generator=generator)
                seed = int(draw.random_(generator=generator))
                yield torch.randperm(N, generator=torch.Generator().manual_seed(seed)).tolist()
                draw.random_(generator=generator)


@pytest.mark.parametrize(("remainder", "size"), BATCHES)
def test_an_epochs_batches_are_the_rows_of_its_order(remainder, size):
    b = bucket(remainder=remainder, batch_size=size)
    rows = BATCHES[remainder, size]
    assert b.steps_per_epoch == len(rows)
    assert [b.batch_rows(step) for step in range(2 * len(rows))] == 2 * rows
    assert b.counted == rows[-1][1]


@pytest.mark.parametrize("remainder", ["none", "dropped", "short"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_the_rows_of_its_definition(order, remainder):
    b = bucket(order, remainder, 4 if remainder == "none" else 5, model_seed=[3, 4])
    for m in range(2):
        truth = list(epochs(b, order, 4, m))
        drawn = b.orders.order(0, 4)[int(b.order_index[m])].tolist()
        assert drawn == truth
        rows = BatchRows(b).of_steps(1, 4 * b.steps_per_epoch)[int(b.order_index[m])]
        for step in range(4 * b.steps_per_epoch):
            first, last = b.batch_rows(step)
            own = truth[step // b.steps_per_epoch][first:last]
            assert rows[step, : last - first].tolist() == own
    shared = order in ("by-step", "fixed")
    assert b.order_index.tolist() == ([0, 0] if shared else [0, 1])


@pytest.mark.parametrize("order", ORDERS)
def test_any_stretch_of_epochs_is_that_of_the_whole_in_any_sequence_of_calls(order):
    whole = bucket(order).orders.order(0, 9)
    again = bucket(order).orders
    for first, last in ((0, 2), (1, 3), (2, 3), (2, 2), (3, 3), (7, 9), (8, 9), (0, 1), (4, 4)):
        assert torch.equal(again.order(first, last), whole[:, first:last]), (first, last)


def test_stretches_that_share_an_epoch_draw_it_once(monkeypatch):
    orders = ContinuedOrders([torch.Generator().manual_seed(s).get_state() for s in (1, 2)], N)
    drawn = []
    draw = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **how: drawn.append(n) or draw(n, **how))
    for first in range(50):
        orders.order(first, first + 2)
    assert len(drawn) == 2 * 51


def test_orders_by_step_and_of_the_data_know_no_model():
    assert torch.equal(FixedOrders(3).order(5, 7), torch.tensor([[[0, 1, 2], [0, 1, 2]]]))
    by_step = ByStepOrders(N, 3).order(4, 5)[0, 0]
    assert torch.equal(by_step, torch.randperm(N, generator=torch.Generator().manual_seed(12)))


@pytest.mark.parametrize(
    ("remainder", "size", "says"),
    [
        ("none", 5, "batch_size 5 does not divide the 12 training samples"),
        ("dropped", 13, "batch_size 13 is more than the 12 training samples"),
        ("short", 13, "batch_size 13 is more than the 12 training samples"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(remainder, size, says):
    with pytest.raises(UsageError, match=says):
        bucket(remainder=remainder, batch_size=size)


@pytest.mark.parametrize(
    ("batch_size", "share", "samples"),
    [(5, None, 5), (5, 0.5, 5), (10, 0.5, 6), (10, 0.3, 4), (99, 1.0, 12), (0, 0.5, 12)],
)
def test_a_batch_is_at_most_its_share_of_the_training_set(batch_size, share, samples):
    own = bucket(batch_size=batch_size, share=share)
    assert own.batch_size == samples
    assert own.steps_per_epoch == -(-N // samples)
    assert (own.orders is None) == (not batch_size)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(UsageError, match=r"batches.share is .*; give 0 < share <= 1, or none"):
        gf.Experiment(task=Modular(p=5), batches=gf.Batches(share=share))
