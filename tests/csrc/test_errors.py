"""Malformed jobs: an error that names the field, what was given and what is expected."""

import re

import numpy as np
import pytest
from jobs import SLOTS, Shape, clone, make_job, results

TOY = Shape(sizes=(2, 5, 4), vocabulary=3, classes=4, train=6, val=3, models=2, epochs=4)
MINI = Shape(**{**vars(TOY), "batch": 3})
NORM = Shape(**{**vars(TOY), "vocabulary": None, "norm_every": 1})
SGD = Shape(**{**vars(TOY), "optimizer": "sgd"})


def item(field, g, change):
    return lambda job: job[field].__setitem__(g, change(job[field][g]))


def put(field, value):
    return lambda job: job.__setitem__(field, value(job[field]) if callable(value) else value)


def poke(field, index, value):
    return lambda job: job[field].__setitem__(index, value)


def transposed(a):
    return np.ascontiguousarray(a.T).T


def misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.uint8)
    return np.frombuffer(raw.data, a.dtype).reshape(a.shape)


def read_only(a):
    a.flags.writeable = False
    return a


CASES = {
    "missing": (TOY, lambda job: job.pop("lr"), "lr: got no such key, expected"),
    "dtype": (TOY, put("dtype", "float16"), "dtype: got 'float16', expected one of 'float32'"),
    "activation": (TOY, put("activation", "gelu"), "activation: got 'gelu', expected one of"),
    "loss": (TOY, put("loss", 3), "loss: got 3, expected one of"),
    "predict": (TOY, put("predict", "best"), "predict: got 'best', expected one of"),
    "optimizer": (TOY, put("optimizer", "lion"), "optimizer: got 'lion', expected one of 'adamw'"),
    "sign": (
        TOY,
        put("predict", "sign"),
        "predict: got 'sign', expected 'argmax' or 'nearest'",
    ),
    "hinge": (TOY, lambda j: j.update(loss="hinge", targets=None), "targets: got None, expected"),
    "momentum": (SGD, put("momentum", 1.0), "momentum: got 1.0, expected a number in [0"),
    "slots": (
        SGD,
        put("momentum_buffer", lambda p: p[:-1]),
        "momentum_buffer: got 4 items",
    ),
    "slots of another": (SGD, put("optimizer", "adamw"), "exp_avg: got no such key, expected"),
    "output bias": (TOY, put("output_bias", False), "params: got 5 items, expected a list of 4"),
    "memorised": (
        TOY,
        put("weight_decay_memorised", np.zeros((5, 3))),
        "weight_decay_memorised: got float64 [5, 3], expected a C-contiguous float64 array [5, 2]",
    ),
    "norms of tokens": (
        TOY,
        put("norm_steps", np.array([1])),
        "norm_steps: got an array, expected None for a model with embedding",
    ),
    "norms": (
        NORM,
        put("norm_steps", np.array([1])),
        "spectral_norm: got float32 [2, 6]",
    ),
    "recorded loss": (TOY, put("recorded_loss", "last"), "recorded_loss: got 'last', expected one"),
    "recorded after": (
        TOY,
        put("recorded_loss", "after"),
        "recorded_loss: got 'after', expected 'before' with a running train_accuracy",
    ),
    "no layers": (TOY, put("sizes", [2]), "sizes: got [2], expected a list of 2 to 5 ints"),
    "too deep": (TOY, put("sizes", [2] * 6), "sizes: got [2, 2, 2, 2, 2, 2], expected a list"),
    "width 0": (TOY, put("sizes", [2, 0, 4]), "sizes[1]: got 0, expected an int of 1"),
    "huge": (TOY, put("sizes", [2, 1 << 70, 4]), "sizes[1]: got 1180591620717411303424"),
    "embedding": (TOY, put("embedding", (3, 5)), "embedding[1]: got 5, expected an int of 2 to 2"),
    "beta": (TOY, put("beta1", 1.0), "beta1: got 1.0, expected a number in [0"),
    "beta nan": (TOY, put("beta2", float("nan")), "beta2: got nan, expected"),
    "list short": (TOY, put("params", lambda p: p[:-1]), "params: got 4 items, expected a list"),
    "shape": (TOY, item("params", 1, lambda a: a[:, :4].copy()), "params[1]: got float64 [2, 4, "),
    "real": (
        TOY,
        item("exp_avg", 0, lambda a: a.astype(np.float32)),
        "exp_avg[0]: got float32 [2, 3, 2], expected a C-contiguous float64 array [2, 3, 2]",
    ),
    "byte order": (TOY, put("lr", lambda a: a.astype(">f8")), "lr: got >f8 [5, 2], expected"),
    "contiguity": (TOY, item("params", 0, transposed), "params[0]: got an array that is not C-"),
    "alignment": (TOY, put("x_train", misaligned), "x_train: got an array that is not aligned"),
    "read-only": (TOY, put("step", read_only), "step: got a read-only array, expected"),
    "token": (TOY, poke("x_train", (1, 5, 1), 3), "x_train: got 3 at flat index 23, expected"),
    "token < 0": (TOY, poke("x_val", (0, 0, 0), -1), "x_val: got -1 at flat index 0"),
    "label": (TOY, poke("y_train", (0, 1), 4), "y_train: got 4 at flat index 1, expected"),
    "label val": (TOY, poke("y_val", (0, 1), -2), "y_val: got -2 at flat index 1"),
    "data set": (TOY, poke("data_index", 1, 2), "data_index: got 2 at flat index 1, expected"),
    "no val": (TOY, put("x_val", lambda a: a[:, :0].copy()), "x_val: got [2, 0, 2], expected"),
    "targets": (TOY, lambda j: j.update(loss="mse", targets=None), "targets: got None, expected"),
    "classes": (TOY, put("num_classes", 5), "num_classes: got 5, expected at most the 4 outputs"),
    "activated": (
        Shape(**{**vars(TOY), "vocabulary": None}),
        put("activate_embedding", True),
        "activate_embedding: got True, expected False for a model without embedding",
    ),
    "bias": (TOY, put("bias", False), "params: got 5 items, expected a list of 3 arrays"),
    "steps few": (MINI, put("steps_per_epoch", 1), "steps_per_epoch: got 1, expected an int of 2"),
    "steps many": (MINI, put("steps_per_epoch", 3), "steps_per_epoch: got 3, expected an int of 2"),
    "steps rest": (
        MINI,
        lambda j: j.update(batch_size=4, steps_per_epoch=3),
        "steps_per_epoch: got 3, expected an int of 1 to 2",
    ),
    "accuracy": (TOY, put("train_accuracy", "before"), "train_accuracy: got 'before', expected"),
    "needs": (
        TOY,
        put("need_val_more", lambda a: a[:1].copy()),
        "need_val_more: got int64 [1], expected a C-contiguous int64 array [2]",
    ),
    "crossings": (
        TOY,
        put("train_crossings", lambda a: a[:, :1].copy()),
        "train_crossings: got int64 [2, 1], expected a C-contiguous int64 array [2, 2] to write",
    ),
    "best": (TOY, put("best_val_correct", read_only), "best_val_correct: got a read-only array"),
    "batch big": (TOY, put("batch_size", 12), "batch_size: got 12, expected an int of 1 to 6"),
    "no order": (
        TOY,
        lambda j: j.update(batch_size=3, steps_per_epoch=2),
        "order: got None, expected an array",
    ),
    "order row": (MINI, poke("order", (0, 1, 2), 6), "order: got 6 at flat index 8, expected"),
    "order index": (MINI, poke("order_index", 0, 2), "order_index: got 2 at flat index 0"),
    "order ends": (MINI, put("until", 9), "order: got epochs 0 to 3, expected epochs 0 to 4"),
    "order late": (MINI, put("first_epoch", 1), "order: got epochs 1 to 4, expected epochs 0 to"),
    "cell": (TOY, put("cells", np.array([0, 2], np.int32)), "cells: got 2 at flat index 1"),
    "cell twice": (TOY, put("cells", np.array([1, 1], np.int32)), "cells: got cell 1 twice"),
    "step": (TOY, poke("step", 1, -1), "step: got -1 of cell 1, expected at least 0"),
    "eval steps": (TOY, put("eval_steps", np.array([2, 2])), "eval_steps: got 2 after 2, expected"),
    "curve": (TOY, put("val_acc", lambda a: a[:, :1].copy()), "val_acc: got float32 [2, 1]"),
    "threads": (TOY, put("threads", 0), "threads: got 0, expected an int of 1"),
    "level": (TOY, put("level", "mmx"), "level: got 'mmx', expected one of"),
}
TYPES = {
    "no list": (put("sizes", 3), "sizes: got 3, expected a list of 2 to 5 ints"),
    "no int": (put("until", 2.5), "until: got 2.5, expected an int of"),
    "no number": (put("eps", "small"), "eps: got 'small', expected a number"),
    "no bool": (put("stop", 1), "stop: got 1, expected a bool"),
    "no bias": (put("bias", None), "bias: got None, expected a bool"),
    "no array": (put("lr", [[1.0]]), "lr: got <class 'list'>, expected a C-contiguous float64"),
    "no arrays": (put("exp_avg", None), "exp_avg: got None, expected a list of 5 arrays"),
    "no name": (put("level", 3), "level: got 3, expected None or a str"),
    "no call": (put("tick", 3), "tick: got 3, expected None or a callable"),
    "no pair": (put("embedding", 3), "embedding: got 3, expected None or (P, E)"),
}


