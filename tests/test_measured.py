"""Published losses and accuracies at steps, beside made-up curves; tables over any two axes."""

import json
from dataclasses import replace

import numpy as np
import pytest

import grokfast as gf
from grokfast.agree import agree, load_reference
from grokfast.agree.measured import Measurements
from grokfast.agree.tables import PUBLISHED
from grokfast.cli import show
from grokfast.results import OK, Results, hyperparameter_columns

GOLDEN = PUBLISHED / "modular_curves.json"
CURVES = ("train_loss", "val_loss", "train_acc", "val_acc")


def experiment(corruption=0.0, decay=5.0, **changes):
    golden = gf.preset("modular-addition").experiment
    golden = golden.replace(
        **{"task.corruption": corruption, "optimizer.weight_decay": decay, "steps": 1000}
    )
    return replace(golden, **changes)


def made(grid, step=(), *, accuracies=None, **curves):
    n = grid.size
    columns = {
        "run": np.arange(n),
        **hyperparameter_columns(grid, range(n)),
        "status": np.full(n, OK, np.uint8),
        "t_train": np.full(n, -1),
        "t_val": np.full(n, -1),
        "steps_done": np.full(n, grid.experiment.steps),
        **(accuracies or {}),
    }
    variables = {name: (("run",), np.asarray(values)) for name, values in columns.items()}
    variables["step"] = (("step",), np.asarray(step, np.int64))
    for name, values in curves.items():
        values = np.broadcast_to(np.asarray(values, np.float32), (n, len(step)))
        variables[name] = (("run", "step"), values)
    results = Results(grid=grid, variables=variables, complete=True)
    variables["phase"] = (("run",), results.phases())
    return results


def one(**changes):
    return gf.Grid(experiment=experiment(**changes), name="modular-addition")


@pytest.fixture
def reference(tmp_path):
    def write(*rows, fields=None, tolerance=None):
        table = {
            "title": "mine",
            "fields": {"task.name": "modular", "task.fraction": 0.5} | (fields or {}),
            "tolerance": tolerance or {"loss": 1e-5, "acc": 0.005},
            "rows": list(rows),
        }
        path = tmp_path / "reference.json"
        path.write_text(json.dumps({"source": "nobody", "measured": [table]}))
        return path

    return write


def verdict(path, results):
    (found,) = agree(results, path)
    (row,) = found.rows
    return row.verdict


def test_the_golden_curves_agree_with_themselves():
    tables = load_reference(GOLDEN)
    assert [len(t.points) for t in tables] == [28, 24, 12, 18]
    for table, (corruption, decay) in zip(
        tables, [(0.0, 5.0), (0.35, 0.0), (0.35, 5.0), (0.35, 15.0)], strict=True
    ):
        step = sorted({p.step for p in table.points})
        curves = {name: np.full(len(step), np.nan) for name in CURVES}
        for point in table.points:
            curves[point.column][step.index(point.step)] = point.published
        results = made(one(corruption=corruption, decay=decay), step, **curves)
        (found,) = agree(results)
        assert found.table == table.title
        assert found.verdicts == {"within": len(table.points)}
        assert "github.com/d-doshi/Grokking" in found.source


def test_golden_rows_find_their_cells_in_a_grid():
    axes = {"optimizer.weight_decay": (0.0, 5.0, 15.0), "task.corruption": (0.35, 0.5)}
    one = gf.Grid(experiment=experiment(0.35), axes=axes)
    for grid in (one, gf.preset("modular-corruption")):
        found = agree(made(grid, [1, 100], val_acc=[0.5, 0.5]))
        assert [a.cells for a in found] == [1, 1, 1]
        assert "coexistence" in found[0].table


def test_the_first_step_is_compared_to_the_count(reference):
    row = {"step": 1, "val_acc": 29 / 4705, "tolerance": {"acc": 1e-6}}
    assert verdict(reference(row), made(one(), [1], val_acc=[29 / 4705])) == "within"
    assert verdict(reference(row), made(one(), [1], val_acc=[30 / 4705])) == "apart"


def test_a_steep_curve_may_be_one_step_off(reference):
    row = {"step": 30, "val_acc": 0.25, "transition": True}
    late = made(one(), [29, 30, 31], val_acc=[0.1, 0.2, 0.3])
    assert verdict(reference(row), late) == "within one step"
    assert verdict(reference({**row, "transition": False}), late) == "apart"
    later = made(one(), [29, 30, 31], val_acc=[0.0, 0.1, 0.2])
    assert verdict(reference(row), later) == "transition"


