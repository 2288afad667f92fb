"""Files that older versions have written: read, drawn, joined and gone on with as their own."""

import importlib.util
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import grokfast as gf
from grokfast.checkpoint import load_checkpoint
from grokfast.cli import main
from grokfast.engines import make_engine
from grokfast.errors import UsageError
from grokfast.merge import merge
from grokfast.results import OK, SCHEMA_VERSION, Results

FROZEN = Path(__file__).parent / "frozen"
VERSIONS = sorted(path.stem for path in FROZEN.glob("*.zip"))
#: The native engine is fastest; the reference is always there.
ENGINE = "native" if importlib.util.find_spec("grokfast._native") else "reference"
_has_digits = importlib.util.find_spec("sklearn") is not None


@pytest.fixture(params=VERSIONS)
def frozen(request, tmp_path):
    """A folder with the files of one version."""
    zipfile.ZipFile(FROZEN / f"{request.param}.zip").extractall(tmp_path)
    return tmp_path


@pytest.fixture
def first(tmp_path):
    """Those of version 1."""
    zipfile.ZipFile(FROZEN / "v1.zip").extractall(tmp_path)
    return tmp_path


def test_every_version_has_its_files():
    assert [f"v{n}" for n in range(1, SCHEMA_VERSION + 1)] == VERSIONS


def test_a_finished_file_opens(frozen):
    r = Results.load(frozen / "toy.h5")
    assert r.complete
    assert r["t_train"].tolist() == [-1, -1, 382, -1]
    assert r["t_val"].tolist() == [-1, -1, 236, -1]
    assert r.counts() == {"comprehension": 1, "grokking": 0, "memorization": 0, "confusion": 3}
    assert r["embeddings"].shape == (4, 10, 10, 1)
    assert not np.isnan(r["train_loss"]).any()
    assert len(r["step"]) <= 20
    module = r.module(lr=0.03, weight_decay=0.0)
    assert module.embedding.weight[:, 0].tolist() == pytest.approx(r["embeddings"][2, -1, :, 0])


def test_a_finished_file_is_known_as_finished(frozen):
    before = (frozen / "toy.h5").read_bytes()
    r = gf.run(Results.load(frozen / "toy.h5").grid, out=frozen / "toy.h5", progress=False)
    assert r.complete
    assert (frozen / "toy.h5").read_bytes() == before


@pytest.mark.parametrize("kind", ["phases", "smooth", "convergence", "curves", "embeddings"])
def test_a_finished_file_is_drawn(frozen, kind, capsys):
    assert main(["plot", str(frozen / "toy.h5"), f"--kind={kind}"]) == 0
    assert Path(capsys.readouterr().out.strip()).stat().st_size > 0


def test_a_finished_file_is_told_of_exported_and_compared(frozen, capsys):
    file = str(frozen / "toy.h5")
    assert main(["info", file]) == 0
    told = capsys.readouterr().out
    assert "complete" in told
    assert "axis      --lr=0.01,0.03\n" in told
    assert main(["export", file, f"--out={frozen / 'x.json'}"]) == 0
    rows = json.loads((frozen / "x.json").read_text())["rows"]
    assert [row["phase"] for row in rows] == [
        "confusion",
        "confusion",
        "comprehension",
        "confusion",
    ]
    assert main(["agree", file, file]) == 0
    assert "4 of 4" in capsys.readouterr().out


def test_shards_of_two_versions_are_joined(frozen):
    grid = Results.load(frozen / "half.h5").grid
    gf.run(grid, out=frozen / "b.h5", shard=(2, 2), engine=ENGINE, device="cpu", progress=False)
    merged = merge([frozen / "half.h5", frozen / "b.h5"], frozen / "m.h5")
    assert merged.complete
    assert merged["status"].tolist() == [OK] * 4
    old, new = Results.load(frozen / "half.h5"), Results.load(frozen / "b.h5")
    for name in set(merged.variables) & set(old.variables) & set(new.variables):
        if merged.variables[name][0][0] == "run":
            assert np.array_equal(merged[name][[1, 3]], old[name], equal_nan=True), name
            assert np.array_equal(merged[name][[0, 2]], new[name], equal_nan=True), name
    assert not np.isnan(merged["final_val_acc"][[0, 2]]).any()
    if "final_val_acc" not in old:
        assert np.isnan(merged["final_val_acc"][[1, 3]]).all()
        assert merged["train_correct"][[1, 3]].tolist() == [-1, -1]


