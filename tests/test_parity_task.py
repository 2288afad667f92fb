"""Sparse parity: what is drawn, forever the same; what is flipped; which sets a seed redraws."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.errors import UsageError
from grokfast.tasks import Parity

#: Inputs and labels of both sets in one digest.
FINGERPRINTS = {
    "default": ({}, "7232554a64cc5cdb"),
    "noisy": ({"flip": 0.2, "seed": 3}, "52f047dbb666a89d"),
    "k = 3": ({"k": 3, "train_size": 1000}, "d3cf9d782833ccba"),
    "both": ({"redraw": "both", "seed": 1}, "14297ff6607517b9"),
}


def fingerprint(data) -> str:
    digest = hashlib.sha256()
    for name in ("x_train", "y_train", "x_val", "y_val"):
        digest.update(getattr(data, name).numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_sets_are_the_same_forever(name):
    fields, digest = FINGERPRINTS[name]
    assert fingerprint(Parity(**fields).build()) == digest


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_labels_are_the_product_of_the_first_k_signs(k):
    data = Parity(n=7, k=k, train_size=200, val_size=90).build()
    assert data.x_train.shape == (200, 7) and data.x_val.shape == (90, 7)
    assert data.x_train.dtype == torch.float32 and data.y_train.dtype == torch.int64
    for x, y in ((data.x_train, data.y_train), (data.x_val, data.y_val)):
        assert x.abs().eq(1).all()
        product = [int(np.prod([float(v) for v in row[:k]])) for row in x]
        # of the class's target, too
        assert data.targets[y][:, 0].tolist() == product
    assert data.num_classes == 2 and data.targets.tolist() == [[-1], [1]]


def test_signs_are_fair_and_independent():
    x = Parity(n=20, train_size=20_000).build().x_train.double()
    covariance = x.T @ x / len(x)  # of independent signs the identity, to 1 / sqrt(20,000)
    assert (covariance - torch.eye(20)).abs().max() < 5 / len(x) ** 0.5
    assert x.mean(0).abs().max() < 5 / len(x) ** 0.5


@pytest.mark.parametrize("flip", [0.0, 0.05, 0.2, 0.7, 1.0])
def test_training_labels_are_flipped_at_the_rate_and_validation_labels_never(flip):
    data = Parity(train_size=10_000, flip=flip).build()
    wrong = data.y_train != data.y_clean
    assert torch.equal(wrong, data.corrupted)
    deviation = (flip * (1 - flip) / 10_000) ** 0.5
    assert abs(float(wrong.double().mean()) - flip) <= 5 * deviation
    clean = Parity(train_size=10_000).build()
    assert torch.equal(data.x_train, clean.x_train) and torch.equal(data.y_clean, clean.y_train)
    assert torch.equal(data.x_val, clean.x_val) and torch.equal(data.y_val, clean.y_val)


def test_larger_sets_begin_with_smaller_ones_and_larger_rates_flip_what_smaller_ones_do():
    small, large = (Parity(train_size=size, flip=0.1).build() for size in (300, 1000))
    for name in ("x_train", "y_train", "corrupted"):
        assert torch.equal(getattr(large, name)[:300], getattr(small, name))
    few, many = (Parity(flip=flip).build().corrupted for flip in (0.1, 0.2))
    assert few.sum() < many.sum() and not (few & ~many).any()


def test_a_seed_redraws_the_training_set_or_both():
    def sets(**fields):
        data = Parity(**fields).build()
        return data.x_train, data.x_val

    train, test = sets(seed=1)
    again, same = sets(seed=2)
    assert not torch.equal(train, again) and torch.equal(test, same)
    whole, own = sets(seed=1, redraw="both")
    assert torch.equal(whole, train) and not torch.equal(own, test)
    assert not torch.equal(own, sets(seed=2, redraw="both")[1])
    # Never the same rows in both, as they would be from one stream.
    assert not any(torch.equal(row, other) for row in train for other in (*test, *own))


def test_one_seed_is_a_run_or_the_model_has_its_own():
    model = gf.Mlp(width=4, depth=2, seed=None)
    e = gf.Experiment(task=Parity(n=5), model=model, loss="hinge", predict="sign", steps=10)
    runs = [e.replace(data_seed=seed, **{"task.flip": f}) for seed in (1, 2) for f in (0.0, 0.1)]
    (bucket,) = make_buckets(runs, range(4))
    assert bucket.data_index.tolist() == [0, 1, 2, 3]
    assert bucket.init_index.tolist() == [0, 0, 1, 1]  # what is flipped moves no initial value
    seeded = [e.replace(data_seed=seed, model_seed=seed) for seed in (1, 2)]
    (apart,) = make_buckets(seeded, range(2))
    for own, same in zip(bucket.init, apart.init, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(own, same, strict=True))
    (mixed,) = make_buckets([e.replace(data_seed=1, model_seed=2)], [0])
    assert torch.equal(mixed.x_train[0], bucket.x_train[0])
    assert torch.equal(mixed.init[0][0], bucket.init[1][0])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"k": 51}, "task.k is 51; give 1 to 50, which task.n is"),
        ({"k": 0}, "task.k is 0; give 1 to 50"),
        ({"n": 0}, "task.n is 0; give a finite value of 1"),
        ({"flip": 1.5}, "task.flip is 1.5; give 0 to 1"),
        ({"flip": -0.1}, "task.flip is -0.1; give 0 to 1"),
        ({"flip": float("nan")}, "task.flip is nan; give 0 to 1"),
        ({"train_size": 0}, "task.train_size is 0; give a finite value of 1"),
        ({"val_size": 0}, "task.val_size is 0; give a finite value of 1"),
        ({"redraw": "test"}, "task.redraw is 'test'; give one of train, both"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, says):
    e = gf.Experiment(task=Parity())
    with pytest.raises(UsageError, match=says) as caught:
        e.replace(**{f"task.{name}": value for name, value in fields.items()})
    assert "\n" not in str(caught.value)
