"""Replicates put together: majorities, censored medians, means of curves, what is missing."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grokfast as gf
from grokfast.aggregate import quantile
from grokfast.models import Mlp
from grokfast.results import DIVERGED, OK, RUNNING, Results, hyperparameter_columns

COMPREHENSION, GROKKING, MEMORIZATION, CONFUSION = range(4)
NEVER = -1


def made(grid, t_train, t_val, *, runs=None, status=OK, steps_done=None, **floats):
    """Results of a grid, or of the cells ``runs``, with given steps and floats of each cell."""
    runs = np.arange(grid.size) if runs is None else np.asarray(runs)
    n = len(runs)
    full = grid.experiment.steps if steps_done is None else steps_done
    columns = {
        "run": runs,
        **hyperparameter_columns(grid, runs.tolist()),
        "status": np.broadcast_to(np.asarray(status, np.uint8), n),
        "t_train": np.broadcast_to(np.asarray(t_train, np.int64), n),
        "t_val": np.broadcast_to(np.asarray(t_val, np.int64), n),
        "steps_done": np.broadcast_to(np.asarray(full, np.int64), n),
    }
    variables = {name: (("run",), values) for name, values in columns.items()}
    step = floats.pop("step", None)
    if step is not None:
        variables["step"] = (("step",), np.asarray(step))
    for name, values in floats.items():
        values = np.asarray(values, np.float32)
        variables[name] = (("run", "step")[: values.ndim], values)
    results = Results(grid=grid, variables=variables, complete=True)
    variables["phase"] = (("run",), results.phases())
    return results


def grid(**axes):
    return gf.preset("addition-regression").grid(
        **{"lr": [1e-4, 1e-3], "weight_decay": 0.0, "model_seed": [1, 2, 3], "steps": 9000} | axes
    )


def test_the_phase_that_most_have_and_its_share():
    # lr 1e-4: comprehension, grokking, grokking; lr 1e-3: memorization thrice
    r = made(grid(), [100] * 6, [200, 5000, 6000, NEVER, NEVER, NEVER])
    a = r.aggregate("model_seed")
    assert a["votes"].tolist() == [[1, 2, 0, 0], [0, 0, 3, 0]]
    assert a.phases().tolist() == [GROKKING, MEMORIZATION]
    assert a["share"].tolist() == [2 / 3, 1]
    assert a.axes == {"lr": (1e-4, 1e-3)}
    assert a.over == {"model_seed": (1, 2, 3)}
    assert a["lr"].tolist() == [1e-4, 1e-3]
    assert "model_seed" not in a
    assert "model_seed" not in a.hyperparameters
    assert a.counts()["grokking"] == 1
    assert "2 cells over 3 model_seed" in repr(a)


def test_equal_votes_go_to_the_phase_that_comes_first():
    r = made(grid(lr=1e-4, model_seed=[1, 2]), 100, [NEVER, 200])
    a = r.aggregate("model_seed")
    assert (a.phases().tolist(), a["share"].tolist()) == ([COMPREHENSION], [0.5])


def test_a_step_that_was_never_reached_is_larger_than_the_budget():
    r = made(grid(), 100, [300, 5100, NEVER, 400, NEVER, NEVER])
    a = r.aggregate("model_seed")
    assert a["t_train"].tolist() == [100, 100]
    assert a["t_val"].tolist() == [5100, np.inf]
    assert a["t_val_low"].tolist() == [2700, np.inf]  # between 300 and 5100; between 400 and inf
    assert a["t_val_high"].tolist() == [np.inf, np.inf]
    assert a["delay"].tolist() == [5000, np.inf]
    assert a["budget"].tolist() == [9000, 9000]
    assert r.aggregate("model_seed", quantiles=(0, 1))["t_val_low"].tolist() == [300, 400]


def test_crossings_of_further_thresholds_have_medians_too():
    seeds = grid(lr=1e-4, **{"evaluation.thresholds": (0.5, 0.99), "stop": "never"})
    r = made(seeds, 100, 200, steps_done=[9000, 9000, 700], status=[OK, OK, RUNNING])
    r.variables["threshold"] = (("threshold",), np.array([0.5, 0.99]))
    for name, steps in (("train", [[10, 90], [20, 80], [30, 70]]), ("val", [[150, NEVER]] * 3)):
        r.variables[f"{name}_crossings"] = (("run", "threshold"), np.array(steps))
    assert r.moments("t_train_0.99").tolist() == [90, 80, 70]
    np.testing.assert_array_equal(r.moments("t_val_0.99"), [np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(r.moments("t_val_0.99", 600), [np.inf] * 3)
    assert r.columns()["t_val_0.99"].tolist() == [NEVER] * 3
    a = r.aggregate("model_seed")
    assert [a[f"t_train_0.99{end}"].tolist() for end in ("", "_low", "_high")] == [[80], [75], [85]]
    assert a["t_val_0.99"].tolist() == [np.inf]
    assert a.columns()["t_val_0.5"].tolist() == [150]


def test_a_crossing_that_was_not_looked_for_is_not_never():
    # The first has no such threshold; the second stopped when T_train and T_val were there.
    both = grid(lr=1e-4, model_seed=1, **{"evaluation.thresholds": [(0.5,), (0.99,)]})
    r = made(both, 100, 200, steps_done=200)
    r.variables["threshold"] = (("threshold",), np.array([0.5, 0.99]))
    r.variables["val_crossings"] = (("run", "threshold"), np.array([[150, NEVER], [NEVER] * 2]))
    r.variables["train_crossings"] = r.variables["val_crossings"]
    np.testing.assert_array_equal(r.moments("t_val_0.5"), [150, np.nan])
    np.testing.assert_array_equal(r.moments("t_val_0.99"), [np.nan, np.nan])


def test_delays_order_also_where_training_was_never_reached():
    # validation without training, both, neither: the middle one is the median
    r = made(grid(lr=1e-4), [NEVER, 100, NEVER], [50, 350, NEVER])
    assert r.moments("delay").tolist() == [-np.inf, 250, np.inf]
    assert r.aggregate("model_seed")["delay"].tolist() == [250]


def test_a_replicate_that_is_not_finished_or_not_there_is_missing():
    status = [OK, RUNNING, RUNNING, OK]
    r = made(grid(), [10, 10, 20, 30], [20, NEVER, 40, 50], runs=[0, 1, 2, 3], status=status,
             steps_done=[20, 500, 40, 50])  # fmt: skip
    a = r.aggregate("model_seed")
    # the second is under way; the third cannot change any more; of lr 1e-3 there is one
    assert a["replicates"].tolist() == [2, 1]
    assert a["missing"].tolist() == [1, 2]
    assert a["t_val"].tolist() == [30, 50]
    assert a["t_train"].tolist() == [10, 30]
    none = made(grid(), 10, 20, runs=[0, 2]).aggregate("model_seed")
    assert none.phases().tolist() == [COMPREHENSION, -1]
    assert np.isnan(none["share"][1])
    assert np.isnan(none["t_val"][1])
    assert none.columns()["phase"].tolist() == ["comprehension", ""]


def test_as_of_an_earlier_budget():
    r = made(grid(lr=1e-4), 100, [200, 5000, 6000], step=[1, 1000, 6000], val_acc=np.ones((3, 3)))
    a = r.aggregate("model_seed", budget=2000)
    assert a["votes"].tolist() == [[1, 0, 2, 0]]
    assert a["t_val"].tolist() == [np.inf]
    assert a["budget"].tolist() == [2000]
    assert a["step"].tolist() == [1, 1000]
    with pytest.raises(gf.UsageError, match="as of 2000 steps, not 3000"):
        a.phases(3000)


def test_curves_are_means_of_what_was_measured():
    nan = np.nan
    curves = [[1, 2, nan], [3, 6, 5], [5, np.inf, nan], *[[nan] * 3] * 3]
    a = made(grid(), 1, 2, step=[1, 10, 100], train_loss=curves).aggregate("model_seed")
    assert a.variables["train_loss"][0] == ("run", "step")
    np.testing.assert_array_equal(a["train_loss"], [[3, 4, 5], [nan] * 3])
    np.testing.assert_array_equal(a["train_loss_count"], [[3, 2, 1], [0, 0, 0]])
    np.testing.assert_allclose(a["train_loss_std"], [[2, 8**0.5, nan], [nan] * 3])


def test_final_accuracies_have_a_spread_too():
    a = made(grid(lr=1e-4), 1, 2, final_val_acc=[0.5, 1.0, 0.75]).aggregate("model_seed")
    assert a["final_val_acc"].tolist() == [0.75]
    assert a["final_val_acc_std"].tolist() == [0.25]


def test_most_replicates_diverged():
    status = [DIVERGED, DIVERGED, OK, OK, OK, DIVERGED]
    a = made(grid(), 100, NEVER, status=status).aggregate("model_seed")
    assert a["diverged"].tolist() == [2, 1]
    assert a["status"].tolist() == [DIVERGED, OK]


def test_several_axes_and_all_of_them():
    g = grid(data_seed=[7, 8])
    t_val = np.arange(12) * 100 + 100
    a = made(g, 10, t_val).aggregate(["data_seed", "model.seed"])
    assert list(a.over) == ["model_seed", "data_seed"]
    assert len(a) == 2
    assert a["replicates"].tolist() == [6, 6]
    assert a["t_val"].tolist() == [350, 950]
    axes = list(made(g, 10, t_val).axes)
    whole = made(g, 10, t_val).aggregate(axes)
    assert (len(whole), whole.axes, whole["replicates"].tolist()) == (1, {}, [12])
    assert whole["t_val"].tolist() == [650]


def test_any_axis_can_be_put_together_and_the_order_of_axes_does_not_matter():
    g = gf.preset("addition-regression").grid(
        model_seed=[1, 2], activation=["tanh", "relu"], lr=[1e-4, 1e-3], weight_decay=0.0
    )
    t_val = np.array([c.model.seed * 100 + 10 * (c.model.activation == "relu") for c in g.cells])
    a = made(g, 10, t_val).aggregate("model_seed")
    by_name = dict(zip(a["activation"].tolist(), a["t_val"].tolist(), strict=True))
    assert by_name == {"tanh": 150, "relu": 160}
    assert made(g, 10, t_val).aggregate("activation")["t_val"].tolist() == [105, 205, 105, 205]


def test_a_cell_is_found_by_the_values_that_are_left():
    a = made(grid(), 10, np.arange(6) + 20).aggregate("model_seed")
    assert a.find(lr=1e-3) == 1
    with pytest.raises(gf.UsageError, match="unknown axis 'model_seed'"):
        a.find(model_seed=1)


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("model_sed", "'model_sed' is no axis of these results; did you mean model_seed?"),
        ("width", "'width' is no axis of these results; axes are lr, weight_decay, model_seed"),
        ([], "over names no axis"),
        ("steps", "other budgets are no replicates"),
    ],
)
def test_what_is_no_axis_is_said(over, says):
    axes = {"steps": [100, 200]} if over == "steps" else {"weight_decay": [0.0]}
    with pytest.raises(gf.UsageError, match=says):
        made(grid(**axes), 1, 2).aggregate(over)


def test_quantiles_are_checked():
    with pytest.raises(gf.UsageError, match="two ascending ones between 0 and 1"):
        made(grid(), 1, 2).aggregate("model_seed", quantiles=(0.9, 0.1))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    st.integers(0, 3),
    st.floats(0, 1),
)
def test_quantiles_without_infinite_values_are_those_of_numpy(values, missing, q):
    column = np.array([*values, *[np.nan] * missing])[:, None]
    # interpolation rounds once or twice more, of numbers as large as these
    tolerance = 4 * np.finfo(float).eps * max(map(abs, values))
    expected = np.quantile(values, q)
    np.testing.assert_allclose(quantile(column, q)[0], expected, rtol=0, atol=tolerance)


def test_quantiles_with_infinite_values():
    inf = np.inf

    def at(values, q=0.5):
        return quantile(np.array(values)[:, None], q)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert at([1.0, inf]) == inf
        assert at([inf, inf]) == inf
        assert at([-inf, 3.0]) == -inf
        assert at([1.0, 2.0, inf]) == 2
        assert at([1.0, 2.0, inf], 0.25) == 1.5
        assert np.isnan(at([np.nan, np.nan]))


def test_phases_by_final_accuracies_are_put_together_as_well():
    experiment = gf.Experiment(
        task=gf.preset("addition-regression").experiment.task,
        loss="mse",
        predict="nearest",
        model=Mlp(embedding_dim=1),
        phase=gf.InversionRule(),
        steps=100,
    )
    g = gf.Grid(experiment=experiment, axes={"model.seed": (0, 1, 2)})
    accuracies = {
        "final_train_acc": [1.0, 1.0, 0.2],
        "final_val_acc": [0.2, 0.3, 0.2],
        "best_val_acc": [0.2, 0.3, 0.95],
    }
    a = made(g, 1, NEVER, **accuracies).aggregate("model_seed")
    names = dict(zip(a.rule.phases, a["votes"][0].tolist(), strict=True))
    assert names["memorization"] == 2
    assert names["forgetting"] == 1
    assert a.columns()["votes.memorization"].tolist() == [2]
    with pytest.raises(gf.UsageError, match="none as of 50 of 100 steps"):
        made(g, 1, NEVER, **accuracies).aggregate("model_seed", budget=50)


def test_results_keep_their_rule_in_the_file(tmp_path):
    experiment = gf.preset("addition-regression").experiment
    experiment = gf.Experiment.from_dict(
        experiment.to_dict() | {"phase": {"name": "inversion", "threshold": 0.9, "margin": 0.05}}
    )
    g = gf.Grid(experiment=experiment, axes={"model.seed": (0, 1)})
    accuracies = {name: [1.0, 0.95] for name in ("final_train_acc", "final_val_acc")}
    made(g, 1, 2, **accuracies, best_val_acc=[1.0, 1.0]).save(tmp_path / "r.h5")
    r = Results.load(tmp_path / "r.h5")
    assert r.rule == gf.InversionRule()
    assert r.counts()["coexistence"] == 2
    assert r.columns()["phase"].tolist() == ["coexistence"] * 2
    import h5py

    with h5py.File(tmp_path / "r.h5") as file:
        attributes = dict(file["phase"].attrs)
    assert attributes["flag_meanings"].split()[1:3] == ["coexistence", "partial_inversion"]
    assert "the first that holds: coexistence" in attributes["definition"]
