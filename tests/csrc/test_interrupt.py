"""Stopping a call: by a tick's answer, by what it raises, by a signal.

The jobs here never end by themselves: that a call returns is what is tested.
"""

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
        calls.append(done)
        return len(calls) >= 3

    native.train(job | {"tick": tick})
    # Once told to stop, workers end the step they are in, however many looks that takes.
    assert len(calls) >= 3
    assert calls == sorted(calls)
    assert 0 < calls[2] <= job["step"].sum()

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
def test_control_c_at_the_next_look(native, shape):
    job, looks, sent = endless(shape, threads=2), [], []

    def send():
        while not any(looks):  # until some step is done
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        sent.append(len(looks))

    sender = threading.Thread(target=send)
    # A shell starts its background jobs with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            # A tick without a line of Python, in which the interpreter would see the signal itself.
            native.train(job | {"tick": looks.append})
        sender.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(looks) - sent[0] <= 1  # the system may be slow to deliver it, but not two looks slow
    assert 0 < job["step"].sum() < FOREVER


def test_other_python_threads_go_on(native):
    job, counted, seen = endless(TOY), [], []

    def count():
        for _ in range(100):
            time.sleep(0.001)
            counted.append(None)

    other = threading.Thread(target=count)

    def tick(done):
        seen.append(len(counted))
        if other.ident is None:
            other.start()
        return not other.is_alive()

    native.train(job | {"tick": tick})
    # At a look itself it gets a turn, too, but one.
    assert np.diff([*seen, len(counted)]).max() > 1
