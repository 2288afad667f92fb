"""Where files lie: behind links, in home folders; and a checkpoint that is not there any more."""

import pytest
from small_runs import assert_same_arrays, run, small

import grokfast as gf
from grokfast.cli import main
from grokfast.merge import merge
from grokfast.storage.locks import locked


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_a_run_into_a_link_lies_beside_the_real_file(tmp_path):
    (tmp_path / "far").mkdir()
    link, real = tmp_path / "a.h5", tmp_path / "far" / "real.h5"
    link.symlink_to("far/real.h5")
    run(small(steps=100), out=link)
    assert {p.name for p in (tmp_path / "far").iterdir()} == {"real.h5", "real.h5.ckpt"}
    assert link.is_symlink()
    # The other name is the same run: its lock, and its checkpoint, from which it goes on.
    with locked(real), pytest.raises(gf.UsageError, match="being written by another run"):
        run(small(steps=200), out=link)
    resumed = run(small(steps=200), out=link)
    assert_same_arrays(resumed, run(small(steps=200)))
    assert_same_arrays(run(small(steps=200), out=real), resumed)
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5", "far", "home"}


def test_a_merge_into_a_link(tmp_path):
    files = [tmp_path / f"s{i}.h5" for i in (1, 2)]
    for i, file in enumerate(files, start=1):
        run(small(steps=20), out=file, shard=(i, 2))
    (tmp_path / "m.h5").symlink_to("real.h5")
    merge(files, tmp_path / "m.h5")
    assert (tmp_path / "m.h5").is_symlink()
    assert len(gf.Results.load(tmp_path / "real.h5")) == 6
    (tmp_path / "shard").symlink_to("s1.h5")
    with pytest.raises(gf.UsageError, match="itself one of the shards"):
        merge(files, tmp_path / "shard", overwrite=True)


def test_a_checkpoint_that_has_gone_is_said_with_what_it_costs(tmp_path):
    out = tmp_path / "a.h5"
    whole = run(small(steps=200), out=out)
    begun = whole["steps_done"][whole["t_val"] < 0]  # those that could go on
    (tmp_path / "a.h5.ckpt").unlink()
    says = f"{len(begun)} unfinished cells to start again, {begun.sum():,} model-steps"
    with pytest.warns(UserWarning, match=f"{says} .*a.h5.ckpt is not there"):
        resumed = run(small(steps=300), out=out)
    assert_same_arrays(resumed, run(small(steps=300)))


def test_of_a_checkpoint_that_is_there_nothing_is_said(tmp_path, recwarn):
    out = tmp_path / "a.h5"
    run(small(steps=100), out=out)
    run(small(steps=200), out=out)
    assert not [w for w in recwarn if "start again" in str(w.message)]


def test_home_is_home_everywhere(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    r = run(small(steps=20), out="~/a.h5")
    assert (home / "a.h5").exists()
    assert gf.plan(small(steps=20), out="~/a.h5", engine="native", device="cpu").left == 0
    assert_same_arrays(gf.Results.load("~/a.h5"), r)
    r.save("~/b.h5")
    for i in (1, 2):
        run(small(steps=20), out=f"~/s{i}.h5", shard=(i, 2))
    for words in (
        ["info", "~/a.h5"],
        ["export", "~/b.h5", "--out=~/x.csv"],
        ["merge", "~/s1.h5", "~/s2.h5", "--out=~/m.h5"],
        ["plot", "~/m.h5", "--out=~/p.png"],
        ["plot", "~/m.h5"],
        ["agree", "~/m.h5", "~/a.h5"],
        ["data", "export", "addition-regression", "--out=~/d.csv"],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
    made = {"a.h5", "b.h5", "m.h5", "x.csv", "p.png", "m.phases.png", "d.csv"}
    assert made <= {p.name for p in home.iterdir()}
    assert not list(tmp_path.glob("~*"))
    assert main(["info", "~nobody-of-this-name/a.h5"]) == 2
    assert "cannot expand '~nobody-of-this-name/a.h5'" in capsys.readouterr().err


def test_a_file_of_other_cells_is_told_as_what_it_is(tmp_path):
    run(small(steps=20), out=tmp_path / "whole.h5")
    with pytest.raises(gf.UsageError, match="holds the whole grid, and this run is of one shard"):
        run(small(steps=20), out=tmp_path / "whole.h5", shard=(1, 2))
    run(small(steps=20), out=tmp_path / "s.h5", shard=(1, 2))
    with pytest.raises(gf.UsageError, match="it holds cells of another shard"):
        run(small(steps=20), out=tmp_path / "s.h5", shard=(2, 2))
