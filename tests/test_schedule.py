"""Which steps are evaluated and recorded, and what that costs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import grokfast as gf
from grokfast.errors import UsageError
from grokfast.schedule import Schedule
from grokfast.tasks import Modular

#: Schedule -> its evaluated steps of 20, with 4 steps an epoch.
EVALUATED = {
    "every-epoch": ({}, [4, 8, 12, 16, 20]),
    "every-steps": ({"every": 7}, [7, 14]),
    "end": ({}, [20]),
    # int(logspace(0, log10(1000), 4)) = 1, 10, 100, 1000
    "log-steps": ({"horizon": 1000, "points": 4}, [1, 10]),
    # epochs int(1/4), int(10/4), int(100/4), ... from 0
    "log-epochs": ({"horizon": 1000, "points": 4}, [4, 12]),
}


def schedule(name, budget=20, per_epoch=4, record=None, **fields):
    evaluation = gf.Evaluation(schedule=name, **fields)
    return Schedule(evaluation, record or gf.Recording(), per_epoch, budget)


@pytest.mark.parametrize("name", EVALUATED)
def test_every_schedule_evaluates_its_steps_and_no_other(name):
    fields, steps = EVALUATED[name]
    s = schedule(name, **fields)
    assert [step for step in range(21) if s.evaluates(step)] == steps
    assert s.evaluations == len(steps)
    by_epoch = name == "log-epochs" or name == "every-epoch"
    ends = [e for e in range(5) if by_epoch and 4 * (e + 1) in steps]
    assert [e for e in range(5) if s.evaluates_epoch(e)] == ends


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluated_curves_are_of_every_evaluated_step(name):
    fields, steps = EVALUATED[name]
    s = schedule(name, record=gf.Recording(curves="evaluated"), **fields)
    assert s.curve_steps.tolist() == steps
    assert s.curve_index == {step: k for k, step in enumerate(steps)}


@pytest.mark.parametrize("name", EVALUATED)
def test_log_spaced_curves_are_of_some_evaluated_steps(name):
    fields, steps = EVALUATED[name]
    s = schedule(name, record=gf.Recording(curve_points=50), **fields)
    assert set(s.curve_steps.tolist()) <= set(steps)
    assert s.curve_steps.tolist() == sorted(set(s.curve_steps.tolist()))
    assert len(s.curve_steps) > 0
    assert not len(schedule(name, record=gf.Recording(curve_points=0), **fields).curve_steps)


@pytest.mark.parametrize("name", sorted(set(EVALUATED) - {"end"}))
@pytest.mark.parametrize("curves", ["log-spaced", "evaluated"])
def test_a_raised_budget_keeps_the_steps_that_there_are(name, curves):
    fields, _ = EVALUATED[name]
    record = gf.Recording(curves=curves)
    short = schedule(name, record=record, **fields)
    long = schedule(name, 400, record=record, **fields)
    evaluated = [step for step in range(21) if long.evaluates(step)]
    assert evaluated == [step for step in range(21) if short.evaluates(step)]
    assert long.curve_steps[: len(short.curve_steps)].tolist() == short.curve_steps.tolist()


@pytest.mark.parametrize("name", ["every-epoch", "log-epochs", "log-steps", "end"])
def test_a_budget_of_a_billion_steps_costs_no_memory(name):
    tracemalloc.start()
    s = schedule(name, budget=10**9, per_epoch=1)
    assert s.evaluates(10**9) == (name in ("every-epoch", "end"))
    assert len(s.curve_index) <= 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # a byte a step would be 1000 times that


def test_unknown_schedules_and_curves_are_refused():
    evaluation, record = gf.Evaluation(), gf.Recording()
    object.__setattr__(evaluation, "schedule", "weekly")
    with pytest.raises(ValueError, match="weekly"):
        Schedule(evaluation, record, 1, 10)
    object.__setattr__(record, "curves", "round")
    with pytest.raises(ValueError, match="round"):
        Schedule(gf.Evaluation(), record, 1, 10)


@pytest.mark.parametrize("name", ["every-steps", "log-steps", "end"])
def test_a_running_accuracy_is_there_at_the_end_of_an_epoch_only(name):
    evaluation = gf.Evaluation(schedule=name)
    with pytest.raises(UsageError, match="give evaluation.train=after"):
        gf.Experiment(task=Modular(), batch_size=64, evaluation=evaluation)
    gf.Experiment(task=Modular(), evaluation=evaluation)  # the full batch ends one every step


def test_a_budget_whose_end_is_evaluated_cannot_be_raised(tmp_path):
    """What was found at 3 steps is nothing that a run of 6 steps looks at."""
    experiment = gf.Experiment(
        task=Modular(p=5),
        model=gf.Mlp(width=3, depth=2, one_hot=True, bias=False),
        steps=3,
        stop="never",
        evaluation=gf.Evaluation(schedule="end"),
    )
    grid, out = gf.Grid(experiment=experiment), tmp_path / "a.h5"
    options = {"engine": "reference", "device": "cpu", "progress": False, "out": out}
    found = gf.run(grid, **options)
    assert found["step"].tolist() == [3] and np.isfinite(found["val_loss"]).all()
    with pytest.raises(UsageError, match="belongs to another run: steps: 3 -> 6"):
        gf.run(grid.grid(steps=6), **options)
    assert gf.run(grid, **options).complete
