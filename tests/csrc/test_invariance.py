"""A cell's bits depend on nothing but the cell: not on company, order, threads or chunks."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import Shape, assert_same, clone, make_job

UNTIL = 20
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
width = st.sampled_from([1, 2, 3, 7, 8, 16, 17, 25, 45, 129])


@st.composite
def shapes(draw):
    tokens = draw(st.booleans())
    depth = draw(st.integers(1, 4))
    sizes = [draw(width) for _ in range(depth)] + [draw(st.integers(2, 30))]
    batch = draw(st.sampled_from([1, 2, 9, 24, 45, 250]))
    one_output = draw(st.booleans())
    if one_output:
        sizes[-1] = 1
    loss = draw(st.sampled_from(["cross_entropy", "mse", "hinge"]))
    train_accuracy = draw(st.sampled_from(["running", "after"]))
    losses = ["before"] + ["after"] * (train_accuracy == "after")
    return Shape(
        sizes=tuple(sizes),
        vocabulary=draw(st.integers(1, 12)) if tokens else None,
        tokens=draw(st.integers(1, 3)),
        train=batch * draw(st.integers(1, 3)) + draw(st.sampled_from([0, 0, batch // 2])),
        val=draw(st.sampled_from([1, 3, 10, 250])),
        batch=draw(st.sampled_from([None, batch])),
        classes=draw(st.integers(1, sizes[-1] if loss == "cross_entropy" else 3)),
        activation=draw(st.sampled_from(["tanh", "relu", "leaky_relu", "square"])),
        loss=loss,
        predict=draw(st.sampled_from(["argmax", "nearest"] + ["sign"] * one_output)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        models=5,
        epochs=UNTIL,
        bias=draw(st.booleans()),
        activate_embedding=tokens and draw(st.booleans()),
        train_accuracy=train_accuracy,
        recorded_loss=draw(st.sampled_from(losses)),
        output_bias=draw(st.booleans()),
        optimizer=draw(st.sampled_from(["adamw", "sgd"])),
        momentum=draw(st.sampled_from([0.0, 0.9])),
        memorised=draw(st.booleans()),
        norm_every=0 if tokens else draw(st.sampled_from([0, 1, 7])),
        short_batch=draw(st.booleans()),
    )


@FEW
@given(shapes(), st.permutations(range(5)), st.integers(1, 4), st.integers(0, 5))
def test_company_order_and_threads(native, shape, order, threads, missing):
    alone, together = make_job(shape, UNTIL), make_job(shape, UNTIL)
    cells = [c for c in order if c != missing]
    for c in cells:
        native.train(alone | {"cells": np.array([c], np.int32)})
    native.train(together | {"cells": np.array(cells, np.int32), "threads": threads})
    assert_same(alone, together)


@FEW
@given(shapes(), st.sampled_from([1, 7, 1000]))
def test_chunks(native, shape, chunk):
    whole, parts = make_job(shape, UNTIL), make_job(shape, UNTIL)
    native.train(whole)
    for until in [*range(chunk, UNTIL, chunk), UNTIL]:
        native.train(parts | {"until": until})
    assert_same(whole, parts)


@FEW
@given(shapes(), st.data())
def test_order_is_read_from_its_first_epoch(native, shape, data):
    whole = make_job(shape, UNTIL)
    if whole["order"] is None:
        return
    parts = clone(whole)
    native.train(whole)
    per_epoch = whole["steps_per_epoch"]
    split = data.draw(st.integers(1, UNTIL - 1))
    native.train(parts | {"until": split})
    first = split // per_epoch
    order = np.ascontiguousarray(parts["order"][:, first:])
    native.train(parts | {"order": order, "first_epoch": first})
    assert_same(whole, parts)


@FEW
@given(shapes())
def test_poisoned_scratch_memory(native, shape):
    with pytest.MonkeyPatch.context() as patch:
        clean, poisoned = make_job(shape, UNTIL), make_job(shape, UNTIL)
        patch.setenv("GROKFAST_POISON", "0")
        native.train(clean)
        patch.setenv("GROKFAST_POISON", "1")
        native.train(poisoned)
    assert_same(clean, poisoned)


def test_a_thousand_steps_in_chunks(native):
    shape = Shape(sizes=(1, 33, 21, 19), dtype="float32", models=3)
    whole, parts = make_job(shape, 1000), make_job(shape, 1000)
    native.train(whole | {"threads": 2})
    for until in [*range(7, 1000, 7), 1000]:
        native.train(parts | {"until": until})
    assert_same(whole, parts)
