"""The same bits for a cell alone or in any company, any order, any chunks, after a resume."""

import pytest
import torch
from plain_training import clone
from small_jobs import make_job
from test_train_steps import CASES, WIDE, assert_same_bits

from grokfast import kernels

FULL = {"sizes": (2, 18, 5), "embedding": (5, 2), "cells": 3}
MINIBATCH = {
    "sizes": (7, 9, 5), "embedding": None, "activation": "relu", "loss": "mse", "cells": 3,
    "train": 12, "batch_size": 6, "until": 5, "eval_steps": (2, 4), "curve_steps": (2, 4),
}  # fmt: skip


AFTER = {"cells": 3, "train_accuracy": "after", "more": ((3, 6), (1, 3))}
MODULAR = {**CASES["modular"], **AFTER, "until": 3}
SCHEDULED = {"sizes": (2, 5), "embedding": (4, 2), **AFTER, "eval_steps": (2, 3), "until": 4}
JOBS = {"full batch": FULL, "minibatch": MINIBATCH, "modular": MODULAR, "scheduled": SCHEDULED}


@pytest.fixture(params=JOBS.values(), ids=JOBS, scope="module")
def job(request, device):
    return clone(make_job(**request.param, dtype=torch.float32), device=device)


@pytest.fixture(scope="module")
def together(job):
    return trained(job)


def trained(job, **changes):
    out = {**clone(job), **changes}
    kernels.train(**out, tiles=WIDE, poison=True)
    return {**out, "cells": job["cells"], "until": job["until"]}


def test_alone_or_together(job, together):
    alone = job
    for cell in job["cells"].flip(0):
        alone = trained(alone, cells=cell[None])
    assert_same_bits(alone, together)


def test_order_and_number_of_programs(job, together):
    backwards = clone(job)
    kernels.train(**{**backwards, "cells": job["cells"].flip(0)}, programs=2, tiles=WIDE)
    assert_same_bits(backwards, together)


def test_chunks(job, together):
    """One step at a time, with the order of an epoch handed over only when it is needed."""
    stepwise = job
    batches = job["x_train"].shape[1] // job["batch_size"]
    for until in range(1, job["until"] + 1):
        epoch = (until - 1) // batches
        changes = {"until": until, "first_epoch": epoch}
        if job["order"] is not None:
            changes["order"] = job["order"][:, epoch : epoch + 1].contiguous()
        stepwise = trained(stepwise, **changes)
        stepwise["order"], stepwise["first_epoch"] = job["order"], 0
    assert_same_bits(stepwise, together)


def test_cells_at_different_steps(job, together):
    """A chunk that finds one cell further along than the others."""
    ahead = trained(job, cells=job["cells"][1:2], until=2)
    assert ahead["step"].tolist() == [0, 2, 0]
    assert_same_bits(trained(ahead), together)
