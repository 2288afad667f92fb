"""Agreement with published tables: on synthetic results whose agreement is known."""

import json
from pathlib import Path

import numpy as np
import pytest

import grokfast as gf
from grokfast.agree import Table, agree, load_reference
from grokfast.agree.tables import PUBLISHED, interior
from grokfast.phases import PHASES, classify
from grokfast.results import OK, RUNNING, Results, hyperparameter_columns

#: T_train and T_val that make each phase under the addition rule.
STEPS = {"C": (300, 700), "G": (300, 20_000), "M": (900, -1), "F": (-1, -1)}


def made(grid, t_train, t_val, *, status=OK, steps_done=None):
    """Finished results of a whole grid with the given steps."""
    n = grid.size
    t_train, t_val = (np.broadcast_to(np.asarray(t, np.int64), n).copy() for t in (t_train, t_val))
    status = np.broadcast_to(np.asarray(status, np.uint8), n).copy()
    done = grid.experiment.steps if steps_done is None else steps_done
    columns = {
        "run": np.arange(n),
        **hyperparameter_columns(grid, range(n)),
        "status": status,
        "t_train": t_train,
        "t_val": t_val,
        "diverged_at": np.full(n, -1),
        "steps_done": np.full(n, done),
        "phase": classify(t_train, t_val, grid.experiment.phase, finished=status == OK),
    }
    variables = {name: (("run",), values) for name, values in columns.items()}
    return Results(grid=grid, variables=variables, complete=True)


def lettered(grid, rows):
    """Results with the phases of letters, ``rows[weight decay][learning rate]``."""
    letters = "".join("".join(column) for column in zip(*rows, strict=True))  # lr is the slow axis
    return made(grid, *np.array([STEPS[letter] for letter in letters]).T)


LR, DECAY = [1e-4, 1e-3, 1e-2], [0.0, 1.0, 5.0]
ROWS = ["CCM", "CCM", "GMF"]


def grid(**changes):
    return gf.preset("addition-classification").grid(
        **({"lr": LR, "weight_decay": DECAY} | changes)
    )


def diagram(**changes):
    return {
        "task": "addition-classification",
        "activation": "tanh",
        "data_seed": 42,
        "model_seed": 102,
        "learning_rate": LR,
        "weight_decay": DECAY,
        "letters": {"C": "comprehension", "G": "grokking", "M": "memorization", "F": "confusion"},
        "phases": ROWS,
    } | changes


@pytest.fixture
def reference(tmp_path):
    def write(data):
        path = tmp_path / "reference.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return write


def test_interior_counts_the_neighbours_that_exist():
    rows = [[0, 0, 2], [0, 0, 2], [1, 2, 3]]
    expected = [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(interior(np.array(rows, np.int8)), np.array(expected, bool))
    assert interior(np.zeros((3, 4), np.int8)).all()
    assert interior(np.zeros((1, 1), np.int8)).all()


def test_equal_diagrams_agree_everywhere(reference):
    (found,) = agree(lettered(grid(), ROWS), reference({"diagrams": [diagram()]}))
    assert found.cells == found.published == 9
    assert {k: (s.agree, s.of) for k, s in found.phases.items()} == {
        "overall": (9, 9),
        "interior": (1, 1),
        "border": (8, 8),
    }
    assert found.notes == ()


def test_misses_are_counted_and_shown_by_phase(reference):
    ours = ["MCM", "CCM", "GMM"]
    (found,) = agree(lettered(grid(), ours), reference({"diagrams": [diagram()]}))
    assert found.phases["overall"].agree == 7
    assert found.phases["interior"].agree == 0
    assert found.confusion["comprehension"]["memorization"] == 1
    assert found.confusion["confusion"]["memorization"] == 1
    assert sum(n for row in found.confusion.values() for n in row.values()) == 9
    data = json.loads(json.dumps(found.to_dict()))
    assert data["phases"]["border"] == {"agree": 7, "of": 8, "fraction": 7 / 8}


def test_a_part_of_the_grid_is_compared_as_far_as_it_goes(reference):
    part = grid(lr=[1e-3 * (1 + 1e-9), 2e-3, 1e-2], weight_decay=[0.0, 5.0])
    (found,) = agree(lettered(part, ["CMM", "MMF"]), reference({"diagrams": [diagram()]}))
    assert (found.cells, found.published) == (4, 9)
    assert found.phases["overall"].agree == 4


def test_unfinished_cells_are_left_out(reference):
    status = np.full(9, OK)
    status[0] = RUNNING
    r = made(grid(), -1, -1, status=status)
    (found,) = agree(r, reference({"diagrams": [diagram()]}))
    assert (found.cells, found.unfinished) == (8, 1)


def test_cells_of_the_reference_seeds_and_activation_are_chosen(reference):
    axes = {"model_seed": [101, 102], "activation": ["relu", "tanh", "leaky_relu"]}
    g = grid(**axes)
    right = [c.model.seed == 102 and c.model.activation == "leaky_relu" for c in g.cells]
    t_val = np.where(right, 700, -1)
    path = reference(
        {"diagrams": [diagram(activation="LeakyReLU(0.1)", phases=["CCC"] * 3), diagram()]}
    )
    leaky, tanh = agree(made(g, 300, t_val), path)
    assert leaky.cells == tanh.cells == 9
    assert leaky.phases["overall"].agree == 9
    assert tanh.phases["overall"].agree == sum(row.count("M") for row in ROWS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_seed": 7}, "its model_seed is 102, the run's 7"),
        ({"model_seed": [7, 8]}, "its model_seed is 102, which the run does not have"),
        ({"activation": "relu"}, "its activation is tanh, the run's relu"),
        ({"lr": [0.5], "weight_decay": 0.25}, "no learning rate and weight decay in common"),
    ],
)
def test_nothing_in_common_is_said_with_the_reason(changes, says, reference):
    with pytest.raises(gf.UsageError, match=says):
        agree(made(grid(**changes), 1, 1), reference({"diagrams": [diagram()]}))


