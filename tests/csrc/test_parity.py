"""Training against autograd and ``torch.optim``: losses, parameters and all slots."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from jobs import ACTIVATIONS, PARITY, SLOTS, Shape, clone, make_job, results, torch_train

DENSE = {"vocabulary": None, "classes": 10, "loss": "mse", "activation": "relu"}
SHAPES = {
    "toy": Shape(),
    "toy mse": Shape(sizes=(1, 200, 200, 30), loss="mse", predict="nearest"),
    "mnist": Shape((784, 200, 200, 10), train=100, val=300, batch=20, **DENSE),
    "odd": Shape((45, 129, 33, 10), train=40, val=100, batch=8, **DENSE),
    "ones": Shape((2, 1, 1, 1, 3), vocabulary=None, classes=3, train=1, val=1),
    "depth 1": Shape((1, 5), classes=5),
    "one batch of all": Shape((784, 10), train=200, val=100, batch=200, epochs=30, **DENSE),
    "deep tokens": Shape((13, 17, 9, 8, 5), 7, tokens=3, classes=5, train=20, val=1, batch=10),
    "one token": Shape((3, 7, 2), classes=2, tokens=1),
    "mse argmax": Shape((4, 45, 6), classes=6, loss="mse"),
    "ce nearest": Shape((4, 2, 6), classes=5, predict="nearest"),
    "big batch": Shape((16, 45, 12), classes=12, train=700, val=400),
} | {
    name: Shape((6, 33, 17, 8), classes=8, activation=name, loss="mse", predict="nearest")
    for name in ACTIVATIONS
}

SUM = {"vocabulary": 26, "classes": 13, "activate_embedding": True, "train_accuracy": "after"}
MODULAR = {**SUM, "bias": False, "loss": "mse", "activation": "square"}
SHAPES |= {
    "modular": Shape((45, 13), train=85, val=84, **MODULAR),
    "modular in blocks": Shape((45, 13), train=509, val=531, **MODULAR),
    "modular batches": Shape((129, 13), train=85, val=84, batch=8, **MODULAR),
    "modular short batch": Shape((129, 13), train=85, val=9, batch=8, short_batch=True, **MODULAR),
    "narrow": Shape((1, 13), train=85, val=84, **MODULAR),
    "summed embeddings": Shape((3, 13), 7, tokens=3, classes=13, bias=False),
    "rows of embeddings": Shape((33, 13), 7, tokens=3, classes=13, train=250, val=20),
    "no bias": Shape((20, 17, 10), train=50, val=30, batch=7, bias=False, **DENSE),
    "large batches": Shape((20, 17, 10), train=600, val=9, batch=250, short_batch=True, **DENSE),
} | {
    f"{name} of embeddings, {loss}, {predict}": Shape(
        (17, 21, 13), train=45, val=10, activation=name, loss=loss, predict=predict, **SUM
    )
    for name in ACTIVATIONS
    for loss in ("mse", "cross_entropy")
    for predict in ("argmax", "nearest")
}

SHAPES |= {
    "parity": PARITY,
    "parity with momentum": replace(PARITY, momentum=0.9),
    "parity with adamw": replace(PARITY, optimizer="adamw"),
    "parity with all biases": replace(PARITY, output_bias=True),
    "parity without bias": replace(PARITY, bias=False),
    "parity of a full batch": replace(PARITY, batch=None),
    "parity, loss before": replace(PARITY, batch=None, recorded_loss="before"),
    "parity in blocks": replace(PARITY, train=509, batch=250, val=300),
    "parity in full blocks": replace(PARITY, train=509, batch=None, val=300),
    "parity without hidden layer": replace(PARITY, sizes=(50, 1)),
    "deep parity": replace(PARITY, sizes=(50, 33, 17, 1)),
    "hinge of several outputs": replace(PARITY, sizes=(50, 33, 5), predict="nearest", classes=5),
    "sign of embeddings": replace(
        PARITY, sizes=(33, 1), vocabulary=7, activate_embedding=True, norm_every=0
    ),
    "norms": replace(PARITY, sizes=(50, 7, 5, 1), norm_every=1),
    "norms of one": replace(PARITY, sizes=(1, 9, 3), predict="nearest", classes=3, norm_every=3),
    "momentum of embeddings": Shape((17, 21, 13), optimizer="sgd", momentum=0.9, classes=13),
} | {
    f"one output of {name}": replace(PARITY, activation=name, loss="mse", momentum=0.5)
    for name in ACTIVATIONS
}


def rms(x):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


@pytest.mark.parametrize("name", SHAPES)
def test_float64_training_is_that_of_torch(native, name):
    ours = make_job(SHAPES[name], until=24, seed=1)
    theirs = clone(ours)
    native.train(ours)
    torch_train(theirs)
    for field, expected in results(theirs).items():
        actual = results(ours)[field]
        if expected.size == 0:
            continue
        # Sums in another order, carried through 24 steps; the curves are stored in float32.
        tolerance = 1e-6 if expected.dtype == np.float32 else 1e-10
        scale = max(np.nanmax(np.abs(expected)), 1e-8)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=field)


@pytest.mark.parametrize("name", SHAPES)
def test_float32_is_as_good_as_torch(native, name):
    # Adam divides tiny gradients by their own size: with the usual eps a rounding error of any one
    # of them becomes a full step. A larger eps leaves the same formulas well conditioned.
    shape = Shape(**{**vars(SHAPES[name]), "dtype": "float32", "models": 4})
    ours = make_job(shape, until=24, seed=2, eps=1e-3)
    theirs, exact = clone(ours), clone(ours)
    for field in ("params", *SLOTS[shape.optimizer]):
        exact[field] = [x.astype(np.float64) for x in exact[field]]
    native.train(ours)
    torch_train(theirs)
    torch_train(exact, torch.float64)
    for field, expected in results(exact).items():
        if expected.size == 0 or field.endswith(("acc", "correct", "crossings")):
            continue  # counts: where two outputs are as good as equal, rounding decides
        actual, other = results(ours)[field], results(theirs)[field]
        floor = 4 * np.finfo(np.float32).eps * rms(expected)
        assert rms(actual - expected) <= 2 * rms(other - expected) + floor, field


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_gradients_are_as_good_as_those_of_torch(native, activation):
    # After one step the first moment is the gradient, times 0.1.
    shape = Shape(dtype="float32", models=8, activation=activation)
    ours = make_job(shape, until=1, seed=3)
    theirs, exact = clone(ours), clone(ours)
    for field in ("params", "exp_avg", "exp_avg_sq"):
        exact[field] = [x.astype(np.float64) for x in exact[field]]
    native.train(ours)
    torch_train(theirs)
    torch_train(exact, torch.float64)
    for g, expected in enumerate(exact["exp_avg"]):
        floor = np.finfo(np.float32).eps * rms(expected)
        ours_off, theirs_off = (rms(job["exp_avg"][g] - expected) for job in (ours, theirs))
        assert ours_off <= 2 * theirs_off + floor, g


def test_tanh_never_passes_one(native):
    # Where it rounds to 1, a value above would turn the sign of its slope 1 - h^2. One unit, one
    # token a sample, all outputs above their targets: no gradient of the embedding is negative.
    n = 4096
    shape = Shape((1, 1, 1), n, tokens=1, train=n, classes=1, loss="mse", dtype="float32", models=1)
    job = make_job(shape, until=1)
    embedding, w0, b0, w1, b1 = job["params"]
    embedding[0, :, 0] = np.linspace(6, 10, n)
    w0[:], b0[:], w1[:], b1[:] = 1, 0, 1, 0
    job["targets"][:] = -10
    job["x_train"][:, :, 0] = np.arange(n)
    native.train(job)
    assert job["exp_avg"][0].min() >= 0
    assert job["exp_avg"][0][0, 0, 0] > 0


def test_subnormal_state_is_zero_in_the_workers_only(native):
    job = make_job(Shape(dtype="float32"), until=3, seed=5)
    for v in job["exp_avg_sq"]:
        v[:] = 1e-42
    other = clone(job)
    for v in other["exp_avg_sq"]:
        v[:] = 0
    native.train(job)
    native.train(other)
    for a, b in zip(job["params"], other["params"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.float32(1e-42) * np.float32(1) > 0, "the caller's own arithmetic was changed"


@pytest.mark.parametrize("predict", ["argmax", "nearest"])
def test_the_first_of_equal_scores_is_predicted(native, predict):
    # All outputs are 0; where the nearest target counts, all targets are as far away.
    shape = Shape((4, 9, 5), classes=5, loss="mse", predict=predict, dtype="float32")
    ours = make_job(shape, until=2)
    for tensor in (*ours["params"], ours["lr"]):
        tensor[:] = 0
    ours["targets"][:] = 1
    theirs = clone(ours)
    native.train(ours)
    torch_train(theirs)
    expected = (ours["y_train"] == 0).mean(1)[ours["data_index"]]
    assert expected.min() > 0
    np.testing.assert_allclose(ours["train_acc"][:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(ours["train_acc"], theirs["train_acc"])
    np.testing.assert_array_equal(ours["val_acc"], theirs["val_acc"])