@pytest.mark.parametrize("name", ["native", "reference", "digits"])
def test_cells_are_found_in_the_checkpoint(frozen, name):
    """What identifies a cell has not changed since."""
    grid = Results.load(frozen / f"{name}.h5").grid
    assert list(load_checkpoint(frozen / f"{name}.h5.ckpt")) == list(grid.keys)


@pytest.mark.parametrize("name", ["native", "reference", "digits"])
def test_a_run_goes_on_to_the_same_bits(frozen, name):
    if name == "digits" and not _has_digits:
        pytest.skip("the digits come with scikit-learn")
    old = Results.load(frozen / f"{name}.h5")
    engine = _same_machine(old)
    whole = gf.run(old.grid, out=frozen / "whole.h5", progress=False, **engine)
    went_on = gf.run(old.grid, out=frozen / f"{name}.h5", progress=False, **engine)
    assert old["steps_done"].max() < whole["steps_done"].min()
    assert went_on.complete
    assert went_on.provenance["resumed"] == 1
    # What was seen before is not known to have been the best, where an older version saw it.
    unknown = {
        "best_train_acc", "best_val_acc", "best_train_correct", "best_val_correct"
    } - set(old.variables)  # fmt: skip
    for variable in set(whole.variables) - unknown:
        assert went_on[variable].tobytes() == whole[variable].tobytes(), variable
    for a, b in zip(went_on.weights, whole.weights, strict=True):
        assert all(a[key].tobytes() == b[key].tobytes() for key in b)
    for variable in unknown:
        assert (went_on[variable] <= whole[variable]).all()
    for part in ("train", "val"):
        assert (went_on[f"best_{part}_acc"] >= went_on[f"final_{part}_acc"]).all()
    mine, theirs = (load_checkpoint(frozen / f"{run}.h5.ckpt") for run in (name, "whole"))
    assert mine.keys() == theirs.keys() == set(old.grid.keys)
    for key, row in theirs.items():
        for tensor in row.keys() - unknown:
            assert mine[key][tensor].tobytes() == row[tensor].tobytes(), tensor


def test_a_finished_file_is_extended(frozen):
    """By more values and more steps: the cells that were there go on from where they were."""
    old = Results.load(frozen / "toy.h5")
    grid = old.grid.grid(weight_decay=[0.0, 2.0, 5.0], steps=460)
    r = gf.run(grid, out=frozen / "toy.h5", progress=False, **_same_machine(old))
    assert r["steps_done"].tolist() == [460] * 6
    assert r["t_train"].tolist() == [-1, -1, -1, 382, -1, -1]
    assert r.provenance["resumed"] == 1
    assert not np.isnan(r["final_val_acc"]).any()


def test_a_value_more_keeps_finished_cells_without_accuracies(first):
    old = Results.load(first / "toy.h5")
    grid = old.grid.grid(weight_decay=[0.0, 2.0, 5.0])
    r = gf.run(grid, out=first / "toy.h5", progress=False, **_same_machine(old))
    assert np.isnan(r["final_val_acc"]).tolist() == [True, True, False] * 2
    assert np.array_equal(r["train_loss"][[0, 1, 3, 4]], old["train_loss"])


@pytest.mark.parametrize("file", ["toy.h5", "reference.h5.ckpt"])
def test_what_a_newer_version_wrote_is_refused(first, file):
    with h5py.File(first / file, "a") as newer:
        newer.attrs["schema_version"] = SCHEMA_VERSION + 1
    run = str(first / file.removesuffix(".ckpt"))
    if file == "toy.h5":
        with pytest.raises(UsageError, match=f"schema version {SCHEMA_VERSION + 1}"):
            Results.load(run)
        return
    old, before = Results.load(run), Path(run).read_bytes()
    with pytest.raises(UsageError, match="was written by a newer grokfast; upgrade grokfast"):
        gf.run(old.grid, out=run, progress=False, **_same_machine(old))
    assert Path(run).read_bytes() == before
    assert (first / file).exists()


def _same_machine(old):
    """The engine of a file; skips where this machine would not compute the same bits."""
    name = str(old.provenance["engine"])
    try:
        engine = make_engine(name, "cpu", 1)
    except gf.errors.GrokfastError as error:
        pytest.skip(str(error))
    now = engine.detail
    if now != old.provenance["engine_detail"]:
        pytest.skip(f"made by {name} with {old.provenance['engine_detail']}; here it is {now}")
    return {"engine": name, "device": "cpu", "threads": 1}