def test_between_recorded_steps_the_curve_is_a_line(reference):
    results = made(one(), [10, 20], val_acc=[0.2, 0.6])
    assert verdict(reference({"step": 15, "val_acc": 0.4}), results) == "within"
    assert verdict(reference({"step": 15, "val_acc": 0.5}), results) == "between recorded steps"
    assert verdict(reference({"step": 15, "val_acc": 0.7}), results) == "apart"
    assert verdict(reference({"step": 21, "val_acc": 0.6}), results) == "not recorded"
    assert verdict(reference({"step": 15, "train_acc": 0.6}), results) == "not recorded"


def test_columns_of_whole_cells_over_an_axis(reference):
    rows = [{"fields": {"model.seed": s}, "final_val_acc": s / 10} for s in (1, 2, 3)]
    grid = gf.Grid(experiment=experiment(), axes={"model.seed": (1, 2)})
    accuracies = {"final_val_acc": np.array([0.1, 0.3], np.float32)}
    (found,) = agree(made(grid, accuracies=accuracies), reference(*rows))
    assert [row.verdict for row in found.rows] == ["within", "apart"]
    assert found.cells == 2


def test_replicates_are_compared_by_their_mean(reference):
    grid = gf.Grid(experiment=experiment(), axes={"model.seed": (1, 2)})
    results = made(grid, [5], val_acc=[[0.4], [0.6]])
    (found,) = agree(results, reference({"step": 5, "val_acc": 0.5}))
    assert (found.cells, found.rows[0].verdict) == (2, "within")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task.fraction": 0.3}, "its task.fraction is 0.3, which the run does not have"),
        ({"task.name": "addition"}, "its task is addition, the run's modular"),
        ({"task.length": 3}, "the run has no task.length"),
    ],
)
def test_nothing_in_common_is_said_with_the_reason(fields, says, reference):
    with pytest.raises(gf.UsageError, match=says):
        agree(made(one()), reference({"step": 1, "val_acc": 0.5}, fields=fields))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], r"measured\[0\].rows is no list of objects, or empty"),
        ([{"step": 1.5, "val_acc": 0.5}], r"rows\[0\].step is 1.5, not a step"),
        ([{"step": 1, "val_acc": "x"}], r"rows\[0\].val_acc is 'x', not a number"),
        ([{"step": 1, "norm": 2.0}], r"rows\[0\].norm's tolerance is None, not a number"),
    ],
)
def test_a_malformed_row_names_the_place(rows, says, reference):
    with pytest.raises(gf.UsageError, match=says):
        load_reference(reference(*rows))


