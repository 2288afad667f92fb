"""``grokfast data``: data sets are listed, shown and exported as they enter training."""

import csv
import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.cli import main
from grokfast.tasks import TASKS, Addition, Modular


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The empty working directory, for commands in process: each import of torch takes seconds."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(capsys, *arguments):
    assert main(["data", *arguments]) == 0
    return capsys.readouterr().out


def test_every_task_is_listed_with_its_fields(grokfast):
    done = grokfast("data", "list")
    assert (done.code, done.imported_torch) == (0, False)
    assert {line.split()[0] for line in done.out.splitlines()} >= {
        "addition",
        "mnist",
        "digits",
        "modular",
    }
    assert "seed=420, p=97, operation=addition, fraction=0.5, corruption=0.0" in done.out


def test_a_data_set_is_shown_with_sizes_rows_and_digests(capsys):
    out = shown(capsys, "show", "modular", "--set=corruption=0.35")
    for line in (
        "task      modular",
        "  task.corruption = 0.35",
        "classes   97",
        "tokens    194",
        "targets   float32 [97, 97]",
        "train     4704 samples; 1646 labels redrawn, of rows 0, 1, 2, ..., 1645; 1629 of them "
        "wrong",
        "val       4705 samples",
        "  train 0  22 167  57 (redrawn; true is 92)",
    ):
        assert f"{line}\n" in out
    labels = Modular(corruption=0.35).build().y_train
    digest = hashlib.sha256(labels.numpy().tobytes()).hexdigest()
    assert f"  y_train   {digest}  int64 [4704]\n" in out


def test_equations_are_shown_as_their_tokens(capsys):
    out = shown(capsys, "show", "algorithmic", "--set=operation=x.y,fraction=0.5,outliers=7")
    for line in (
        "  task.operation = x.y",
        "classes   122",
        "tokens    122",
        "train     7140 samples; 7 labels redrawn, of rows 0, 1, 2, ..., 6; 7 of them wrong",
        "val       7140 samples",
    ):
        assert f"{line}\n" in out
    (row,) = [line for line in out.splitlines() if line.startswith("  val 0 ")]
    x, o, y, equals, z = map(int, row.split()[2:])
    assert (o, equals) == (120, 121) and 0 <= x < 120 and 1 <= y < 120 and 0 <= z < 120


def test_a_preset_is_its_task_with_its_values(capsys):
    out = shown(capsys, "show", "addition-regression")
    assert out == shown(capsys, "show", "addition", "--set=target_dim=30")
    assert "targets   float32 [19, 30]\n" in out
    assert "redrawn" not in out


def test_fields_have_short_and_dotted_names(capsys):
    every = [
        shown(capsys, "show", "addition", *options)
        for options in (
            ["--data-seed=7", "--set=p=12"],
            ["--set=task.p=12,data_seed=7"],
            ["--set=seed=7", "--set=task.p=1.2e1"],
        )
    ]
    assert every[0] == every[1] == every[2]
    assert "  task.seed = 7\n  task.p = 12\n" in every[0]


def test_long_inputs_are_cut_and_tell_their_length(capsys):
    pytest.importorskip("sklearn")
    assert " ... (64 numbers)  " in shown(capsys, "show", "digits")


def test_a_users_task_may_keep_what_was_corrupted_to_itself(capsys):
    @gf.task("noisy-parity")
    @dataclass(frozen=True, kw_only=True)
    class Noisy(gf.Task):
        def build(self):
            x = torch.tensor([[0.0], [1.0]])
            y = torch.tensor([1, 1])
            return gf.TaskData(
                x_train=x, y_train=y, x_val=x, y_val=y, num_classes=2,
                corrupted=torch.tensor([True, False]),
            )  # fmt: skip

    try:
        out = shown(capsys, "show", "noisy-parity")
    finally:
        del TASKS["noisy-parity"]
    assert "train     2 samples; 1 labels redrawn, of rows 0\n" in out
    assert "  train 0  0  1 (redrawn)\n" in out
    assert "targets   labels alone\n" in out


