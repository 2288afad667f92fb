"""What ``grokfast analyze`` says of neurons and curves, against the analyses themselves."""

import csv
import importlib.util
import json

import numpy as np
import pytest

import grokfast as gf
from grokfast.analyses import Neurons, frobenius, network_ipr, neuron_ipr, signature
from grokfast.cli import main
from grokfast.results import Results

ENGINE = "native" if importlib.util.find_spec("grokfast._native") else "reference"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three decays of a net with corrupted labels."""
    grid = gf.preset("modular-corruption").grid(
        width=12, model_seed=1, steps=40, **{"task.p": 7, "model.norm": "none"}
    )
    path = tmp_path_factory.mktemp("run") / "r.h5"
    gf.run(grid, out=path, engine=ENGINE, device="cpu", progress=False)
    return str(path)


def test_one_row_a_cell(trained, capsys):
    assert main(["analyze", trained, "--json"]) == 0
    rows, r = json.loads(capsys.readouterr().out), Results.load(trained)
    assert [row["decay"] for row in rows] == ["0", "5", "15"]
    assert [row["ipr"] for row in rows] == network_ipr(r).tolist()
    for k, row in enumerate(rows):
        net = Neurons.of_cell(r, k)
        assert {f"norm_{name.lower()}": x for name, x in frobenius(net).items()}.items() <= (
            row.items()
        )
        assert row["periodic"] == (neuron_ipr(net) > 0.5).mean()
        assert row["final_val_acc"] == r["final_val_acc"][k]
    assert main(["analyze", trained]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "decay",
        "IPR",
        ">",
        "0.5",
        "|U|",
        "|V|",
        "|W|",
        "training",
        "validation",
    ]
    assert [line.split()[:2] for line in lines] == [
        [row["decay"], f"{row['ipr']:.4f}"] for row in rows
    ]


def test_pruning_by_tenths(trained, capsys):
    assert main(["analyze", trained, "--cell=decay:5", "--prune", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    pruned = row["pruning"]
    assert pruned["removed"] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12]
    assert len(pruned["random"]) == 5
    for order in (pruned["lowest_first"], pruned["highest_first"], *pruned["random"]):
        assert set(order) == {"train", "corrupted", "uncorrupted", "val", "all"}
        assert order["train"][0] == pytest.approx(row["final_train_acc"])
        assert order["val"][0] == pytest.approx(row["final_val_acc"])
    assert main(["analyze", trained, "--cell=decay:5;decay:0", "--prune"]) == 0
    out = capsys.readouterr().out
    for cell in (0, 5):
        for part in ("training", "validation", "corrupted", "uncorrupted"):
            assert f"decay {cell}: {part} accuracy with neurons removed\n" in out
    assert "random (5 orders)" in out
    assert out.count("12 of 12") == 8


def test_neurons_as_a_table(trained, tmp_path, capsys):
    out = tmp_path / "n.csv"
    assert main(["analyze", trained, f"--neurons={out}"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    r = Results.load(trained)
    assert [row["neuron"] for row in rows] == [str(k) for k in range(12)] * 3
    assert [float(row["ipr"]) for row in rows] == np.concatenate(
        [neuron_ipr(Neurons.of_cell(r, k)) for k in range(3)]
    ).tolist()
    assert {row["gamma"] for row in rows} == {""}
    capsys.readouterr()
    assert main(["analyze", trained, f"--neurons={out}"]) == 2
    assert "exists; choose another name, or --overwrite" in capsys.readouterr().err
    assert main(["analyze", trained, f"--neurons={out}", "--overwrite"]) == 0


def test_gamma_where_there_is_a_norm(tmp_path, capsys):
    grid = gf.preset("modular-addition").grid(
        width=4, model_seed=1, steps=2, **{"task.p": 5, "model.norm": "batch"}
    )
    r = gf.run(grid, out=tmp_path / "r.h5", engine="reference", device="cpu", progress=False)
    out = tmp_path / "n.csv"
    assert main(["analyze", str(tmp_path / "r.h5"), f"--neurons={out}"]) == 0
    with out.open() as file:
        gamma = [float(row["gamma"]) for row in csv.DictReader(file)]
    assert gamma == pytest.approx(np.abs(r.weights[0]["norms.0.weight"][0]))


def test_what_curves_say(trained, capsys):
    assert main(["analyze", trained, "--curves", "--window=10", "--json"]) == 0
    rows, r = json.loads(capsys.readouterr().out), Results.load(trained)
    assert [row["decay"] for row in rows] == ["0", "5", "15"]
    for k, row in enumerate(rows):
        found = signature(r, k, window=10)
        assert row["windows"] == found.windows.tolist() == [0, 10, 20, 30, 40]
        assert row["window_val"] == found.window_val.tolist()
        assert (row["last_val"], row["dips"], row["every"]) == (found.last_val, found.dips, 1)
        assert row["t_train"] == (None if found.t_train < 0 else found.t_train)
    assert main(["analyze", trained, "--curves", "--cell=decay:0"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:3] == ["decay", "T(train)", "99%"]
    assert "of the last 1,000 steps" in out
    assert "mean validation accuracy by 1,000 steps" in out
    pytest.importorskip("scipy")
    assert main(["analyze", trained, "--curves", "--sharpness", "--cell=decay:0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["sharpness"] > 0


def test_what_cannot_be_analysed(trained, tmp_path, capsys):
    grid = gf.preset("addition-regression").grid(lr=1e-3, weight_decay=0.0, width=4, steps=2)
    for name, more in (("bare", {}), ("toy", {"record.weights": True})):
        path = tmp_path / f"{name}.h5"
        gf.run(grid.grid(**more), out=path, engine=ENGINE, device="cpu", progress=False)
    less = gf.preset("modular-addition").grid(
        steps=2, width=4, **{"task.p": 5, "record.weights": False}
    )
    gf.run(less, out=tmp_path / "less.h5", engine=ENGINE, device="cpu", progress=False)
    for arguments, says in (
        ([tmp_path / "bare.h5"], "nets on the task modular; this run's is addition"),
        ([tmp_path / "less.h5"], "kept no weights; run it again into a new file: grokfast run mod"),
        ([tmp_path / "toy.h5"], "this net has the activation tanh"),
        ([trained, "--cell=decay:7"], "no cell has decay 7; there are 0, 5, 15"),
        ([trained, "--cell=decy:5"], "did you mean decay?"),
        ([trained, "--neurons=n.xlsx"], "cannot tell the format of n.xlsx"),
        ([tmp_path / "no.h5"], "no such file"),
        ([trained, "--curves", "--prune"], "--prune belongs to the analysis of neurons"),
        ([trained, "--window=5"], "--window belongs to --curves"),
        ([trained, "--curves", "--window=x"], "window"),
    ):
        assert main(["analyze", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert says in err
