"""Stopping a call: by a tick's answer, by what it raises, by a signal."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from jobs import Shape, assert_same, clone, make_job

FOREVER = 1 << 40
TOY = Shape(dtype="float32", models=4)
MNIST = Shape(
    sizes=(784, 200, 200, 10),
    vocabulary=None,
    classes=10,
    train=1000,
    val=1000,
    batch=200,
    activation="relu",
    loss="mse",
    dtype="float32",
    models=2,
    epochs=4000,
)


def endless(shape, **changes):
    job = make_job(shape, 1, **changes)
    job["until"] = FOREVER if shape.batch is None else shape.epochs * 5
    job["curve_steps"] = np.array([], np.int64)
    for k in ("train_loss", "val_loss", "train_acc", "val_acc"):
        job[k] = np.zeros((shape.models, 0), np.float32)
    return job


@pytest.mark.parametrize("shape", [TOY, MNIST], ids=["toy", "mnist"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_tick_stops_the_workers_and_the_rest_goes_on(native, shape, threads):
    job, calls = endless(shape, threads=threads), []

    def tick(done):
        calls.append((time.perf_counter(), done))
        return len(calls) == 3

    native.train(job | {"tick": tick})
    assert time.perf_counter() - calls[-1][0] < 1
    assert len(calls) == 3
    assert [done for _, done in calls] == sorted(done for _, done in calls)
    assert 0 < calls[-1][1] <= job["step"].sum()

    straight, parts = endless(shape), clone(job)
    for m in range(shape.models):
        if job["step"][m]:
            alone = {"cells": np.array([m], np.int32), "until": int(job["step"][m])}
            native.train(straight | alone)
    assert_same(straight, job)
    later = int(job["step"].max()) + 3
    native.train(straight | {"until": later})
    native.train(parts | {"until": later})
    assert_same(straight, parts)


def test_what_a_tick_raises_comes_through(native):
    job = endless(TOY)

    def tick(done):
        raise LookupError("from the tick")

    with pytest.raises(LookupError, match="from the tick"):
        native.train(job | {"tick": tick})
    assert 0 < job["step"].sum() < FOREVER
    assert all(np.isfinite(p).all() for p in job["params"])


@pytest.mark.parametrize("shape", [TOY, MNIST], ids=["toy", "mnist"])
def test_control_c_within_a_second(native, shape):
    job = endless(shape, threads=2)
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, send)
    # A shell starts its background jobs with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            native.train(job)
        assert time.perf_counter() - sent[0] < 1
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_python_threads_go_on(native):
    job, counted = endless(TOY), []
    other = threading.Thread(target=lambda: counted.extend(time.sleep(0.01) for _ in range(20)))
    start = time.perf_counter()
    native.train(
        job | {"tick": lambda done: other.start() if other.ident is None else not other.is_alive()}
    )
    assert len(counted) == 20
    assert time.perf_counter() - start < 5