def test_a_classification_run_is_not_a_regression_run(reference):
    path = reference({"diagrams": [diagram(task="addition-regression")]})
    with pytest.raises(gf.UsageError, match="its loss is mse, the run's cross_entropy"):
        agree(lettered(grid(), ROWS), path)


def test_differences_from_the_published_experiment_are_noted(reference):
    g = grid(width=100, steps=20_000, **{"optimizer.beta2": 0.98})
    (found,) = agree(made(g, 300, 700), reference({"diagrams": [diagram()]}))
    assert found.notes == (
        "width is 100, published 200",
        "optimizer.beta2 is 0.98, published 0.999",
        "trained for 20000 steps, published for 100000",
    )


def test_a_longer_run_is_read_as_of_the_published_budget(reference):
    g = grid(steps=300_000)
    r = made(g, 300, 200_000)
    (found,) = agree(r, reference({"diagrams": [diagram(phases=["MMM"] * 3)]}))
    assert found.phases["overall"].agree == 9
    assert found.notes == ("read as of 100000 steps, the published budget",)


def test_steps_of_listed_cells(reference):
    def cell(lr, t_train, t_val, phase):
        return {
            "task": "addition-classification", "lr": lr, "wd": 5.0,
            "t_train": t_train, "t_val": t_val, "phase": phase,
        }  # fmt: skip

    path = reference(
        {
            "cells": [
                cell(1e-4, 1000, 2000, "grokking"),
                cell(2e-4, 1000, 1500, "comprehension"),
                cell(3e-4, 5000, 9000, "grokking"),
                cell(4e-4, 700, None, "memorization"),
                cell(5e-4, None, None, "confusion"),
            ]
        }
    )
    g = grid(lr=[1e-4, 2e-4, 3e-4, 4e-4, 5e-4], weight_decay=[5.0])
    r = made(g, [1020, 1000, 6000, 700, -1], [2000, 1531, 9000, 900, -1])
    (found,) = agree(r, path)
    assert found.phases["overall"].agree == 3
    assert "interior" not in found.phases
    assert {k: (s.agree, s.of) for k, s in found.steps.items()} == {
        "T_train within 2%, where published up to 2999": (3, 3),
        "T_val within 2%, where published up to 2999": (1, 2),
        "both within 2%, where both published up to 2999": (1, 2),
        "both equal, where both published up to 2999": (0, 2),
        "same phase, where both published up to 2999": (1, 2),
        "both within 2%, all cells": (2, 5),
        "both equal, all cells": (1, 5),
    }


