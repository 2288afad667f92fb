"""The native engine on sparse parity: the reference's numbers over the step at which a model has
memorised and its decay changes, and the same bits alone, in parts and on any threads."""

import numpy as np
import pytest
import torch
from parity import assert_close, assert_same_bits, bucket_of, trained
from test_memorised import EPOCHS, PER_EPOCH, cells, experiment

import grokfast as gf
from grokfast.engines import make_engine
from grokfast.engines.native import NativeEngine
from grokfast.state import State

pytest.importorskip("grokfast._native")
pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = PER_EPOCH * EPOCHS


@pytest.fixture(scope="module", params=["float64", "float32"])
def whole(request):
    """Ten cells at once, trained in one call."""
    bucket = bucket_of(*cells(dtype=request.param))
    return bucket, trained("native", bucket, STEPS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer.momentum": 0.9, "lr": 0.03},
        {"optimizer.kind": "adamw", "lr": 3e-2, "optimizer.eps": 1e-3},
        {"model.output_bias": True},
        {"model.bias": False},
        {"depth": 3, "width": 20, "lr": 0.3},
        {"batch_size": 0, "lr": 0.3},
        {"evaluation.train_loss": "before", "loss": "mse", "lr": 0.02},
        {"optimizer.encoder": "all-but-last", "optimizer.encoder_lr": 0.05},
    ],
    ids=str,
)
def test_float64_parity_over_the_event(changes):
    some = cells(**{"phase.threshold": 0.7} | changes)[1::2]
    bucket, steps = bucket_of(*some), 30 * PER_EPOCH
    truth = trained("reference", bucket, steps)
    assert int(truth.t_train.min()) > 0
    assert int(truth.t_train.max()) < steps - 8
    assert len(truth.params[0].flatten(1).norm(dim=1).unique()) > 3
    assert_close(trained("native", bucket, steps), truth, rtol=1e-9)


@pytest.mark.parametrize("around", [(-1, 0, 1), (0,), (1,), (PER_EPOCH,)])
def test_parts_that_end_around_the_event_give_the_bits_of_the_whole(whole, around):
    bucket, state = whole
    event = int(state.t_train[0])
    assert 0 < event < STEPS - PER_EPOCH
    parts = trained("native", bucket, *(event + offset for offset in around), STEPS)
    assert_same_bits(parts, state)


def test_a_call_for_every_epoch_gives_the_bits_of_one_call(whole):
    bucket, state = whole
    assert_same_bits(trained("native", bucket, *range(PER_EPOCH, STEPS + 1, PER_EPOCH)), state)


def test_alone_and_on_two_threads_a_cell_has_the_same_bits(whole):
    bucket, state = whole
    together = State.initial(bucket)
    order = torch.arange(bucket.num_cells).flip(0)
    make_engine("native", "cpu", 2).advance(bucket, together, order, STEPS)
    assert_same_bits(together, state)
    for m in (0, 3, 8):
        alone = bucket_of(cells(dtype=bucket.cell.dtype)[m])
        assert_same_bits(trained("native", alone, STEPS), state, there=slice(m, m + 1))


def test_a_collapsed_float32_net_is_wrong_everywhere():
    e = experiment(lr=0.5, weight_decay=1.0, steps=200, dtype="float32")
    state = trained("native", bucket_of(e), 200)
    assert int(state.train_correct[0]) == int(state.val_correct[0]) == 0
    assert 0 < float(state.params[1].abs().min()) < 1e-38  # subnormal: 0 not before its time


def test_the_spectral_norm_is_measured_on_the_way(monkeypatch):
    calls = []

    class Counting(NativeEngine):
        def advance(self, bucket, state, cells, until, tick=None):
            calls.append(until)
            super().advance(bucket, state, cells, until, tick)

    monkeypatch.setattr("grokfast.engines.native.NativeEngine", Counting)
    grid = gf.Grid(experiment=experiment(**{"record.observables": ("spectral_norm:3", "norms:60")}))
    grid = grid.grid(lr=[0.1, 0.02])
    options = {"device": "cpu", "threads": 1, "progress": False}
    ours, truth = (gf.run(grid, engine=e, **options) for e in ("native", "reference"))
    assert calls == [60, 120, STEPS]  # stops for the other observable alone
    assert ours["spectral_norm"].shape == (2, STEPS // 3 + 1)
    assert not np.isnan(ours["spectral_norm"]).any()
    for name in ("spectral_norm", "norms"):
        np.testing.assert_allclose(ours[name], truth[name], rtol=1e-6)


def test_a_layer_too_large_for_the_workers_norm_is_left_to_the_trainer():
    engine = make_engine("native", "cpu", 1)
    small, large = (bucket_of(experiment(**{"task.n": n, "width": n})) for n in (250, 260))
    assert engine.measures(small) == {"spectral_norm"}
    assert engine.measures(large) == frozenset()
