"""Named settings: axes whose values stand for several fields, from end to end."""

import importlib.util
import shlex

import numpy as np
import pytest

import grokfast as gf
from grokfast.cli import main
from grokfast.cli.overrides import build_grid
from grokfast.errors import UsageError
from grokfast.results import Results

ENGINE = "native" if importlib.util.find_spec("grokfast._native") else "reference"
TINY = "task.p=5,model.width=4,model.seed=1"
RUN = ("run", "modular-addition", f"--set={TINY}", f"--engine={ENGINE}", "--device=cpu")
BATCH = "--setting=batch=4:batch_size=4,lr=1e-3,steps=12;full:batch_size=0,lr=0.01,steps=6"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(*texts, preset="modular-addition", **fields):
    return build_grid(preset, fields, None, None, "\n".join(texts))


def test_a_setting_of_the_command_line():
    grid = built("batch=4:batch_size=4,lr=1e-3;full:batch_size=0,evaluation.thresholds=0.5+0.9")
    assert grid.axes == {"batch": ("4", "full")}
    assert grid.column("batch", [0, 1]) == ["4", "full"]
    assert [cell.batch_size for cell in grid.cells] == [4, 0]
    assert [cell.optimizer.lr for cell in grid.cells] == [1e-3, 0.01]
    assert grid.cells[1].evaluation.thresholds == (0.5, 0.9)


def test_it_takes_the_place_of_axes_and_of_a_setting_of_its_name():
    grid = built("pair=a:lr=1e-3,weight_decay=1;b:lr=0.01", preset="addition-regression")
    assert list(grid.axes) == ["pair"]
    grid = built("decay=1:weight_decay=1;2:weight_decay=2", preset="modular-corruption")
    assert [cell.optimizer.weight_decay for cell in grid.cells] == [1, 2]
    assert [cell.steps for cell in grid.cells] == [500, 500]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["batch"], "is no VALUE:FIELD=...; an example: --setting='batch=8:"),
        (["batch=8"], "'8' is no VALUE:FIELD=..."),
        (["batch=8:"], "'8:' is no VALUE:FIELD=..."),
        (["batch=8:lr"], "'lr' is no name=value"),
        (["2=8:lr=1"], "'8:lr=1' is no VALUE:FIELD=..."),
        (["batch=8:lr=1;8:lr=2"], "8 is there twice"),
        (["batch=8:lr=1,2"], "8 has several values of lr"),
        (["batch=8:lr=1,optimizer.lr=2"], "8 has several values of lr"),
        (["batch=8:lrr=1"], "unknown field 'lrr'; did you mean lr?"),
        (["batch=8:lr=x"], "lr='x' is not a number"),
        (["lr=8:lr=1"], "setting 'lr' has the name of a field"),
        (["batch=8:lr=1;9:lr=1"], "8 and 9 of the setting batch stand for the same: lr=1.0"),
        (["a=1:lr=1", "b=1:lr=2"], "lr is given twice"),
        (["a=1:lr=1", "a=1:steps=2"], "a is given twice"),
    ],
)
def test_a_setting_that_is_none(texts, says):
    with pytest.raises(UsageError) as error:
        built(*texts)
    assert says in str(error.value)


def test_a_field_given_beside_its_setting():
    with pytest.raises(UsageError, match="lr is given twice"):
        built("a=1:lr=1;2:lr=2", lr="3")
    # A preset's setting gives way, as far as its values stay different.
    grid = build_grid("modular-corruption", {"steps": "50"}, None, None)
    assert [(c.steps, c.optimizer.weight_decay) for c in grid.cells] == [(50, 0), (50, 5), (50, 15)]
    with pytest.raises(UsageError, match="5 and 15 of the setting decay stand for the same"):
        build_grid("modular-corruption", {"weight_decay": "3"}, None, None)
    chosen = build_grid("modular-corruption", {"steps": "50"}, "decay=0", None)
    assert (chosen.size, chosen.experiment.steps) == (1, 50)
    assert chosen.experiment.optimizer.weight_decay == 0


def test_axes_and_settings_that_give_the_same_field():
    grid = gf.preset("modular-corruption")
    with pytest.raises(UsageError, match="steps is an axis, and given by the setting decay"):
        gf.Grid(
            experiment=grid.experiment, axes=grid.axes | {"steps": (1, 2)}, settings=grid.settings
        )
    settings = {**grid.settings, "pace": {"1": {"steps": 1}, "2": {"steps": 2}}}
    with pytest.raises(UsageError, match="steps is given by the settings decay and pace"):
        gf.Grid(
            experiment=grid.experiment, axes=grid.axes | {"pace": ("1", "2")}, settings=settings
        )
    assert list(grid.setting("pace", settings["pace"]).given.values()) == ["decay", "pace"]


