"""Medians, dips and windows of made-up curves."""

from dataclasses import replace

import numpy as np
import pytest

import grokfast as gf
from grokfast.analyses import dips, first_step, last_median, signature, window_means
from grokfast.phases import PhaseRule
from grokfast.results import OK, Results, hyperparameter_columns

STEP = np.arange(10, 20_001, 10)
RULE = PhaseRule(threshold=0.9)


def slingshots(every=200, since=700, width=2):
    """Training accuracy that memorises at 500 and falls for a few records every so often."""
    accuracy = np.where(STEP >= 500, 1.0, 0.3)
    for begin in range(since, STEP[-1], every):
        accuracy[(begin <= STEP) & (begin + 10 * width > STEP)] = 0.05
    return accuracy


@pytest.fixture
def run():
    """``run(train, val, ...)``: results of one cell with these curves."""

    def build(train, val, crossings=None, phase=RULE, **fields):
        experiment = gf.preset("modular-addition").experiment.replace(steps=20_000, **fields)
        grid = gf.Grid(experiment=replace(experiment, phase=phase))
        columns = {
            **hyperparameter_columns(grid, [0]),
            "run": [0],
            "t_train": [33],
            "t_val": [44],
            "steps_done": [20_000],
            "status": [OK],
        }
        variables = {k: (("run",), np.asarray(v)) for k, v in columns.items()}
        variables["step"] = (("step",), STEP)
        for name, values in (("train", train), ("val", val)):
            variables[f"{name}_acc"] = (("run", "step"), np.float32(values)[None])
        if crossings:
            variables["threshold"] = (("threshold",), np.array([0.99]))
            for name, value in crossings.items():
                variables[f"{name}_crossings"] = (("run", "threshold"), np.array([[value]]))
        return Results(grid=grid, variables=variables, complete=True)

    return build


def test_a_dip_is_counted_once_however_long_it_is():
    for width in (1, 3, 15):
        found = dips(STEP, slingshots(width=width))
        assert found.tolist() == list(range(700, 20_000, 200))


def test_only_what_comes_after_memorising_is_a_dip():
    assert len(dips(STEP, np.where(STEP >= 500, 0.998, 0.3))) == 0, "never memorised"
    assert len(dips(STEP, np.where(STEP >= 500, 1.0, 0.3))) == 0, "never fell"
    swings = np.tile([1.0, 0.9, 0.95, 0.899], len(STEP) // 4)
    assert len(dips(STEP, swings)) == len(STEP) // 4, "0.9 is none, 0.899 is one"
    assert len(dips(STEP, np.float32(swings))) == len(STEP) // 4, "nor in float32"
    assert len(dips(STEP, swings, high=2.0)) == 0


def test_first_steps():
    accuracy = np.float32([0.1, 0.99, 0.5, 1.0])
    assert first_step([1, 5, 9, 13], accuracy, 0.99) == 5
    assert first_step([1, 5, 9, 13], accuracy, 1.0) == 13
    assert first_step([1, 5], accuracy[:1], 0.5) == -1


def test_the_median_of_the_last_steps_forgets_a_dip():
    accuracy = slingshots(since=100)
    accuracy[-1] = 0.0
    assert last_median(STEP, accuracy, 1000) == 1.0
    assert last_median(STEP, accuracy, 10) == 0.0
    assert np.isnan(last_median([], []))


def test_windows_begin_at_multiples_and_hold_their_mean():
    begins, means = window_means([999, 1000, 1500, 3000], [0.1, 0.2, 0.4, 1.0], 1000)
    assert begins.tolist() == [0, 1000, 3000]
    np.testing.assert_allclose(means, [0.1, 0.3, 1.0])


def test_the_signature_of_a_cell(run):
    val = np.clip((STEP - 8000) / 3000, 0.01, 1.0)
    found = signature(run(slingshots(), val), 0)
    assert (found.t_train, found.t_val) == (500, 10_970)
    assert found.gap == pytest.approx(21.94)
    assert (found.dips, found.first_dip, found.spacing, found.every) == (97, 700, 200, 10)
    assert (found.last_train, found.last_val) == (1.0, 1.0)
    assert found.below == pytest.approx(0.1)
    assert found.windows[:3].tolist() == [0, 1000, 2000]
    assert found.window_val[9] == pytest.approx(val[(STEP >= 9000) & (STEP < 10_000)].mean())
    never = signature(run(slingshots(), np.zeros(len(STEP))), 0)
    assert never.t_val == -1
    assert np.isnan(never.gap)


def test_exact_crossings_are_taken_where_the_run_looked_for_them(run):
    train, val = slingshots(), np.where(STEP >= 9000, 1.0, 0.01)
    crossed = {"train": 491, "val": 8993}
    looked = run(train, val, crossed, **{"evaluation.thresholds": (0.99,)})
    assert (signature(looked, 0).t_train, signature(looked, 0).t_val) == (491, 8993)
    by_rule = run(train, val, phase=PhaseRule(threshold=0.99))
    assert (signature(by_rule, 0).t_train, signature(by_rule, 0).t_val) == (33, 44)
    nearly = run(train, val, phase=PhaseRule(threshold=0.99, tolerance=0.01))
    assert signature(nearly, 0).t_val == 9000


def test_what_has_no_curves(run):
    with pytest.raises(gf.UsageError, match="window is 0; give 1 or more"):
        signature(run(slingshots(), slingshots()), 0, window=0)
    nothing = run(np.full(len(STEP), np.nan), np.full(len(STEP), np.nan))
    with pytest.raises(gf.UsageError, match="nothing is recorded yet"):
        signature(nothing, 0)
    del nothing.variables["train_acc"]
    with pytest.raises(gf.UsageError, match="kept no curves"):
        signature(nothing, 0)
