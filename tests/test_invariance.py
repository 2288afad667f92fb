"""Of cells with noise, norms and minibatches of any order: the same bits alone or in a grid, and
after an interruption at any step."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_same_bits, bucket_of, trained

import grokfast as gf
from grokfast.engines.compiled import CompiledEngine
from grokfast.engines.reference import ReferenceEngine
from grokfast.tasks import Modular
from grokfast.trainer import Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 12
CELLS = ({"lr": 1e-2, "model_seed": 1}, {"lr": 3e-2, "data_seed": 5}, {"weight_decay": 2.0})


@st.composite
def experiments(draw):
    """12 training samples of p = 5."""
    batch_size, remainder = draw(
        st.sampled_from([(0, "none"), (4, "none"), (5, "dropped"), (5, "short")])
    )
    train = draw(st.sampled_from(["running", "after"]))
    schedules = ["every-epoch", "every-steps"] if train == "after" else ["every-epoch"]
    return gf.Experiment(
        task=Modular(p=5, corruption=0.2),
        model=gf.Mlp(
            width=4,
            depth=draw(st.sampled_from([2, 3])),
            one_hot=True,
            bias=False,
            activation=draw(st.sampled_from(["square", "tanh"])),
            dropout=draw(st.sampled_from([0.0, 0.4])),
            norm=draw(st.sampled_from(["none", "batch", "layer"])),
            seed=draw(st.sampled_from([None, 0])),
        ),
        loss=draw(st.sampled_from(["mse", "cross_entropy"])),
        optimizer=gf.Optimizer(kind=draw(st.sampled_from(["adamw", "sgd"])), momentum=0.9),
        batch_size=batch_size,
        batches=gf.Batches(
            order=draw(st.sampled_from(["loader", "continued", "by-step", "fixed"])),
            remainder=remainder,
        ),
        steps=STEPS,
        stop=draw(st.sampled_from(["both", "never"])),
        evaluation=gf.Evaluation(
            schedule=draw(st.sampled_from(schedules)),
            every=2,
            train=train,
            thresholds=(0.1, 0.3, 0.5),
        ),
        phase=gf.PhaseRule(threshold=0.2),
        record=gf.Recording(curves="evaluated", observables=("norms:5",), weights=True),
    )


@settings(max_examples=10)
@given(experiments(), st.permutations(range(3)), st.integers(1, 3))
def test_a_cell_of_the_reference_is_the_same_alone_and_in_any_grid(experiment, order, some):
    cells = [experiment.replace(**cell) for cell in CELLS]
    whole = trained("reference", bucket_of(*cells), STEPS)
    chosen = order[:some]
    part = trained("reference", bucket_of(*(cells[m] for m in chosen)), STEPS)
    assert_same_bits(whole, part, rows=torch.tensor(chosen))


@settings(max_examples=10)
@given(experiments(), st.integers(1, 3 * STEPS))
def test_the_reference_goes_on_from_any_step(experiment, stop):
    bucket = bucket_of(*(experiment.replace(**cell) for cell in CELLS))
    parts = trained("reference", bucket, STEPS, tick=lambda done: done == stop)
    trained("reference", bucket, STEPS, state=parts)
    assert_same_bits(trained("reference", bucket, STEPS), parts)


@settings(max_examples=10)
@given(experiments(), st.integers(1, STEPS - 1))
def test_an_interrupted_call_of_the_compiled_engine_is_made_again_to_the_same_bits(
    experiment, first
):
    bucket = bucket_of(*(experiment.replace(**cell) for cell in CELLS))
    parts = trained("eager", bucket, first)
    trained("eager", bucket, STEPS, state=parts, tick=lambda done: True)
    trained("eager", bucket, STEPS, state=parts)
    assert_same_bits(trained("eager", bucket, first, STEPS), parts)


ENGINES = {"reference": ReferenceEngine, "compiled": CompiledEngine}


def stopping(name, after):
    """The engine in chunks of four steps; a signal comes after so many model-steps, or calls of
    one that keeps nothing of a call that was stopped."""

    class Stopping(ENGINES[name]):
        chunk, eager, left = 4, True, after

        def advance(self, bucket, state, cells, until, tick=None):
            def stop(done):
                return self.keeps_partial and done >= self.left

            before = state.step.sum()
            super().advance(bucket, state, cells, until, stop)
            self.left -= int(state.step.sum() - before) if self.keeps_partial else 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGTERM)

    return Stopping


@settings(max_examples=8)
@given(experiments(), st.sampled_from(sorted(ENGINES)), st.integers(1, 3 * STEPS))
def test_a_run_goes_on_from_its_file_to_the_same_bits(experiment, name, after):
    """Crossings, last and best counts, running statistics and observables too."""
    grid = gf.Grid(experiment=experiment).grid(lr=[1e-2, 3e-2], **{"task.corruption_seed": [0, 1]})
    after = after if name == "reference" else 1 + after % 2

    def run(engine, out):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"grokfast.engines.{name}.{ENGINES[name].__name__}", engine)
            return gf.run(grid, out=out, engine=name, device="cpu", threads=1, progress=False)

    with tempfile.TemporaryDirectory() as folder:
        whole = run(stopping(name, 10**9), Path(folder, "whole.h5"))
        with contextlib.suppress(Interrupted):  # it may have been done before
            run(stopping(name, after), Path(folder, "parts.h5"))
        run(stopping(name, 10**9), Path(folder, "parts.h5"))
        parts = gf.Results.load(Path(folder, "parts.h5"))
    assert parts.complete and set(parts.variables) == set(whole.variables)
    for key in whole.variables:
        assert np.array_equal(parts[key], whole[key], equal_nan=whole[key].dtype.kind == "f"), key
    for own, theirs in zip(parts.weights, whole.weights, strict=True):
        assert all(own[key].tobytes() == theirs[key].tobytes() for key in own | theirs)