def test_a_full_table_of_steps_uses_the_rule_of_its_preset(reference):
    table = [[[1000, 2000], [0, 150000]], [[50, 1051], [900, 150000]]]
    path = reference({"learning_rate": [1e-3, 1.0], "weight_decay": [0.1, 1.0]} | {
        "t_train_t_val": table
    })  # fmt: skip
    g = gf.preset("mnist-original").grid(lr=[1e-3, 1.0], weight_decay=[0.1, 1.0])
    # lr is the slow axis; a gap of exactly 1000 is comprehension here
    (found,) = agree(made(g, [1000, 50, -1, 905], [2000, 1051, -1, -1]), path)
    assert found.phases["overall"].agree == 4
    assert found.confusion["comprehension"]["comprehension"] == 1
    assert found.confusion["grokking"]["grokking"] == 1
    assert found.steps["both equal, all cells"].agree == 3
    assert found.steps["both within 10%, all cells"].agree == 4
    assert found.steps["both equal, where both published up to 150000"].of == 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{", "neither JSON"),
        ("[" * 100_000, "neither JSON"),
        ([1], "none of diagrams, cells and t_train_t_val"),
        ({"diagrams": []}, "diagrams is no list, or empty"),
        ({"diagrams": [3]}, r"diagrams\[0\] is no object"),
        ({"diagrams": [diagram(task=["x"])]}, r"diagrams\[0\].task is \['x'\]"),
        ({"diagrams": [diagram(phases=["CC"])]}, "not 3 strings of 3 letters"),
        ({"diagrams": [diagram(phases=["CCQ"] * 3)]}, "has the letter 'Q'"),
        ({"diagrams": [diagram(letters={"C": "calm"})]}, "does not map letters"),
        ({"diagrams": [diagram(learning_rate=[1, "a", 2])]}, r"learning_rate\[1\] is 'a'"),
        ({"diagrams": [diagram(data_seed="x")]}, "task.seed is 'x'"),
        ('{"diagrams": [{"learning_rate": [NaN]}]}', "not a finite number"),
        ({"cells": [{"task": "addition-regression", "phase": "calm"}]}, "phase is 'calm'"),
        (
            {"learning_rate": [1], "weight_decay": [1], "t_train_t_val": [[1]]},
            "not 1 x 1 pairs of whole numbers",
        ),
    ],
)
def test_a_malformed_reference_names_the_place(data, says, reference):
    with pytest.raises(gf.UsageError, match=says):
        load_reference(reference(data))


def test_a_missing_reference(tmp_path):
    with pytest.raises(gf.UsageError, match="no such file"):
        load_reference(tmp_path / "nowhere.json")


def test_a_shorter_run_and_a_table_of_steps_are_read_as_of_the_shorter_budget(reference):
    cells = [
        {"task": "addition-regression", "lr": lr, "wd": 0, "t_train": 400, "t_val": t_val,
         "phase": "grokking"}
        for lr, t_val in [(1e-4, 1600), (1e-3, 2400)]
    ]  # fmt: skip
    g = gf.preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=0, steps=2000)
    (found,) = agree(made(g, 400, [1600, -1]), reference({"cells": cells}))
    assert found.phases["overall"].agree == 2
    assert found.confusion["memorization"]["memorization"] == 1
    assert found.steps["both equal, all cells"].agree == 2
    assert found.steps["both equal, where both published up to 2000"].of == 1
    assert "both read as of the shorter" in found.notes[-1]


def test_another_run_is_a_reference(tmp_path):
    ours, theirs = tmp_path / "ours.h5", tmp_path / "theirs.h5"
    axes = {"model_seed": [1, 2], "width": 20}
    lettered(grid(**axes | {"model_seed": 1}), ROWS).save(ours)
    t_val = np.where(np.arange(18) % 2, 500, 700)  # the seed is the fastest axis
    made(grid(**axes), 300, t_val, status=np.where(np.arange(18) == 4, RUNNING, OK)).save(theirs)
    (found,) = agree(Results.load(ours), theirs)
    assert (found.table, found.source) == ("addition-classification, model_seed 1", "theirs.h5")
    assert found.cells == found.published == 9  # T_train and T_val of the running one are known
    assert found.phases["overall"].agree == sum(row.count("C") for row in ROWS)
    assert found.phases["interior"].of == 9
    assert found.steps["both equal, all cells"].agree == sum(row.count("C") for row in ROWS)
    assert found.notes == ()
    first, second = agree(Results.load(theirs), theirs)
    assert first.phases["overall"].agree == second.phases["overall"].agree == 9
    unlike = made(grid(width=20, lr=0.5), 1, 1)
    with pytest.raises(gf.UsageError, match="no cell in common with the published tables"):
        agree(unlike)
    with pytest.raises(gf.UsageError, match="it has no finished cell"):
        unfinished = made(grid(), -1, -1, status=RUNNING, steps_done=1)
        unfinished.save(theirs)
        agree(lettered(grid(), ROWS), theirs)


