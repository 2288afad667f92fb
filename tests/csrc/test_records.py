"""What is counted, evaluated and recorded when, and where a cell ends."""

import numpy as np
import pytest
from jobs import Shape, assert_same, clone, make_job, results, torch_train

TOY = Shape(sizes=(2, 45, 8), vocabulary=6, classes=4, train=20, val=9, models=4, epochs=40)
MINI = Shape(**{**vars(TOY), "batch": 5})


def both(native, shape, until, seed=0, **changes):
    ours = make_job(shape, until, seed, **changes)
    theirs = clone(ours)
    native.train(ours)
    torch_train(theirs)
    return ours, theirs


def assert_agree(ours, theirs):
    for field, expected in results(theirs).items():
        if expected.size == 0:
            continue
        np.testing.assert_allclose(
            results(ours)[field], expected, rtol=1e-6, atol=1e-8, err_msg=field
        )


@pytest.mark.parametrize("shape", [TOY, MINI], ids=["full batch", "minibatch"])
def test_thresholds_are_met_at_the_same_step(native, shape):
    for need in (6, 8, 10):
        ours, theirs = both(native, shape, 60, need_train=need, need_val=3)
        assert (ours["t_train"] >= 0).any()
        assert_agree(ours, theirs)


@pytest.mark.parametrize("shape", [TOY, MINI], ids=["full batch", "minibatch"])
def test_a_finished_cell_is_left_alone(native, shape):
    ours, theirs = both(native, shape, 100, need_train=8, need_val=3, stop=True)
    finished = (ours["t_train"] >= 0) & (ours["t_val"] >= 0)
    assert finished.any()
    last = np.maximum(ours["t_train"], ours["t_val"])
    np.testing.assert_array_equal(ours["step"][finished], last[finished])
    assert_agree(ours, theirs)
    again = clone(ours)
    native.train(again)
    assert_same(ours, again, cells=finished)


@pytest.mark.parametrize("shape", [TOY, MINI], ids=["full batch", "minibatch"])
def test_evaluation_on_a_schedule(native, shape):
    schedule = np.array([4, 8, 20, 24, 48], np.int64)
    curve = np.array([8, 48], np.int64)
    ours, theirs = both(
        native,
        shape,
        60,
        eval_steps=schedule,
        curve_steps=curve,
        need_train=8,
        need_val=3,
        **{
            k: np.full((4, 2), np.nan, np.float32)
            for k in ("train_loss", "val_loss", "train_acc", "val_acc")
        },
    )
    assert set(ours["t_train"]) <= {-1, *schedule}
    assert_agree(ours, theirs)
    chunked = clone(theirs)
    fresh = make_job(shape, 60, eval_steps=schedule, curve_steps=curve, need_train=8, need_val=3)
    for k in ("train_loss", "val_loss", "train_acc", "val_acc"):
        fresh[k] = np.full((4, 2), np.nan, np.float32)
    for until in (3, 8, 47, 48, 60):
        native.train(fresh | {"until": until})
    assert_same(ours, fresh)
    assert_agree(fresh, chunked)


AFTER = {
    **vars(TOY),
    **{"train_accuracy": "after", "bias": False, "activate_embedding": True, "loss": "mse"},
}


@pytest.mark.parametrize(
    "shape",
    [
        Shape(**AFTER),
        Shape(**AFTER | {"batch": 3}),
        Shape(**AFTER | {"batch": 3, "short_batch": True}),
        Shape(**vars(TOY) | {"batch": 3, "short_batch": True}),
    ],
    ids=["full batch", "dropped remainder", "short batch", "running"],
)
def test_evaluation_within_an_epoch(native, shape):
    schedule = np.array([1, 4, 5, 13, 14, 40], np.int64)
    curves = ("train_loss", "val_loss", "train_acc", "val_acc")
    ours, theirs = both(
        native,
        shape,
        41,
        eval_steps=schedule,
        curve_steps=schedule,
        need_train=6,
        need_val=3,
        need_train_more=np.array([0, 5, 8, 21], np.int64),
        need_val_more=np.array([1, 2, 4, 10], np.int64),
        train_crossings=np.full((4, 4), -1, np.int64),
        val_crossings=np.full((4, 4), -1, np.int64),
        **{k: np.full((4, 6), np.nan, np.float32) for k in curves},
    )
    assert_agree(ours, theirs)
    for name, most in (("train", 20), ("val", 9)):
        crossings = ours[f"{name}_crossings"]
        assert (crossings[:, -1] == -1).all()  # more than there are
        assert set(crossings.ravel()) <= {-1, *schedule}
        assert (ours[f"best_{name}_correct"] >= ours[f"{name}_correct"]).all()
        assert (ours[f"{name}_correct"] >= 0).all()
        assert (ours[f"best_{name}_correct"] <= most).all()
    assert (ours["train_crossings"][:, 0] == 1).all()


def test_no_further_thresholds(native):
    none = {f"need_{k}_more": np.zeros(0, np.int64) for k in ("train", "val")} | {
        f"{k}_crossings": np.zeros((4, 0), np.int64) for k in ("train", "val")
    }
    with_some, without = make_job(TOY, 10), make_job(TOY, 10, **none)
    native.train(with_some)
    native.train(without)
    np.testing.assert_array_equal(with_some["best_val_correct"], without["best_val_correct"])


@pytest.mark.parametrize("shape", [TOY, MINI], ids=["full batch", "minibatch"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_diverged_cell_is_frozen_and_harms_no_other(native, shape, loss):
    shape = Shape(**{**vars(shape), "dtype": "float32", "loss": loss, "activation": "relu"})
    good = make_job(shape, 30)
    bad = clone(good)
    bad["lr"][:, 1] = 1e30
    bad["lr"][:, 2] = np.inf
    native.train(good)
    native.train(bad)
    assert (bad["diverged_at"][[1, 2]] > 0).all()
    np.testing.assert_array_equal(bad["step"][[1, 2]], bad["diverged_at"][[1, 2]] - 1)
    assert_same(good, bad, cells=[0, 3])
    frozen = clone(bad)
    native.train(frozen | {"until": 40})
    assert_same(bad, frozen, cells=[1, 2])
    # Frozen where a run up to the step before would have ended.
    short = make_job(shape, 30)
    short["lr"][:, 1] = 1e30
    short["cells"] = np.array([1], np.int32)
    short["until"] = int(bad["step"][1])
    if short["until"]:
        native.train(short)
        for a, b in zip(short["params"], bad["params"], strict=True):
            np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("predict", ["argmax", "nearest"])
def test_ties_go_to_the_first_class(native, predict):
    job = make_job(Shape(**{**vars(TOY), "loss": "mse", "predict": predict}), 1)
    for p in job["params"]:
        p[:] = 0
    job["targets"][:] = job["targets"][:, :1]
    native.train(job)
    first = (job["y_train"] == 0).sum(1)[job["data_index"]]
    np.testing.assert_array_equal(job["epoch_correct"], first)


def test_cells_at_their_end_are_skipped(native):
    job = make_job(TOY, 10)
    job["step"][:] = [10, 12, 0, 0]
    job["diverged_at"][2] = 5
    before = clone(job)
    native.train(job)
    assert_same(before, job, cells=[0, 1, 2])
    assert job["step"][3] == 10


def test_cells_not_listed_are_not_touched(native):
    job = make_job(TOY, 10)
    before = clone(job)
    native.train(job | {"cells": np.array([2], np.int32)})
    assert_same(before, job, cells=[0, 1, 3])
    native.train(job | {"cells": np.array([], np.int32)})
    assert_same(before, job, cells=[0, 1, 3])
