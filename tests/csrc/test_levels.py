"""Instruction set levels: which run, how one is chosen, and that each trains as torch does."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from jobs import PARITY, Shape, assert_same, clone, make_job, results, torch_train

SHAPES = [
    Shape(sizes=(3, 45, 21, 19), dtype="float64", models=2),
    Shape((50, 33, 10), vocabulary=None, classes=10, train=24, val=30, batch=8, loss="mse"),
]
# The net of modular arithmetic: full batches in blocks, and minibatches with a short one.
SUM = Shape(
    (45, 13),
    vocabulary=26,
    classes=13,
    train=509,
    val=50,
    activation="square",
    loss="mse",
    bias=False,
    activate_embedding=True,
    train_accuracy="after",
    models=3,
)
SUMS = [SUM, replace(SUM, train=50, batch=8, short_batch=True)]
# The net of sparse parity, and a deeper one with momentum.
NARROW = replace(PARITY, sizes=(50, 37, 1), val=30, norm_every=3, models=3)
SIGNS = [NARROW, replace(NARROW, sizes=(50, 37, 5, 1), momentum=0.9)]
NAMES = ["sum", "sum batches", "parity", "deep parity"]


@pytest.fixture(params=["baseline", "avx2", "avx512", "portable"])
def level(request, native):
    if request.param not in native.levels()["compiled"]:
        pytest.skip(f"level {request.param} is not compiled on this machine")
    if request.param not in native.levels()["runnable"]:
        pytest.skip(f"level {request.param} does not run on this machine")
    return request.param


@pytest.mark.parametrize("shape", SHAPES + SUMS + SIGNS, ids=["tokens", "dense", *NAMES])
def test_each_level_is_right(native, level, shape):
    ours = make_job(shape, 20, level=level)
    theirs = clone(ours)
    native.train(ours)
    torch_train(theirs)
    for field, expected in results(theirs).items():
        tolerance = 1e-6 if expected.dtype == np.float32 else 1e-10
        scale = max(np.nanmax(np.abs(expected)), 1e-8)
        np.testing.assert_allclose(
            results(ours)[field], expected, rtol=0, atol=tolerance * scale, err_msg=field
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [Shape(sizes=(1, 45, 21, 19), models=3), *SUMS, *SIGNS], ids=["tokens", *NAMES]
)
def test_each_level_is_invariant(native, level, shape, dtype):
    shape = replace(shape, dtype=dtype)
    whole, parts = (make_job(shape, 20, level=level) for _ in range(2))
    native.train(whole | {"threads": 2})
    for until in range(1, 21):
        for cell in (1, 2, 0):
            native.train(parts | {"until": until, "cells": np.array([cell], np.int32)})
    assert_same(whole, parts)


def in_subprocess(code, **env):
    return subprocess.run(
        [sys.executable, "-c", "from grokfast import _native; " + code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_chooses_the_level(native, level):
    got = in_subprocess("print(_native.levels()['active'])", GROKFAST_NATIVE_LEVEL=level)
    assert got.stdout.strip() == level, got.stderr


def test_the_widest_level_is_the_default(native):
    got = in_subprocess("print(_native.levels()['active'])", GROKFAST_NATIVE_LEVEL="")
    assert got.stdout.strip() == native.levels()["runnable"][-1], got.stderr


def test_an_unknown_level_is_refused(native):
    got = in_subprocess("_native.levels()", GROKFAST_NATIVE_LEVEL="mmx")
    known = ", ".join(native.levels()["compiled"])
    assert f"GROKFAST_NATIVE_LEVEL: got 'mmx', expected one of {known}" in got.stderr


def test_a_level_that_cannot_run_is_refused(native):
    levels = native.levels()
    missing = [name for name in levels["compiled"] if name not in levels["runnable"]]
    if not missing:
        pytest.skip("every compiled level runs on this machine")
    got = in_subprocess("_native.levels()", GROKFAST_NATIVE_LEVEL=missing[0])
    assert f"got '{missing[0]}', which does not run on this machine" in got.stderr