def check(native, shape, change, error, message):
    job = make_job(shape, 6)
    change(job)
    whole = all(isinstance(job.get(name), list) for name in SLOTS.get(job["optimizer"], [None]))
    before = clone(job) if "lr" in job and whole else None
    for call in (native.train, native.scratch_bytes):
        if call is native.scratch_bytes and message.startswith("level: got 'mmx'"):
            continue
        with pytest.raises(error, match=re.escape(message)):
            call(job)
    if before is not None:
        for field, values in results(before).items():
            np.testing.assert_array_equal(results(job)[field], values)


@pytest.mark.parametrize("name", CASES)
def test_values(native, name):
    shape, change, message = CASES[name]
    check(native, shape, change, ValueError, message)


@pytest.mark.parametrize("name", TYPES)
def test_types(native, name):
    change, message = TYPES[name]
    check(native, TOY, change, TypeError, message)


def test_a_job_is_a_dict(native):
    with pytest.raises(TypeError):
        native.train(3)


def test_scratch_bytes_grow_with_the_network(native):
    small, large = (
        native.scratch_bytes(make_job(Shape(sizes=(1, h, h, 19), dtype="float32"), 1))
        for h in (20, 200)
    )
    state = 12 * 200 * 200
    assert small < large < 2 * state


def test_peak(native):
    assert all(native.peak(seconds=0.01, dtype=f"float{bits}") > 0 for bits in (32, 64))
    with pytest.raises(ValueError, match="dtype: got 'int8', expected 'float32' or 'float64'"):
        native.peak(dtype="int8")
    with pytest.raises(ValueError, match="seconds: got 0"):
        native.peak(seconds=0)
