"""A slice of results, and phases by another rule."""

from dataclasses import replace

import numpy as np
import pytest

import grokfast as gf
from grokfast.errors import UsageError
from grokfast.outcomes import RUNNING
from grokfast.phases import PhaseRule


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny real run with weights, curves and a further threshold."""
    grid = gf.preset("addition-classification").grid(
        lr=[1e-3, 1e-2],
        weight_decay=[0.0, 5.0],
        model_seed=[0, 1, 2],
        width=8,
        steps=40,
        stop="never",
        **{
            "record.weights": True,
            "evaluation.thresholds": (0.2,),
            "phase.threshold": 0.5,
            "phase.tolerance": 0.0,
        },
    )
    return gf.run(grid, engine="reference", device="cpu", progress=False)


def test_a_slice_is_the_run_of_the_smaller_grid(trained, tmp_path):
    part = trained.where(model_seed=1, lr=0.9e-2)
    assert part.axes == {"lr": (1e-2,), "weight_decay": (0.0, 5.0), "model_seed": (1,)}
    assert part.grid.cells == tuple(trained.grid.cells[k] for k in (7, 10))
    for name in ("t_train", "t_val", "phase", "train_loss", "weight_decay", "model_seed"):
        np.testing.assert_array_equal(part[name], trained[name][[7, 10]], name)
    ours, theirs = (
        part.module(weight_decay=5),
        trained.module(lr=1e-2, weight_decay=5, model_seed=1),
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a == b).all()
    digests = trained.data_digests()
    assert digests
    assert part.data_digests() == digests, "all cells have the same data"
    part.save(tmp_path / "part.h5")
    again = gf.Results.load(tmp_path / "part.h5")
    assert again.grid == part.grid
    assert again.counts() == part.counts()


def test_a_slice_to_a_single_cell_and_of_a_setting(trained):
    assert len(trained.where(lr=1e-3, weight_decay=5, model_seed=2)) == 1
    grid = trained.grid.grid(weight_decay=0.0, lr=1e-3).setting(
        "batch", {"8": {"batch_size": 8}, "full": {"batch_size": 0}}
    )
    runs = np.arange(grid.size)
    columns = {"run": (("run",), runs), "status": (("run",), np.full(6, 2, np.uint8))}
    seeds = {"model_seed": (("run",), np.array(grid.column("model.seed", runs)))}
    batch = {"batch": (("run",), np.array(grid.column("batch", runs), object))}
    results = replace(trained, grid=grid, variables=columns | seeds | batch, weights=[])
    part = results.where(batch="8")
    assert [cell.batch_size for cell in part.grid.cells] == [8, 8, 8]
    assert part["run"].tolist() == [0, 1, 2]
    assert part.axes == {"model_seed": (0, 1, 2), "batch": ("8",)}


def test_what_is_no_slice(trained):
    with pytest.raises(UsageError, match="'lrr' is no axis of these results; did you mean lr"):
        trained.where(lrr=1)
    with pytest.raises(UsageError, match="'width' is no axis of these results"):
        trained.where(width=8)
    with pytest.raises(UsageError, match="where names no axis"):
        trained.where()
    with pytest.raises(UsageError, match="lr 5 is beyond"):
        trained.where(lr=5)


@pytest.fixture
def reached(trained):
    """The same with T_train 3 everywhere, and T_val 23 in the second half."""
    steps = {"t_train": np.full(12, 3), "t_val": np.where(np.arange(12) < 6, -1, 23)}
    variables = {name: (("run",), values) for name, values in steps.items()}
    return replace(trained, variables=trained.variables | variables)


def test_phases_by_another_gap(reached):
    assert reached.phases().tolist() == [2] * 6 + [0] * 6
    results = reached.reread(gap=20)
    assert results.phases().tolist() == results["phase"].tolist() == [2] * 6 + [1] * 6
    assert reached.reread(gap=20, gap_inclusive=True).phases().tolist() == [2] * 6 + [0] * 6
    assert results.rule == replace(reached.rule, gap=20)
    assert reached.rule.gap == 1000, "the run's own results are as they were"
    assert results.reread(gap="1e3", gap_inclusive="no").grid == reached.grid


def test_a_threshold_that_was_looked_at(trained):
    results = trained.reread(threshold=0.2)
    for name in ("t_train", "t_val"):
        np.testing.assert_array_equal(results[name], trained.crossings[f"{name}_0.2"])
    assert results.complete
    with pytest.raises(UsageError, match=r"with accuracies of 0\.5, 0\.2 as reached; train with"):
        trained.reread(threshold=0.7)
    with pytest.raises(UsageError, match=r"0\.2 as reached$"):
        trained.reread(strict=True)
    with pytest.raises(UsageError, match="cannot be read anew"):
        trained.reread(threshold=0.2, tolerance=0.1)


def test_a_cell_that_stopped_before_the_threshold_is_not_finished(trained):
    early = replace(trained, variables=dict(trained.variables))
    early.variables["steps_done"] = (("run",), np.full(12, 20))
    crossings = np.where(np.arange(12) < 6, 5, -1)[:, None]
    for name in ("train_crossings", "val_crossings"):
        early.variables[name] = (("run", "threshold"), crossings)
    results = early.reread(threshold=0.2)
    assert (results["status"][6:] == RUNNING).all()
    assert (results["status"][:6] != RUNNING).all()
    assert not results.complete
    assert results.phases().tolist() == [0] * 6 + [-1] * 6


def test_another_rule(trained, reached):
    late = reached.reread("collapse", kept=0.99)
    assert late.rule == gf.CollapseRule(threshold=0.5, kept=0.99)
    assert late.phases().tolist() == [4] * 12
    results = trained.reread("inversion", margin=0.1)
    assert results.rule == gf.InversionRule(threshold=0.5, margin=0.1)
    assert set(results.counts()) == set(gf.InversionRule.phases)
    assert (results.phases() >= 0).all()
    bare = replace(
        trained, variables={k: v for k, v in trained.variables.items() if "acc" not in k}
    )
    with pytest.raises(UsageError, match="what rule inversion looks at is not in these results"):
        bare.reread("inversion")


@pytest.mark.parametrize(
    ("rule", "fields", "message"),
    [
        ("delays", {}, "unknown phase rule 'delays'; known are .*did you mean delay"),
        (None, {"gapp": 1}, "rule delay has no 'gapp'; it has .*did you mean gap"),
        (None, {"gap": -1}, "phase.gap is -1"),
        (None, {"gap": "soon"}, "phase.gap='soon' is not a whole number"),
        (None, {"gap": 1.5}, "phase.gap is 1.5; give a value of type int"),
    ],
)
def test_what_is_no_rule(trained, rule, fields, message):
    with pytest.raises(UsageError, match=message):
        trained.reread(rule, **fields)


def test_what_differs_from_cell_to_cell_is_read_anew_in_a_slice(trained):
    grid = gf.Grid(experiment=trained.grid.experiment, axes={"phase.gap": (10, 20)})
    steps = {"t_train": np.array([1, 1]), "t_val": np.array([16, 16])}
    more = {"run": np.arange(2), "phase": np.array([1, 0]), "steps_done": np.full(2, 40)}
    status = {"status": np.full(2, 2, np.uint8), "phase.gap": np.array([10, 20])}
    variables = {k: (("run",), v) for k, v in (steps | more | status).items()}
    results = replace(trained, grid=grid, variables=variables, weights=[])
    with pytest.raises(UsageError, match="phase.gap differs from cell to cell"):
        results.reread(gap=5)
    part = results.where(**{"phase.gap": 20})
    assert part.phases().tolist() == [0]
    assert isinstance(part.rule, PhaseRule)
    assert part.reread(gap=5).phases().tolist() == [1]
