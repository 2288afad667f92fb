"""Files that have been damaged, changed by other programs, or written with what no run writes."""

import io
import json
import random
import shutil
import signal
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from damage import FORBIDDEN, READERS, copies
from damaging import damaged, originals

import grokfast as gf
from grokfast import checkpoint, layout, plausible
from grokfast.checkpoint import load_checkpoint
from grokfast.cli import main
from grokfast.errors import Damaged
from grokfast.results import Results
from grokfast.storage import guarded, seal

FROZEN = Path(__file__).parent / "frozen"


def frozen(version, name, folder):
    path = folder / name
    path.write_bytes(zipfile.ZipFile(FROZEN / f"{version}.zip").read(name))
    return path


@pytest.fixture
def file(tmp_path):
    """A results file of today's version, with weights, embeddings and curves."""
    r = Results.load(frozen("v3", "toy.h5", tmp_path))
    r.save(tmp_path / "a.h5")
    return tmp_path / "a.h5"


def quietly(path, reader=None):
    """The results, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Results.load(path, reader)


def assert_same(a, b, *, without=()):
    assert a.grid == b.grid
    assert a.complete == b.complete
    assert set(a.variables) == set(b.variables)
    for name, (dims, values) in a.variables.items():
        assert dims == b.variables[name][0]
        assert np.array_equal(values, b[name], equal_nan=values.dtype.kind == "f"), name
    if "provenance" not in without:
        assert {k: v for k, v in a.provenance.items() if k != "checksums"} == {
            k: v for k, v in b.provenance.items() if k != "checksums"
        }
        assert len(a.weights) == len(b.weights)
        for mine, theirs in zip(a.weights, b.weights, strict=True):
            assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def state(data):
    return seal.sealed(io.BytesIO(data))


def test_no_bit_may_change(file):
    data = bytearray(file.read_bytes())
    assert state(data) == seal.WHOLE
    rng = random.Random(1)
    for at in (*(rng.randrange(len(data)) for _ in range(400)), *range(-seal.SIZE, 0)):
        data[at] ^= 1 << rng.randrange(8)
        assert state(data) != seal.WHOLE
        data = bytearray(file.read_bytes())
    assert state(data[:-1]) != seal.WHOLE
    assert state(data + b"\0") != seal.WHOLE


def test_other_programs_open_it(file):
    with h5py.File(file) as opened:
        assert opened.attrs["schema_version"] == 3
    xarray = pytest.importorskip("xarray")
    for engine, library in (("h5netcdf", "h5netcdf"), ("netcdf4", "netCDF4")):
        try:
            __import__(library)
        except ImportError:
            continue
        with xarray.open_dataset(file, engine=engine) as data:
            assert data["t_val"].values.tolist() == [-1, -1, 236, -1]
    if shutil.which("h5dump"):
        import subprocess

        done = subprocess.run(["h5dump", "-H", file], capture_output=True, text=True, check=True)
        assert "t_val" in done.stdout


CHANGES = {
    "xarray": lambda path: _through_xarray(path, "h5netcdf"),
    "netcdf4": lambda path: _through_xarray(path, "netcdf4"),
    "a note": lambda path: _with_notes(path),
    "opened for writing": lambda path: h5py.File(path, "a").close(),
    "a longer file": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "no seal": lambda path: path.write_bytes(path.read_bytes()[: -seal.SIZE]),
    "a bit of the seal": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
}


def _through_xarray(path, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    data = xarray.load_dataset(path, engine="h5netcdf")
    data.to_netcdf(path, engine=engine)


def _with_notes(path):
    with h5py.File(path, "a") as file:
        file["my_note"] = np.arange(3)
        file["lr_text"] = "as in the paper"
        file["run_copy"] = file["run"][...]
        file.create_dataset("odd", data=np.zeros(2, "c8"))
        file.attrs["read_by"] = "me"
        file["provenance"].attrs["seen"] = 1
        file["weights/0/note"] = np.zeros(7)
        file.create_group("mine")["more"] = 1


@pytest.mark.parametrize("change", CHANGES)
def test_what_another_program_has_written_to_is_read_and_said(change, file):
    before = quietly(file)
    CHANGES[change](file)
    with pytest.warns(UserWarning, match="has been changed since by another program") as said:
        after = Results.load(file)
    lost = change in ("xarray", "netcdf4")
    assert len(said) == 1
    assert ("has lost its provenance and weights" in str(said[0].message)) == lost
    assert_same(after, before, without=("provenance",) if lost else ())
    after.save(file)
    assert_same(quietly(file), after)


@pytest.mark.parametrize("name", ["t_val", "t_train", "phase", "lr", "steps_done", "train_loss",
                                  "embeddings", "weights/0/layers.0.weight"])  # fmt: skip
def test_one_changed_value_is_found(name, file, capfd):
    with h5py.File(file, "a") as opened:
        values = opened[name][...]
        last = values.reshape(-1)[-1:]
        last[:] = last + 1 if values.dtype.kind in "iu" else np.nextafter(last, last.dtype.type(9))
        opened[name][...] = values
    what = "weights/0" if "weights" in name else name
    with pytest.raises(Damaged, match=rf"a\.h5 is damaged: checksum of {what}"):
        Results.load(file)
    assert main(["info", str(file)]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["grid_json", "complete", "schema", "schema_version", "checksums"])
def test_a_changed_attribute_is_found(name, file):
    with h5py.File(file, "a") as opened:
        value = opened.attrs[name]
        opened.attrs[name] = value.replace("a", "b", 1) if isinstance(value, str) else value - 1
    with pytest.raises(Damaged):
        Results.load(file)
    with h5py.File(file, "a") as opened:
        del opened.attrs[name]
    with pytest.raises(Damaged):
        Results.load(file)


def _set(name, value, at=0):
    def change(r):
        dims, values = r.variables[name]
        values = values.copy()
        values.reshape(-1)[at] = value
        r.variables[name] = dims, values

    return change


def _axis_of_nan(r):
    axes = {"optimizer.lr": (1e-2, float("nan")), "optimizer.weight_decay": (0.0, 2.0)}
    r.grid = gf.Grid(experiment=r.grid.experiment, axes=axes, name=r.grid.name)
    _set("lr", np.nan, 2)(r)
    _set("lr", np.nan, 3)(r)


IMPOSSIBLE = {
    "phase of 99": (_set("phase", 99), "phase is 99"),
    "T of -7": (_set("t_val", -7), "t_val is -7"),
    "T of 0": (_set("t_train", 0), "t_train is 0"),
    "T beyond the budget": (_set("t_val", 100_000), "t_val is 100000"),
    "more steps than the budget": (_set("steps_done", 451), "steps_done is 451"),
    "no such status": (_set("status", 9), "status is 9"),
    "accuracy above 1": (_set("best_val_acc", 1.5), "best_val_acc is 1.5"),
    "accuracy below 0": (_set("train_acc", -0.5, 7), "train_acc is -0.5"),
    "cells out of order": (_set("run", 2), "run does not rise"),
    "no such cell": (_set("run", 44, 3), "cell 44 is not in its grid of 4"),
    "steps out of order": (_set("step", 400), "step does not rise"),
    "other lr": (_set("lr", 5e-3), "lr is not that of its grid"),
    "NaN as lr": (_set("lr", np.nan), "lr is not that of its grid"),
    "NaN as an axis": (_axis_of_nan, "axis lr has the value nan"),
    "diverged at -5": (_set("diverged_at", -5), "diverged_at is -5"),
    "count of -3": (_set("best_train_correct", -3), "best_train_correct is -3"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_values_that_no_run_writes_are_refused(what, file):
    change, says = IMPOSSIBLE[what]
    r = quietly(file)
    change(r)
    r.save(file)
    with pytest.raises(Damaged, match=says):
        Results.load(file)


@pytest.mark.parametrize(("name", "value", "says"), [
    ("t_train", 381, "steps_done, t_train and t_val contradict"),
    ("phase", 1, "phase does not follow"),
    ("diverged_at", 17, "diverged_at contradict"),
    ("lr", 0.02, "lr is not that of its grid"),
])  # fmt: skip
def test_older_files_are_compared_with_themselves(name, value, says, tmp_path):
    """They have no checksums; those here stop when both accuracies are reached."""
    path = frozen("v2", "toy.h5", tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["grid_json"] = file.attrs["grid_json"].replace('"never"', '"both"')
        file["steps_done"][2] = 382
    assert len(quietly(path)) == 4
    with h5py.File(path, "a") as file:
        file[name][2] = value
    with pytest.raises(Damaged, match=says):
        Results.load(path)


TEXTS = [["cross_entropy"], [], "none", None, True, {}, 10**400]


@pytest.mark.parametrize("value", TEXTS, ids=repr)
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_an_axis_or_a_setting_of_no_numbers_is_refused(version, value, tmp_path, capfd):
    """Its values are not looked at one by one as those of the experiment are."""
    path = frozen(version, "toy.h5", tmp_path)
    r = quietly(path)
    known = r.grid.to_dict()
    (lr, (_, *rest)), *more = known["axes"]
    setting = {"axes": [["batch", ["8"]], *more], "settings": {"batch": {"8": {"lr": value}}}}
    for change in ({"axes": [[lr, [value, *rest]], *more]}, setting):
        with pytest.raises(gf.UsageError, match="optimizer.lr is |this describes no grid"):
            gf.Grid.from_dict(known | change)
        _with_grid(path, json.dumps(known | change), version)
        assert main(["info", str(path)]) == (2 if version == "v3" else 3)
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1


def _with_grid(path, text, version):
    """Another grid, in a file that is otherwise as it was written."""
    if version == "v2":
        with h5py.File(path, "a") as file:
            file.attrs["grid_json"] = text
        return
    with pytest.MonkeyPatch.context() as patch:
        r = quietly(frozen(version, "toy.h5", path.parent))
        patch.setattr(gf.Grid, "to_json", lambda grid: text)
        r.save(path)


def test_an_axis_of_a_loss_that_is_not_registered_is_read(file):
    r = quietly(file)
    data = r.grid.to_dict()
    data["axes"].append(["loss", ["somebody's own", "mse"]])
    assert gf.Grid.from_dict(data).axes["loss"] == ("somebody's own", "mse")


OTHER_TYPES = {
    "text": lambda dims, values: (dims, np.full(values.shape, "none", object)),
    "one number": lambda dims, values: (dims, values.reshape(-1)[0]),
    "one number, said so": lambda dims, values: ((), values.reshape(-1)[0]),
    "a row": lambda dims, values: (("x", *dims), values[None]),
    "of another dimension": lambda dims, values: (("x", *dims[1:]), values),
    "complex": lambda dims, values: (dims, values.astype(complex)),
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_values_of_another_type_or_shape_are_doubted(kind, file):
    """As a file without checksums may hold them, of everything that is counted with."""
    r = quietly(file)
    assert {*plausible._NUMBERS} & {*r.variables} > {"t_val", "val_acc", "best_val_correct"}
    for name, (dims, values) in r.variables.items():
        changed = r.variables | {name: OTHER_TYPES[kind](dims, values)}
        reason = next(plausible.doubts(replace(r, variables=changed), sure=False), "")
        assert reason or name == "embeddings", name
    for name, values in r.weights[0].items():
        bucket = r.weights[0] | {name: OTHER_TYPES[kind]((), values)[1]}
        reason = next(plausible.doubts(replace(r, weights=[bucket]), sure=False), "")
        assert reason or name != "run" or kind == "of another dimension"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_older_files_are_read_in_silence_until_they_are_changed(version, tmp_path):
    path = frozen(version, "toy.h5", tmp_path)
    before = quietly(path)
    with h5py.File(path, "a") as file:
        file["my_note"] = np.arange(3)
    with pytest.warns(UserWarning, match="has been changed since by another program"):
        assert_same(Results.load(path), before)


def test_a_piece_that_does_not_end_is_ended(tmp_path, monkeypatch):
    """The child's clock, on a child that is busy with something else."""
    path = frozen("v2", "toy.h5", tmp_path)
    with guarded.Reader() as reader:
        assert len(quietly(path, reader)) == 4
        process = reader._process
        busy = "import time, signal; from grokfast.storage import guarded; "
        busy += "guarded.CPU_SECONDS = 0.05; "
        busy += "signal.signal(signal.SIGPROF, signal.SIG_DFL); guarded._watch(0)\nwhile True: pass"
        monkeypatch.setattr(guarded, "_CODE", busy)
        process.kill()
        process.wait()
        with pytest.raises(Damaged, match="reading it does not end"):
            Results.load(path, reader)
        monkeypatch.undo()
        assert len(quietly(path, reader)) == 4  # by a new child
        assert reader._process.pid != process.pid
        reader._process.send_signal(signal.SIGSEGV)
        reader._process.wait()
        assert len(quietly(path, reader)) == 4