def test_what_is_printed(capsys, reference):
    rows = [{"step": 10, "val_acc": 0.25}, {"step": 99, "val_acc": 0.5}]
    found = agree(made(one(), [10], val_acc=[0.26]), reference(*rows))
    show.agreement(found, False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "published: mine"
    assert lines[4].split() == [
        "10",
        "val_acc",
        "0.25",
        "0.2599999905",
        "1.0e-02",
        "5e-03",
        "apart",
    ]
    assert lines[5].split() == ["99", "val_acc", "0.5", "-", "-", "5e-03", "not", "recorded"]
    assert lines[6] == "verdicts: apart 1, not recorded 1"
    show.agreement(found, True)
    (data,) = json.loads(capsys.readouterr().out)
    assert data["rows"][1]["ours"] is None
    assert data["verdicts"] == {"apart": 1, "not recorded": 1}


def test_every_measurement_has_a_source():
    tables = [t for t in load_reference() if isinstance(t, Measurements)]
    assert len(tables) == 9
    assert all(t.source for t in tables)


def division(crossings, val):
    """Results of power-division: three seeds with these first steps to 99% and curves."""
    grid = gf.preset("power-division")
    step = np.arange(10, 20_001, 10)
    train = np.where(step < 600, 0.5, 1.0)
    train[(step > 1000) & (step % 400 == 0)] = 0.2
    results = made(grid)
    results.variables |= {
        "step": (("step",), step),
        "train_acc": (("run", "step"), np.float32([train] * 3)),
        "val_acc": (("run", "step"), np.float32([np.where(step < val, 0.01, 1.0)] * 3)),
        "threshold": (("threshold",), np.array([0.99])),
        "train_crossings": (("run", "threshold"), np.full((3, 1), 600)),
        "val_crossings": (("run", "threshold"), np.array(crossings)[:, None]),
    }
    return results


def test_first_steps_and_signatures_are_medians_within_ranges(capsys):
    (found,) = agree(division([-1, 9000, 12_000], 9000))
    assert found.table == "division mod 97, 30% for training"
    ours = {row.column: (row.ours, row.verdict) for row in found.rows}
    assert ours["t_train_0.99"] == (600, "within")
    assert ours["t_val_0.99"] == (12_000, "within"), "never is later than 12,000"
    assert ours["curves.dips"] == (48, "within")
    assert ours["curves.spacing"] == (400, "within")
    assert ours["curves.last_val"] == (1.0, "within")
    assert ours["t_val_0.5"][1] == "not recorded"
    late = {row.column: row.verdict for row in agree(division([-1, -1, 400], 9000))[0].rows}
    assert late["t_val_0.99"] == "apart"
    early = {row.column: row.verdict for row in agree(division([500] * 3, 500))[0].rows}
    assert early["t_val_0.99"] == "apart"
    assert early["curves.gap"] == "apart"


def letters(rows, **changes):
    """Results over corruption (down) and fraction (across), by letters of the inversion rule."""
    fractions, corruptions = (0.3, 0.5, 0.7), (0.2, 0.4)
    axes = {"task.corruption": corruptions, "task.fraction": fractions, **changes}
    grid = gf.Grid(experiment=experiment(), axes=axes, name="modular-corruption")
    ends = {"C": (0.95, 0.95), "P": (0.88, 1.0), "I": (0.5, 1.0), "M": (1.0, 0.1), "X": (0.1, 0.1)}
    # partial inversion is 0.88 at a corruption of 0.2 and of 0.4
    train, val = np.array([ends[c] for c in "".join(rows)], np.float32).T
    accuracies = {"final_train_acc": train, "final_val_acc": val, "best_val_acc": val}
    return made(grid, accuracies=accuracies)


def test_another_run_is_a_table_over_its_two_longest_axes(tmp_path):
    letters(["MCP", "MPI"]).save(tmp_path / "theirs.h5")
    (table,) = load_reference(tmp_path / "theirs.h5")
    assert table.axes == ("task.fraction", "task.corruption")
    (found,) = agree(letters(["MCP", "MII"]), tmp_path / "theirs.h5")
    assert (found.phases["overall"].agree, found.cells) == (5, 6)
    assert found.confusion["partial inversion"]["full inversion"] == 1
    assert list(found.confusion) == list(gf.InversionRule.phases)


def test_runs_by_different_rules_are_not_compared(tmp_path):
    letters(["MCP", "MPI"]).save(tmp_path / "theirs.h5")
    ours = letters(["MCP", "MPI"])
    ours.grid = gf.Grid(experiment=experiment(phase=gf.PhaseRule()), axes=ours.grid.axes)
    with pytest.raises(gf.UsageError, match="its phases are coexistence, .* the run's comprehen"):
        agree(ours, tmp_path / "theirs.h5")


def test_a_diagram_names_its_axes(tmp_path):
    diagram = {
        "task": "addition-regression", "columns": "init_scale", "rows": "model.activation",
        "init_scale": [0.5, 1.0], "model.activation": ["tanh", "relu"], "phases": ["CG", "MX"],
        "set": {"optimizer.lr": 1e-3, "optimizer.weight_decay": 1.0},
    }  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"source": "nobody", "diagrams": [diagram]}))
    grid = gf.preset("addition-regression").grid(
        lr=1e-3, weight_decay=1.0, activation=["relu", "tanh"], init_scale=[0.5, 1.0]
    )
    results = made(grid)
    results.variables["t_train"] = (("run",), np.array([10, -1, 10, 10]))  # M X of relu, C G
    results.variables["t_val"] = (("run",), np.array([-1, -1, 20, 5000]))
    (found,) = agree(results, path)
    assert found.phases["overall"].agree == found.cells == 4
    with pytest.raises(gf.UsageError, match="no init_scale and activation in common"):
        agree(made(grid.grid(init_scale=[2.0, 3.0])), path)
    diagram["rows"] = "model.colour"
    diagram["model.colour"] = ["red", "blue"]
    path.write_text(json.dumps({"diagrams": [diagram]}))
    with pytest.raises(gf.UsageError, match=r"diagrams\[0\]: unknown field 'model.colour'"):
        load_reference(path)


def test_observables_are_compared_at_their_own_steps(tmp_path):
    results = made(gf.preset("parity-baseline"), step=(0, 10), val_acc=(0.5, 0.6))
    results.variables |= {
        "observed": (("observed",), np.array([0, 5, 50])),
        "spectral_norm": (("run", "observed"), np.float32([[2.4, 2.3, 1.7]] * 5)),
    }
    rows = [{"step": 5, "spectral_norm": 2.31}, {"step": 50, "spectral_norm": 1.0}]
    table = {"fields": {"task.name": "parity"}, "tolerance": {"norm": 0.02}, "rows": rows}
    (tmp_path / "t.json").write_text(json.dumps({"measured": [table]}))
    (found,) = agree(results, tmp_path / "t.json")
    assert [(row.step, row.verdict) for row in found.rows] == [(5, "within"), (50, "apart")]
