"""Writing where the disk does not take it: one line, the last good file, nothing left over."""

import contextlib
import errno
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import grokfast as gf
from grokfast import checkpoint, trainer
from grokfast.cli import main
from grokfast.errors import EnvironmentProblem
from grokfast.results import Results


def small(**axes):
    axes = {"lr": [1e-2, 3e-2], "weight_decay": 0.0, "steps": 20, "width": 8} | axes
    return gf.preset("addition-classification").grid(stop="never", **axes)


def run(grid, **options):
    return gf.run(grid, engine="reference", device="cpu", threads=1, progress=False, **options)


@pytest.fixture
def out(tmp_path):
    run(small(), out=tmp_path / "a.h5")
    return tmp_path / "a.h5"


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith(".lock")}


@contextlib.contextmanager
def disk(monkeypatch, error=None, after=0, short=None):
    """os.write that fails once it has taken so many bytes, or takes few at a time."""
    write, taken = os.write, [0]

    def limited(file, data):
        if file <= 2:
            return write(file, data)
        if error is not None and taken[0] + len(data) > after:
            raise OSError(error, os.strerror(error))
        done = write(file, data[:short] if short else data)
        taken[0] += done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        yield


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("after", [0, 5000])
def test_a_disk_that_fails_leaves_what_was_there(error, after, out, monkeypatch):
    before = contents(out.parent)
    r = Results.load(out)
    with disk(monkeypatch, error, after), pytest.raises(EnvironmentProblem) as told:
        r.save(out)
    assert os.strerror(error) in str(told.value)
    assert contents(out.parent) == before
    states = _states(out)
    with disk(monkeypatch, error, min(after, 500)), pytest.raises(EnvironmentProblem):
        checkpoint.save_checkpoint(out.with_name("a.h5.ckpt"), *states)
    assert contents(out.parent) == before


def _states(out):
    """What a checkpoint is written from."""
    kept = []

    def keep(path, *args):
        kept.append(args)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", keep)
        run(small(steps=24), out=out.with_name("b.h5"))
    for leftover in out.parent.glob("b.h5*"):
        leftover.unlink()
    return kept[-1]


def test_a_disk_that_takes_little_at_a_time_gets_all(out, monkeypatch):
    r, states = Results.load(out), _states(out)
    checkpoint.save_checkpoint(out.with_name("whole.ckpt"), *states)
    with disk(monkeypatch, short=700):
        r.save(out.with_name("b.h5"))
        checkpoint.save_checkpoint(out.with_name("b.ckpt"), *states)
    assert Results.load(out.with_name("b.h5"))["run"].tolist() == [0, 1]
    assert out.with_name("b.ckpt").read_bytes() == out.with_name("whole.ckpt").read_bytes()


COMMANDS = {
    "run": lambda out: ["run", "addition-classification", "--engine=reference", "--lr=0.01,0.03",
                        "--weight-decay=0", "--set=model.width=8", "--stop=never", "--device=cpu",
                        "--threads=1", "--steps=30", f"--out={out}"],
    "plot": lambda out: ["plot", str(out), f"--out={out.with_suffix('.png')}"],
    "plot pdf": lambda out: ["plot", str(out), f"--out={out.with_suffix('.pdf')}"],
    "csv": lambda out: ["export", str(out), f"--out={out.with_suffix('.csv')}"],
    "json": lambda out: ["export", str(out), f"--out={out.with_suffix('.json')}"],
    "merge": lambda out: ["merge", str(out), f"--out={out.with_name('m.h5')}"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_a_full_disk_say_one_line(command, out, monkeypatch, capfd):
    before = contents(out.parent)
    real = os.fsync

    def full(file):  # what is written through Python's own files is flushed to the disk here
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with disk(monkeypatch, errno.ENOSPC), monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(COMMANDS[command](out)) == 3
    assert os.fsync is real
    err = capfd.readouterr().err.splitlines()
    assert [line for line in err if "error" in line] == err[-1:]
    assert "No space left on device" in err[-1]
    assert contents(out.parent) == before


def test_a_limit_of_the_shell_is_an_error_and_no_crash(out):
    """``ulimit -f``: HDF5's own driver ended in a segmentation fault."""
    before = contents(out.parent)
    for command in ("run", "plot", "merge"):
        done = subprocess.run(
            [sys.executable, "-m", "grokfast", *COMMANDS[command](out)],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        )
        assert done.returncode == 3, done.stderr
        assert "File too large" in done.stderr.splitlines()[-1]
        assert contents(out.parent) == before


def test_a_periodic_save_that_fails_costs_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr("grokfast.trainer.SAVE_EVERY", 0.0)
    monkeypatch.setattr("grokfast.trainer.SAVE_SHARE", 1e9)
    save, calls = Results.save, []

    def failing(r, path):
        calls.append(path)
        if 2 <= len(calls) <= 6:
            raise EnvironmentProblem("cannot write a.h5: No space left on device")
        save(r, path)

    monkeypatch.setattr(Results, "save", failing)
    with pytest.warns(UserWarning, match="No space left on device; training goes on"):
        r = run(small(), out=tmp_path / "a.h5")
    assert len(calls) > 7
    assert r["steps_done"].tolist() == [20, 20]
    loaded = Results.load(tmp_path / "a.h5")
    assert np.array_equal(loaded["steps_done"], r["steps_done"])


def test_a_checkpoint_is_written_a_tensor_at_a_time(out, monkeypatch):
    """There is never a second copy of the state."""
    sizes = []
    monkeypatch.setattr(
        checkpoint,
        "write_whole",
        lambda path, parts: sizes.extend(memoryview(part).nbytes for part in parts),
    )
    grid, buckets, states, hollow = _states(out)
    with contextlib.suppress(FileNotFoundError):
        checkpoint.save_checkpoint(Path("nowhere"), grid, buckets, states, hollow)
    largest = max(t.numel() * t.element_size() for s in states for _, t in s.tensors())
    assert max(sizes[:-2]) == largest  # the last two are the table and the seal


def test_saving_holds_no_second_copy_of_the_weights(tmp_path):
    results = run(small(**{"record.weights": True}))
    results.weights[0]["layers.1.weight"] = np.ones((2, 2000, 1000), "f4")  # 16 MB
    tracemalloc.start()
    try:
        results.save(tmp_path / "a.h5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.h5").stat().st_size > 16_000_000
    assert peak < 8_000_000
    again = Results.load(tmp_path / "a.h5").weights[0]["layers.1.weight"]
    np.testing.assert_array_equal(again, results.weights[0]["layers.1.weight"])