def test_from_dry_run_to_figures(here, capsys):
    assert main([*RUN, BATCH, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "axis     batch: 4, full\n           4:batch_size=4,lr=0.001,steps=12\n" in told
    assert "  batch_size" not in told, "what a setting gives is not the same in all cells"
    assert main([*RUN, BATCH, "--out=r.h5"]) == 0
    capsys.readouterr()
    assert main(["info", "r.h5"]) == 0
    told = capsys.readouterr().out
    (axis,) = shlex.split(told.partition("axis ")[2].partition("\n")[0])
    assert (
        axis == "--setting=batch=4:batch_size=4,lr=0.001,steps=12;full:batch_size=0,lr=0.01,steps=6"
    )
    assert main([*RUN, axis, "--out=r.h5"]) == 0
    assert "r.h5 is complete" in capsys.readouterr().err
    assert main(["export", "r.h5", "--out=r.csv"]) == 0
    assert [row.split(",")[1] for row in (here / "r.csv").read_text().split()] == [
        "batch", "4", "full",
    ]  # fmt: skip
    for options in (
        ["--kind=curves", "--cell=batch:full"],
        ["--cell=batch:4", "--kind=curves"],
        [],
    ):
        assert main(["plot", "r.h5", *options]) == 0
    capsys.readouterr()
    assert main(["plot", "r.h5", "--kind=curves", "--cell=batch:8"]) == 2
    assert "no cell has batch 8; there are 4, full" in capsys.readouterr().err
    assert main(["agree", "r.h5", "r.h5"]) == 0
    assert capsys.readouterr().out.count("cells in common: 1 of 1") == 2


def test_shards_of_a_setting(here, capsys):
    assert [main([*RUN, BATCH, f"--shard={i}/2", f"--out={i}.h5"]) for i in (1, 2)] == [0, 0]
    capsys.readouterr()
    assert main(["merge", "1.h5", "--out=m.h5"]) == 2
    assert "1 of 2 cells are missing: cell 0 (batch=4)" in capsys.readouterr().err
    assert main(["merge", "1.h5", "2.h5", "--out=m.h5"]) == 0
    assert main([*RUN, BATCH, "--out=m.h5"]) == 0
    assert "m.h5 is complete" in capsys.readouterr().err
    other = BATCH.replace("1e-3", "1e-2")
    assert main([*RUN, other, "--shard=2/2", "--out=3.h5"]) == 0
    capsys.readouterr()
    assert main(["merge", "1.h5", "3.h5", "--out=m3.h5"]) == 2
    assert "batch: 4:batch_size=4,lr=0.001,steps=12 -> 4:batch_size=4,lr=0.01" in (
        capsys.readouterr().err
    )


def test_a_file_takes_more_values_and_larger_budgets(here, capsys):
    one, more = BATCH.partition(";")[0], BATCH.replace("steps=12", "steps=18")
    assert main([*RUN, one, "--out=r.h5"]) == 0
    first = Results.load("r.h5")
    assert main([*RUN, BATCH, "--out=r.h5"]) == 0
    assert main([*RUN, more, "--out=r.h5"]) == 0
    r = Results.load("r.h5")
    assert r["steps_done"].tolist() == [18, 6]
    assert r.provenance["resumed"] == 2
    assert main([*RUN, more, "--out=whole.h5"]) == 0
    whole = Results.load("whole.h5")
    assert np.array_equal(r["train_loss"], whole["train_loss"], equal_nan=True)
    assert set(first["train_loss"][0]) <= set(r["train_loss"][0])
    capsys.readouterr()
    assert main([*RUN, BATCH, "--out=r.h5"]) == 2
    assert "was run with steps=18, more than 12" in capsys.readouterr().err
    assert main([*RUN, more.replace("lr=0.01", "lr=0.02"), "--out=r.h5"]) == 2
    assert "batch: full:batch_size=0,lr=0.01,steps=6 -> full:batch_size=0,lr=0.02" in (
        capsys.readouterr().err
    )


def test_values_that_differ_in_their_budgets_alone_are_two_cells(here):
    pace = "--setting=pace=short:steps=4;long:steps=8"
    assert main([*RUN, pace, "--out=r.h5"]) == 0
    r = Results.load("r.h5")
    assert r["steps_done"].tolist() == [4, 8]
    assert main(["info", "r.h5"]) == 0
