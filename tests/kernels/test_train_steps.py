"""Whole cells against plain torch: every weight, moment, counter and record the contract names.

In float64, where a mistake cannot hide behind rounding, and in float32 to a derived tolerance.
"""

import pytest
import torch
from plain_training import assert_as_good, clone
from plain_training import train as plain_train
from small_jobs import addition, make_job

from grokfast import kernels

# Several tiles in every direction; and few with tails, or one alone.
SMALL = kernels.Tiles(edge=16, depth=16, rows=16, warps=4, stages=1)
WIDE = kernels.Tiles(edge=32, depth=32, rows=32, warps=4, stages=2, anew=True)

# Addition of two digits as tokens m and p + n: act(E[m] + E[p + n]), then a linear layer.
MODULAR = {"sizes": (18, 7), "embedding": (14, 18), "activation": "square", "bias": False,
           "activate_embedding": True, "loss": "mse", "train": 25, "val": 24}  # fmt: skip

CASES = {
    "cross-entropy": {},
    "mse, nearest": {"loss": "mse", "predict": "nearest", "classes": 9, "activation": "relu"},
    "cross-entropy, nearest": {"predict": "nearest", "sizes": (2, 21, 3), "embedding": (4, 2)},
    "mse, argmax": {"loss": "mse", "activation": "leaky_relu", "sizes": (2, 9, 5),
                    "embedding": (4, 2)},
    "tails": {"sizes": (1, 41, 34, 7), "train": 37, "until": 2, "curve_steps": (2,), "cells": 1},
    "one layer": {"sizes": (3, 5), "embedding": (6, 3)},
    "four layers, dense": {"sizes": (6, 9, 18, 4, 3), "embedding": None, "until": 2,
                           "curve_steps": (2,)},
    "no biases, square": {"sizes": (1, 19, 6, 3), "embedding": (5, 1), "bias": False,
                          "activation": "square", "lr": 1e-3},
    "modular": {**MODULAR, "until": 3, "train_accuracy": "after"},
    "activated embedding": {"sizes": (2, 9, 5), "embedding": (4, 2), "activation": "square",
                            "activate_embedding": True, "lr": 1e-3},
    "evaluation on a schedule": {"sizes": (2, 9, 5), "embedding": (4, 2), "eval_steps": (2, 3, 5),
                                 "curve_steps": (3, 5), "until": 5},
    "all counted on a schedule": {"sizes": (2, 9, 5), "embedding": (4, 2), "eval_steps": (2, 3, 5),
                                  "curve_steps": (3, 5), "until": 6, "train_accuracy": "after",
                                  "need": (5, 2), "more": ((3, 6), (1, 2))},
    "minibatch, dense": {"sizes": (9, 20, 7), "embedding": None, "activation": "relu",
                         "loss": "mse", "train": 12, "batch_size": 4, "until": 5,
                         "eval_steps": (3,), "curve_steps": (3,), "cells": 1},
    "minibatch, embedding": {"sizes": (2, 9, 5), "embedding": (4, 2), "train": 12,
                             "batch_size": 6, "curve_steps": (2, 4), "until": 4},
}  # fmt: skip
SMALL_CASES = ("cross-entropy", "minibatch, dense")


def tensors(job):
    """name -> tensor, for every field of a job."""
    found = {}
    for name, value in job.items():
        for number, tensor in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(tensor, torch.Tensor):
                found[f"{name}[{number}]"] = tensor
    return found


def check_exact(got, want):
    """float64: rounding only, in as many steps as here a few hundred units of the last place."""
    want = tensors(want)
    for name, tensor in tensors(got).items():
        tolerance = 1e-12 if tensor.dtype == torch.float64 else 1e-6
        if tensor.is_floating_point():
            close = torch.allclose(tensor.cpu(), want[name], rtol=tolerance, atol=1e-2 * tolerance)
            assert close, (name, tensor, want[name])
        else:
            assert torch.equal(tensor.cpu(), want[name]), (name, tensor, want[name])


@pytest.mark.parametrize("name", CASES)
def test_float64(name, device):
    job = make_job(**CASES[name])
    want, got = clone(job), clone(job, device=device)
    plain_train(want)
    kernels.train(**got, tiles=SMALL if name in SMALL_CASES else WIDE, poison=True)
    check_exact(got, want)