def test_a_bomb_is_refused(tmp_path):
    path = frozen("v2", "toy.h5", tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset("large", (1 << 34,), "f8", chunks=(1 << 16,), compression="gzip")
    with pytest.raises(Damaged, match="large declares 137438953472 bytes, of which there are 0"):
        Results.load(path)


@pytest.mark.parametrize("name", ["empty", "start"])
def test_a_file_that_was_ours_is_damaged_and_not_foreign(name, file):
    data = file.read_bytes()
    file.write_bytes(b"" if name == "empty" else b"\0" * 16 + data[16:])
    with pytest.raises(Damaged):
        Results.load(file)


def test_damaged_checkpoints_are_set_aside(tmp_path):
    rng = random.Random(3)
    for version in ("v2", "v3"):
        path = frozen(version, "native.h5.ckpt", tmp_path)
        data, good = path.read_bytes(), load_checkpoint(path)
        assert len(good) == 4
        for _ in range(6 if version == "v2" else 60):
            content = damaged(data, rng)[1]
            path.write_bytes(content)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                rows = load_checkpoint(path)
            if rows:
                assert version == "v2" or content == data
                assert json.dumps(sorted(rows)) == json.dumps(sorted(good))
            else:
                assert "is damaged" in str(said[0].message)
                assert not path.exists()


def _lose(group):
    del group["best_val_correct"]


def _turn(group):
    """The same bytes, and so the same checksum, are other numbers."""
    values, crc32 = group["step"][...], group["step"].attrs["crc32"]
    del group["step"]
    group["step"] = values.view(values.dtype.newbyteorder(">"))
    group["step"].attrs["crc32"] = crc32


@pytest.mark.parametrize(
    ("change", "says"), [(_lose, "best_val_correct is not there"), (_turn, "byte order of .*step")]
)
def test_what_the_checksums_of_version_2_do_not_cover(change, says, tmp_path):
    path = frozen("v2", "native.h5.ckpt", tmp_path)
    with h5py.File(path, "a") as file:
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        change(next(g for g in groups if "step" in g))
    with pytest.warns(UserWarning, match=says):
        assert load_checkpoint(path) == {}


def test_a_newer_version_is_told_from_damage(file, tmp_path, monkeypatch):
    r, path = quietly(file), frozen("v3", "native.h5.ckpt", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "SCHEMA_VERSION", 4)
        r.save(file)
    with pytest.raises(gf.UsageError, match="has schema version 4; this grokfast reads up to 3"):
        Results.load(file)
    monkeypatch.setattr(checkpoint, "_VERSION", 2)
    with pytest.raises(gf.UsageError, match="written by a newer grokfast"):
        load_checkpoint(path)
    assert path.exists()


CASES = {
    "never-ends": 3, "swapped-bytes": 3, "flipped-bits": 3, "one-bit-of-t_val": 3,
    "rewritten-by-xarray": 0, "with-a-note-of-mine": 0, "whole": 0,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_small_inputs_that_failed(case, shared, tmp_path, capfd):
    path = shared / "cases" / f"{case}.h5"
    if not path.exists():
        pytest.skip("no such case")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
        assert main(["export", str(path), f"--out={tmp_path / 'a.csv'}"]) == CASES[case]
    err = capfd.readouterr().err
    told = case in ("rewritten-by-xarray", "with-a-note-of-mine")
    assert err.count("\n") == (CASES[case] == 3) + told
    assert ("is damaged" in err) == (CASES[case] == 3)
    assert ("changed since by another program" in err) == told
    if CASES[case] == 0:
        whole = Results.load(shared / "cases" / "whole.h5")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_same(Results.load(path), whole, without=("provenance",))


@pytest.mark.parametrize("kind", READERS)
def test_a_small_campaign(kind, tmp_path):
    """``make campaign-damage`` for the full count, and for the commands."""
    originals(tmp_path)
    number = 60
    outcomes = [outcome for _, _, outcome, *_ in copies(kind, tmp_path, 20, 0, number)]
    assert len(outcomes) == number
    assert not set(outcomes) & set(FORBIDDEN)
    assert "refused" in outcomes