@pytest.mark.parametrize("number", [1, 5])
def test_the_published_diagrams_agree_with_themselves(number):
    table = load_reference(PUBLISHED / "toy_phase_diagrams.json")[number]
    assert len(table) == 441
    axes = gf.preset(table.title.split(",")[0]).axes
    g = gf.Grid(name=table.title, experiment=table.experiment, axes=axes)
    phase = table.phase.reshape(21, 21).T.ravel()  # the grid's lr is the slow axis
    steps = np.array([STEPS[letter] for letter in "CGMF"])[phase]
    (found,) = (a for a in agree(made(g, *steps.T)) if not a.steps)
    assert found.table == table.title
    assert found.phases["overall"].fraction == 1
    assert found.phases["interior"].of + found.phases["border"].of == 441


def test_the_published_mnist_table():
    (table,) = load_reference(PUBLISHED / "mnist_steps.json")
    early = (table.t_train >= 0) & (table.t_val >= 0) & (table.t_val <= 2500)
    assert (early & (table.t_train <= 2500)).sum() == 39
    assert {PHASES[p] for p in np.unique(table.phase)} == set(PHASES) - {"memorization"}


def test_every_published_table_is_read_and_has_a_source():
    tables = load_reference()
    assert sum(isinstance(t, Table) for t in tables) == 9
    assert all(t.source for t in tables)


DIAGRAMS, STEPS_5X5, MNIST = "toy_phase_diagrams.json", "toy_steps.json", "mnist_steps.json"
EARLY = "where both published up to"
#: What the files in bench/results have: file, published table, shares.
MEASURED = [
    ("addition-classification", DIAGRAMS, {"overall": (429, 441), "interior": (277, 278)}),
    ("addition-regression", DIAGRAMS, {"overall": (429, 441), "interior": (289, 289)}),
    ("addition-classification.relu", DIAGRAMS, {"overall": (433, 441), "interior": (299, 299)}),
    ("addition-regression.relu", DIAGRAMS, {"overall": (419, 441), "interior": (324, 325)}),
    ("addition-classification.leaky_relu", DIAGRAMS, {"overall": (426, 441)}),
    ("addition-classification.leaky_relu", DIAGRAMS, {"interior": (284, 286)}),
    ("addition-classification.5x5.reference", STEPS_5X5, {"both equal, all cells": (25, 25)}),
    ("addition-regression.5x5.reference", STEPS_5X5, {"both equal, all cells": (25, 25)}),
    ("addition-classification.5x5.compiled", STEPS_5X5, {"overall": (24, 25)}),
    ("addition-classification.5x5.compiled", STEPS_5X5, {f"both within 2%, {EARLY} 2999": (4, 4)}),
    ("addition-regression.5x5.compiled", STEPS_5X5, {"overall": (25, 25)}),
    ("addition-regression.5x5.compiled", STEPS_5X5, {f"both within 2%, {EARLY} 2999": (3, 4)}),
    ("mnist-original.2500-steps.float32", MNIST, {f"same phase, {EARLY} 2500": (39, 39)}),
    ("mnist-original.2500-steps.float32", MNIST, {f"both within 10%, {EARLY} 2500": (37, 39)}),
    ("mnist-original.2500-steps.float32", MNIST, {f"both equal, {EARLY} 2500": (34, 39)}),
    ("mnist-original.2500-steps.float64", MNIST, {f"both equal, {EARLY} 2500": (39, 39)}),
    ("mnist-original", MNIST, {"overall": (100, 100)}),
    ("mnist-original", MNIST, {f"both within 10%, {EARLY} 150000": (95, 97)}),
    ("mnist-original", MNIST, {f"both equal, {EARLY} 150000": (46, 97)}),
]


@pytest.mark.parametrize(("file", "table", "stated"), MEASURED)
def test_committed_results_agree_as_measured(file, table, stated):
    results = Results.load(Path(__file__).parents[1] / "bench" / "results" / f"{file}.h5")
    (found,) = agree(results, PUBLISHED / table)
    shares = found.phases | found.steps
    assert {name: (shares[name].agree, shares[name].of) for name in stated} == stated
