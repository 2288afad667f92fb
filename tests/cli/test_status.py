"""``grokfast status``: what it says of shards that are done, being written, left or damaged."""

import errno
import json

import h5py
import pytest

import grokfast as gf
from grokfast.cli import main
from grokfast.storage.locks import locked
from grokfast.storage.processes import here as machine

PRESET = gf.preset("addition-classification")


def small(**changes):
    options = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 5.0, 10.0], "width": 8, "steps": 20}
    return PRESET.grid(**(options | {"stop": "never"} | changes))


def trained(out, grid=None, shard=None):
    options = {"engine": "reference", "device": "cpu", "threads": 1, "progress": False}
    return gf.run(grid or small(), out=out, shard=shard, **options)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The three shards of six cells."""
    folder = tmp_path_factory.mktemp("shards")
    for i in (1, 2, 3):
        trained(folder / f"{i}.h5", shard=(i, 3))
    return folder


@pytest.fixture
def here(shards, tmp_path, monkeypatch):
    for path in shards.glob("*.h5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def status(capsys):
    def told(*arguments):
        code = main(["status", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out.splitlines()

    return told


def left(path):
    """Makes a file one of a run that has been stopped half-way: of its first cell, step 5 of 20."""
    results = gf.Results.load(path)
    results["status"][0], results["steps_done"][0], results["phase"][0] = gf.results.RUNNING, 5, -1
    results.complete = False
    results.save(path)


def test_all_there(here, status):
    code, lines = status("1.h5", "2.h5", "3.h5")
    assert code == 0
    assert all(
        line.startswith(f"{i}.h5  100.0%  complete on ") for i, line in enumerate(lines[:3], 1)
    )
    assert lines[3].startswith("addition-classification: 6 of 6 cells have a file, 100.0% of ")
    assert lines[4:] == ["complete: grokfast merge joins them"]


def test_what_is_missing_is_named(here, status):
    code, lines = status("3.h5", "1.h5")
    assert code == 4
    assert "4 of 6 cells have a file, 66.7% of the cell-steps are done" in lines[2]
    assert lines[3:] == ["shards without a file: 2/3"]
    code, lines = status("1.h5", "2.h5", "no.h5")
    assert code == 4
    assert lines[2] == "no.h5       -  no such file"
    trained(here / "odd.h5", shard=(1, 2))
    code, lines = status("1.h5", "odd.h5")  # no i/n of one n
    assert code == 4
    assert lines[3:] == [
        "cells in several files, which grokfast merge refuses: 1",
        "cells without a file: 2 (0, 2)",
    ]


def test_who_works_on_what(here, status):
    left("1.h5")
    _, lines = status("1.h5")
    assert lines[0].startswith("1.h5   62.5%  stopped on ")
    assert lines[0].endswith("; confusion 1, not known yet 1")
    with locked(here / "1.h5"), locked(here / "4.h5"):
        code, lines = status("1.h5", "4.h5")
    assert code == 4
    own = machine().partition("~")[0]
    assert lines[0].startswith(f"1.h5   62.5%  running on {own} (pid ")
    assert " ago); confusion 1" in lines[0]
    assert lines[1].startswith(f"4.h5       -  running on {own} (pid ")
    assert lines[1].endswith(", nothing saved yet)")
    (here / "1.h5.lock").write_text(f"pid 4194305 on {machine()} began 7\n")
    _, lines = status("1.h5")
    assert lines[0].startswith(f"1.h5   62.5%  died on {own}; ")
    (here / "1.h5.lock").write_text("pid 12 on node7~402 began 7\n")
    _, lines = status("1.h5")
    assert lines[0].startswith("1.h5   62.5%  running on node7 (pid 12, saved ")


def test_what_cannot_be_read_does_not_stop_the_others(here, status):
    (here / "text.h5").write_text("no results\n\x1b[31m")
    with h5py.File("foreign.h5", "w") as file:
        file["x"] = [1.0]
    data = (here / "2.h5").read_bytes()
    (here / "2.h5").write_bytes(data[: len(data) // 2])
    code, lines = status("text.h5", "foreign.h5", "2.h5", "1.h5", ".")
    assert code == 3
    assert lines[0] == "text.h5 is no readable HDF5 file"
    assert lines[1] == "foreign.h5 holds no grokfast results"
    assert lines[2].startswith("2.h5 is damaged: ")
    assert lines[3].startswith("1.h5        100.0%  complete")
    assert "folder" in lines[4]
    assert lines[5].startswith("addition-classification: 2 of 6 cells")
    assert len(lines) == 7


def test_what_the_system_forbids_is_said(here, status, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("grokfast.cli.status.holder", forbidden)
    code, lines = status("1.h5", "2.h5")
    assert (code, lines) == (3, ["1.h5: Permission denied", "2.h5: Permission denied"])


def test_runs_are_added_up_apart(here, status):
    trained(here / "other.h5", small(steps=21), shard=(2, 3))
    code, lines = status("1.h5", "2.h5", "3.h5", "other.h5")
    assert code == 4
    assert lines[4].startswith("addition-classification: 6 of 6 cells")
    assert lines[6].startswith("addition-classification: 2 of 6 cells")
    assert lines[7:] == ["shards without a file: 1/3, 3/3"]


def test_a_file_that_is_there_twice_counts_once(here, status, capsys):
    assert main(["merge", "1.h5", "2.h5", "3.h5", "--out=m.h5"]) == 0
    capsys.readouterr()
    left("1.h5")
    code, lines = status("m.h5", "1.h5", "1.h5")
    assert code == 0
    assert "6 of 6 cells have a file, 100.0%" in lines[2]
    assert lines[3:] == ["cells in several files, which grokfast merge refuses: 2"]


def test_json(here, status):
    left("1.h5")
    code, lines = status("1.h5", "2.h5", "text.h5", "--json")
    assert code == 4
    told = json.loads("\n".join(lines))
    assert [row["state"] for row in told["files"]] == ["stopped", "complete", "no such file"]
    (run,) = told["runs"]
    assert (run["shards"], run["missing_shards"], run["missing_cells"]) == (3, [3], [0, 3])
    assert run["progress"] == pytest.approx(3.25 / 6)
    assert not run["complete"]


def test_it_needs_no_torch(grokfast, shards):
    done = grokfast("status", str(shards / "1.h5"))
    assert done.code == 4
    assert not done.imported_torch
