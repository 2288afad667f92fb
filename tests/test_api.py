"""The package as a notebook uses it: names, presets by name, files, and what is refused."""

import warnings

import pytest

import grokfast as gf
from grokfast.hardware import cores


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    grid = gf.preset("addition-classification").grid(lr=[1e-3, 1e-2], weight_decay=0.0, width=4)
    out = tmp_path_factory.mktemp("run") / "r.h5"
    return gf.run(grid.grid(steps=20), out=out, engine="reference", device="cpu", progress=False)


def test_a_file_is_loaded(results, tmp_path):
    results.save(tmp_path / "a.h5")
    assert gf.load(tmp_path / "a.h5").counts() == results.counts()
    with pytest.raises(gf.UsageError, match="no such file"):
        gf.load(tmp_path / "b.h5")


def test_a_preset_is_run_by_its_name():
    with pytest.raises(gf.UsageError, match="did you mean addition-regression"):
        gf.run("addition-regresion")
    with pytest.raises(gf.UsageError, match="there are no|unknown device"):
        gf.run("addition-regression", device="tpu")
    p = gf.plan("modular-addition", engine="compiled", device="cpu", threads=1)
    assert (p.cells, p.steps) == (1, 100)


@pytest.mark.parametrize("what", [None, gf.preset("modular-addition").experiment, {"lr": 1}])
def test_what_is_no_grid_is_refused(what):
    for function in (gf.run, gf.plan):
        with pytest.raises(gf.UsageError, match="neither a grid nor the name of a preset; one exp"):
            function(what)


@pytest.mark.parametrize("budget", [0, -1, 21, 10**9])
def test_a_budget_beyond_what_was_trained_is_refused(results, budget):
    for read in (
        results.phases,
        results.finished,
        lambda budget: results.moments("t_train", budget),
        lambda budget: results.aggregate("lr", budget=budget),
    ):
        with pytest.raises(gf.UsageError, match="trained for 20 steps at most; give 1 to 20"):
            read(budget=budget)
    assert len(results.phases(budget=20)) == 2


def test_a_notebook_shows_what_there_is(results):
    html = results._repr_html_()
    assert "<b>addition-classification</b>: 2 cells, complete" in html
    assert "<tr><th>lr</th><td>2 values: 0.001 to 0.01</td></tr>" in html
    for phase, number in results.counts().items():
        assert f"<tr><th>{phase}</th><td>{number}</td></tr>" in html


def test_a_notebook_runs_nothing_that_a_file_holds(results):
    from dataclasses import replace

    grid = replace(results.grid, name="<script>alert(1)</script>")
    html = replace(results, grid=grid)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("name", ["x.csv", "x.PNG", "x.parquet"])
def test_results_are_not_written_under_the_name_of_something_else(name, tmp_path):
    with pytest.raises(gf.UsageError, match=r"results are written as HDF5; name it x\.h5"):
        gf.run("addition-regression", out=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_more_threads_than_cores_are_said():
    grid = gf.preset("addition-classification").grid(lr=1e-3, weight_decay=0.0, width=4, steps=1)
    options = {"engine": "reference", "device": "cpu", "progress": False}
    with pytest.warns(UserWarning, match=f"threads is {cores() + 1}, but this process has"):
        gf.run(grid, threads=cores() + 1, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.run(grid, threads=cores(), **options)


def test_without_a_checkpoint_a_larger_budget_begins_again(tmp_path):
    grid = gf.preset("addition-classification").grid(
        lr=1e-3, weight_decay=0.0, width=4, stop="never"
    )
    options = {"engine": "reference", "device": "cpu", "progress": False, "out": tmp_path / "a.h5"}
    gf.run(grid.grid(steps=10), checkpoint=False, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    with pytest.warns(
        UserWarning,
        match=r"1 unfinished cell to start again, 10 model-steps to train a second time: ",
    ):
        r = gf.run(grid.grid(steps=20), **options)
    assert r["steps_done"].tolist() == [20]
    with pytest.raises(gf.UsageError, match="save_every is -1; give seconds, 0 or more"):
        gf.run(grid, save_every=-1)
