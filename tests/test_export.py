"""Tables for other programs, read back with other programs."""

import csv
import json
import sys

import numpy as np
import pytest

import grokfast as gf
from grokfast.export import export
from grokfast.fields import scalar_fields, short_name
from grokfast.results import DIVERGED, OK, RUNNING, Results, hyperparameter_columns


@pytest.fixture
def results():
    """Four cells: grokked, diverged, unfinished, and one of another activation."""
    grid = gf.preset("addition-classification").grid(
        lr=[1e-3, 0.1], weight_decay=5.0, activation=["tanh", "relu"]
    )
    run = np.arange(4)
    acc = np.array([[0.1, 0.5, 0.9], [0.1, np.nan, np.nan], [0.2, 0.3, np.nan], [0.1, 0.2, 0.3]])
    loss = np.array([[3, 2, 0.1], [3, np.inf, np.nan], [3, 2, np.nan], [3, 2, 1]])
    per_cell = {
        **hyperparameter_columns(grid, range(4)),
        "status": np.array([OK, DIVERGED, RUNNING, OK], np.uint8),
        "phase": np.array([1, 3, -1, 2], np.int8),
        "t_train": np.array([10, -1, -1, 90]),
        "t_val": np.array([2000, -1, -1, -1]),
        "diverged_at": np.array([-1, 20, -1, -1]),
        "steps_done": np.array([2000, 19, 20, 100_000]),
        "epoch_correct": np.zeros(4, np.int64),
        "epoch_loss": np.zeros(4),
    }
    variables = {"run": (("run",), run), "step": (("step",), np.array([1, 20, 2000]))}
    variables |= {name: (("run",), values) for name, values in per_cell.items()}
    variables["train_acc"] = (("run", "step"), acc.astype(np.float32))
    variables["train_loss"] = (("run", "step"), loss.astype(np.float32))
    return Results(grid=grid, variables=variables)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_one_tidy_row_a_cell(results, tmp_path):
    found = rows(export(results, tmp_path / "x.csv"))
    assert [r["phase"] for r in found] == ["grokking", "confusion", "", "memorization"]
    assert [r["status"] for r in found] == ["ok", "diverged", "running", "ok"]
    assert [r["activation"] for r in found] == ["tanh", "relu", "tanh", "relu"]
    assert found[0]["lr"] == "0.001"
    assert list(found[0])[:4] == ["run", "lr", "activation", "weight_decay"]
    assert not {"epoch_correct", "epoch_loss"} & set(found[0])


def test_csv_tells_never_from_not_yet(results, tmp_path):
    found = rows(export(results, tmp_path / "x.csv"))
    assert [r["t_train"] for r in found] == ["10", "NA", "", "90"]
    assert [r["t_val"] for r in found] == ["2000", "NA", "", "NA"]
    assert [r["diverged_at"] for r in found] == ["NA", "20", "", "NA"]
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(tmp_path / "x.csv")
    assert table["t_val"].isna().tolist() == [False, True, True, True]
    assert (results["t_val"] == [2000, -1, -1, -1]).all(), "the results are as they were"


def test_csv_has_final_losses_and_constant_fields(results, tmp_path):
    results.variables["val_loss"] = (("run", "step"), 2 * results["train_loss"])
    found = rows(export(results, tmp_path / "x.csv"))
    assert [r["final_train_loss"] for r in found] == ["0.1", "inf", "2.0", "1.0"]
    assert [r["final_val_loss"] for r in found] == ["0.2", "inf", "4.0", "2.0"]
    assert [r["final_loss_step"] for r in found] == ["2000", "20", "20", "2000"]
    for name, value in (
        ("task.p", "10"), ("loss", "cross_entropy"), ("optimizer.beta2", "0.999"),
        ("evaluation.thresholds", "none"), ("steps", "100000"), ("optimizer.warmup", "0"),
    ):  # fmt: skip
        assert [r[name] for r in found] == [value] * 4
    fields = {short_name(path) for path in scalar_fields(results.grid.experiment)}
    assert fields <= set(found[0])


def test_fields_that_follow_from_a_setting_have_each_cell_s_value():
    grid = gf.preset("modular-minibatch").grid(
        batch=["8", "full"], **{"task.fraction": 0.5, "task.corruption": 0.0}
    )
    columns = Results(grid, {"run": (("run",), np.arange(grid.size))}).constants()
    assert columns["batch_size"].tolist() == [cell.batch_size for cell in grid.cells]
    assert columns["steps"].tolist() == [cell.steps for cell in grid.cells]