def test_csv_has_one_row_a_sample(here, capsys):
    out = shown(capsys, "export", "modular", "--set=p=11,corruption=0.5", "--out=x.csv")
    assert out == "x.csv\n"
    with (here / "x.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "x0", "x1", "label", "corrupted"]
    d = Modular(p=11, corruption=0.5).build()
    expected = [
        ["train", *map(str, x), str(y), str(int(c))]
        for x, y, c in zip(
            d.x_train.tolist(), d.y_train.tolist(), d.corrupted.tolist(), strict=True
        )
    ]
    expected += [
        ["val", *map(str, x), str(y), "0"]
        for x, y in zip(d.x_val.tolist(), d.y_val.tolist(), strict=True)
    ]
    assert rows == expected


def test_csv_gives_every_bit_of_the_inputs(here, capsys):
    pytest.importorskip("sklearn")
    shown(capsys, "export", "digits", "--set=train_size=3,val_size=2", "--out=x.csv")
    with (here / "x.csv").open(newline="") as file:
        rows = [[float(v) for v in row[1:65]] for row in list(csv.reader(file))[1:]]
    from grokfast.tasks import Digits

    d = Digits(train_size=3, val_size=2).build()
    assert torch.equal(torch.tensor(rows, dtype=torch.float64), torch.cat([d.x_train, d.x_val]))


@pytest.mark.parametrize("task", [Addition(target_dim=3), Addition(), Modular(p=7)], ids=str)
def test_npz_has_every_tensor_by_its_name(here, capsys, task):
    fields = [f"{k}={v}" for k, v in vars(task).items()]
    shown(capsys, "export", task.name, f"--set={','.join(fields)}", "--out=x.NPZ")
    d = task.build()
    with np.load(here / "x.NPZ") as file:
        arrays = dict(file)
    told = {name: value for name, value in vars(d).items() if value is not None}
    assert arrays.keys() == told.keys()
    for name, value in told.items():
        assert arrays[name].dtype == np.asarray(value).dtype
        assert np.array_equal(arrays[name], np.asarray(value)), name


def test_equal_data_make_equal_files_and_none_is_overwritten_unasked(here, capsys):
    for suffix in ("csv", "npz"):
        export = ["data", "export", "addition", f"--out=a.{suffix}"]
        assert main(export) == 0
        first = (here / f"a.{suffix}").read_bytes()
        assert main(export) == 2
        assert f"a.{suffix} exists; choose another name, or --overwrite" in capsys.readouterr().err
        assert main([*export, "--overwrite", "--data-seed=1"]) == 0
        assert (here / f"a.{suffix}").read_bytes() != first
        assert main([*export, "--overwrite"]) == 0
        assert (here / f"a.{suffix}").read_bytes() == first
    assert sorted(p.name for p in here.iterdir()) == ["a.csv", "a.npz"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shwo"], "unknown action 'shwo' for 'data'; did you mean show?"),
        (["zzz"], "there are list, show, export, fetch, verify, path"),
        (["show"], "'data show' needs TASK"),
        (["show", "modlar"], "unknown task 'modlar'; did you mean modular?"),
        (["show", "zzz"], "there are addition, modular, algorithmic, mnist, digits"),
        (["show", "addition-regresion"], "did you mean addition-regression?"),
        (["show", "modular", "--set=fractoin=0.3"], "no field 'fractoin'; did you mean fraction?"),
        (["show", "modular", "--set=width=8"], "task 'modular' has no field 'width'; it has seed"),
        (["show", "modular", "--set=p"], "'p' is no name=value"),
        (["show", "modular", "--set=p=2,3"], "task.p='2,3' is not a whole number"),
        (["show", "modular", "--set=p=1"], "task.p is 1; give 2 to 1000"),
        (["show", "modular", "--set=operation=a/b"], "task.operation is 'a/b'"),
        (["show", "modular", "--set=fraction=nan"], "task.fraction is nan"),
        (["show", "algorithmic", "--set=operation=x+z"], "task.operation='x+z' is not one of x+y"),
        (["show", "algorithmic", "--set=operation=x.y,p=5"], "of the permutations S5; give none"),
        (["show", "algorithmic", "--set=p=none,fraction=1e-9"], "give less than 1, and at least"),
        (["show", "modular", "--set=seed=1", "--data-seed=1"], "task.seed is given twice"),
        (["show", "modular", "--data-seed=x"], "data_seed='x' is not a whole number"),
        (["show", "modular", "--out=x.csv"], "'data show' takes no --out; it is for export"),
        (["show", "modular", "--p=3"], "did you mean --set=p=...?"),
        (["show", "modular", "--data-dir=."], "'modular' reads no files"),
        (["show", "mnist", "--data-dir=nowhere"], "--data-dir=nowhere: no such folder"),
        (["export", "modular"], "'data export' needs --out"),
        (["export", "modular", "--out=x.xlsx"], "end its name in .csv, .npz"),
        (["export", "modular", "--out=no/x.csv"], "no such folder: no"),
        (["list", "modular"], "'data list' takes no TASK"),
        (["fetch", "mnist"], "'data fetch' takes no TASK"),
        (["path", "--set=p=3"], "'data path' takes no --set; it is for show, export"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(here, capsys, arguments, says):
    assert main(["data", *arguments]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert (out, err.count("\n"), list(here.iterdir())) == ("", 1, [])