def test_modular_addition(device):
    """Thirty steps from chance to all of the training set, in float64: every loss, count and
    crossing, and what became of the weights and moments."""
    p, steps = 5, 30
    job = make_job(**{
        **MODULAR, "sizes": (18, p), "embedding": (2 * p, 18), "train": 13, "val": 12,
        "train_accuracy": "after", "more": ((8, 12, 14), (1, 2, 13)), "cells": 1, "data_sets": 1,
        "curve_steps": range(1, steps + 1), "until": steps, "lr": 0.02,
    })  # fmt: skip
    addition(job, p)
    for tensor in job["params"]:
        tensor *= 0.3
    want, got = clone(job), clone(job, device=device)
    plain_train(want)
    early, late, never = want["train_crossings"][0].tolist()
    assert never < 0 < early < late < want["t_train"] and want["best_train_correct"] == 13
    kernels.train(**got, tiles=WIDE, poison=True)
    check_exact(got, want)


@pytest.mark.parametrize("precision", kernels.SUPPORT["precision"])
def test_float32(precision, device):
    """At most twice the error of plain torch in float32, by every weight and moment."""
    job = make_job(**CASES["tails"])
    exact, plain = clone(job), clone(job, torch.float32)
    got = clone(job, torch.float32, device)
    plain_train(exact)
    plain_train(plain)
    kernels.train(**got, tiles=WIDE, precision=precision, poison=True)
    exact, plain, got = tensors(exact), tensors(plain), tensors(got)
    for name, tensor in got.items():
        if precision == "tf32" and tensor.is_floating_point():
            # Products of 10-bit mantissas: 1e-3 of the largest, grown over three steps.
            assert torch.allclose(tensor.cpu().double(), exact[name].double(), 0.05, 0.05), name
        elif tensor.is_floating_point():
            assert_as_good(tensor, plain[name], exact[name])
        else:
            assert torch.equal(tensor.cpu(), exact[name]), name


def test_thresholds_and_stop(device):
    """Cells reach the two thresholds at their own steps, or never; the finished stay frozen."""
    job = make_job(
        sizes=(3, 12, 4), embedding=(6, 3), cells=4, train=9, val=6, until=6, seed=10,
        curve_steps=(3, 6), need=(6, 3), more=((3, 7), (1, 4)), stop=True, lr=0.08,
    )  # fmt: skip
    want, got = clone(job), clone(job, device=device)
    plain_train(want)
    finished = (want["t_train"] >= 0) & (want["t_val"] >= 0)
    assert finished.any() and not finished.all() and len(want["step"].unique()) > 2
    kernels.train(**got, tiles=WIDE)
    check_exact(got, want)
    before = clone(got)
    got["until"], before["until"] = 7, 7
    got["cells"] = got["cells"][finished.to(device)]
    kernels.train(**got, tiles=WIDE)  # nothing is left to do for these
    got["cells"] = before["cells"]
    assert_same_bits(got, before)


def assert_same_bits(one, other):
    other = tensors(other)
    for name, tensor in tensors(one).items():
        assert torch.equal(tensor.nan_to_num(7e77), other[name].nan_to_num(7e77)), name


@pytest.mark.parametrize("batch_size", (None, 3))
def test_divergence(batch_size, device):
    """A cell that overflows at once, one that does later, two that must not notice."""
    job = make_job(
        sizes=(2, 9, 4), embedding=None, activation="relu", loss="mse", cells=4, train=6,
        batch_size=batch_size, until=4, curve_steps=(2, 4), dtype=torch.float32,
    )  # fmt: skip
    for weight in job["params"][::2]:
        weight[0] *= 1e30
    job["lr"][:, 2] = 1e25
    healthy = clone(job, device=device)
    healthy["cells"] = torch.tensor([1, 3], device=device)
    kernels.train(**healthy, tiles=WIDE)

    want, got = clone(job), clone(job, device=device)
    plain_train(want)
    kernels.train(**got, tiles=WIDE, poison=True)
    assert got["diverged_at"].tolist() == want["diverged_at"].tolist() == [1, -1, 2, -1]
    assert got["step"].tolist() == want["step"].tolist() == [0, 4, 1, 4]
    for name, value in tensors(clone(job, device=device)).items():
        if name.split("[")[0] in ("params", "exp_avg", "exp_avg_sq", "train_loss", "epoch_loss"):
            assert torch.equal(tensors(got)[name][0], value[0]), name  # untouched
            assert torch.equal(tensors(got)[name][[1, 3]], tensors(healthy)[name][[1, 3]]), name
    assert got["epoch_correct"][2] == want["epoch_correct"][2]


def test_nothing_to_do(device):
    job = make_job()
    job["step"] += job["until"]
    got = clone(job, device=device)
    kernels.train(**got)
    assert_same_bits(got, clone(job, device=device))
    got["cells"] = got["cells"][:0]
    kernels.train(**got)