def test_standard_output(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results.variables["activation"] = (("run",), np.array(["=1+1", "-x", "tanh", "relu"], object))
    export(results, "-")
    out = capsys.readouterr().out
    assert out == export(results, "x.csv").read_text()
    assert "'=1+1" in out and "'-x" in out, "a formula is none"
    export(results, "-", long=True)
    assert capsys.readouterr().out == export(results, "y.csv", long=True).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.csv", "y.csv"]


def test_long_csv_has_one_row_for_each_measured_step(results, tmp_path):
    found = rows(export(results, tmp_path / "x.csv", long=True))
    assert [(r["run"], r["step"]) for r in found] == [
        ("0", "1"), ("0", "20"), ("0", "2000"), ("1", "1"), ("1", "20"),
        ("2", "1"), ("2", "20"), ("3", "1"), ("3", "20"), ("3", "2000"),
    ]  # fmt: skip
    assert found[2]["train_acc"] == "0.9", "float32 digits, not those of its float64 value"
    assert (found[4]["train_acc"], found[4]["train_loss"]) == ("", "inf")


@pytest.mark.parametrize("long", [False, True])
def test_parquet_holds_what_csv_holds(results, tmp_path, long):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(export(results, tmp_path / "x.parquet", long=long)).to_pydict()
    assert list(table) == list(rows(export(results, tmp_path / "x.csv", long=long))[0])
    if not long:
        assert table["t_val"] == [2000, -1, -1, -1]
        assert table["activation"] == ["tanh", "relu", "tanh", "relu"]


def test_netcdf_opens_in_xarray(results, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(export(results, tmp_path / "x.nc"), engine="h5netcdf") as ds:
        assert ds.train_acc.dims == ("run", "step")
        assert {"lr", "weight_decay", "activation", "step"} <= set(ds.coords)
        assert ds.t_val.values.tolist() == [2000, -1, -1, -1]
        assert gf.Grid.from_json(ds.attrs["grid_json"]) == results.grid


def test_json_is_strict_json(results, tmp_path):
    text = export(results, tmp_path / "x.json", long=True).read_text()
    data = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert data["name"] == "addition-classification"
    assert gf.Experiment.from_dict(data["experiment"]) == results.grid.experiment
    assert data["rows"][4]["train_acc"] is None
    assert data["rows"][4]["train_loss"] == "inf"


def test_a_file_is_not_overwritten_unasked(results, tmp_path):
    out = tmp_path / "x.csv"
    out.write_text("mine")
    with pytest.raises(gf.UsageError, match="exists"):
        export(results, out)
    assert out.read_text() == "mine"
    export(results, out, overwrite=True)
    assert out.read_text().startswith("run,")


@pytest.mark.parametrize(
    ("name", "long", "says"),
    [
        ("x.xlsx", False, "cannot tell the format"),
        ("x", False, "cannot tell the format"),
        ("x.nc", True, "leave out --long"),
        ("no/where.csv", False, "no such folder"),
    ],
)
def test_bad_targets(results, tmp_path, name, long, says):
    with pytest.raises(gf.UsageError, match=says):
        export(results, tmp_path / name, long=long)
    assert not list(tmp_path.iterdir())


def test_long_needs_curves(results, tmp_path):
    for name in ("train_acc", "train_loss", "step"):
        del results.variables[name]
    with pytest.raises(gf.UsageError, match="kept no curves"):
        export(results, tmp_path / "x.csv", long=True)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("x.parquet", "pyarrow", "parquet"),
        ("x.nc", "xarray", "xarray"),
        ("x.nc", "h5netcdf", "xarray"),
    ],
)
def test_a_missing_library_names_its_extra(results, tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(gf.EnvironmentProblem, match=rf"grokfast\[{extra}\]"):
        export(results, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_text_that_a_spreadsheet_would_run_is_text(tmp_path):
    from grokfast.export import write_csv

    wild = ["=cmd|' /C calc'!A0", "+1+2", "-2+3", "@SUM(A1)", "\tx", "tanh", "-1.5", "+3e2", "a=b"]
    write_csv({"=name": np.array(wild, object), "x": -np.arange(9.0)}, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["'=name", "x"]
    kept = ["'" + w if k < 5 else w for k, w in enumerate(wild)]
    assert [row[0] for row in rows] == kept
    assert [float(row[1]) for row in rows] == [-k for k in range(9)]
