"""Runs that end before their end: killed, hit by signals, on a full disk; and two at once."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
from small_runs import assert_same_arrays, run, small

import grokfast as gf
from grokfast import trainer
from grokfast.checkpoint import load_checkpoint
from grokfast.storage.files import checkpoint_path
from grokfast.storage.locks import locked


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch):
    """What compiling changes is tests/engines' business."""
    monkeypatch.setattr("grokfast.engines.compiled.CompiledEngine.eager", True)


@pytest.fixture(scope="module")
def whole():
    return run(small())


#: Before each chunk it says so and waits to be let go on: it cannot end by itself, on a machine
#: however fast. With nobody at the other end it goes through.
_KILLED = """
import sys, grokfast.trainer as t, grokfast as gf
t.SAVE_EVERY, t.SAVE_SHARE = 0.0, 1e9
from grokfast.engines.native import NativeEngine
class Waiting(NativeEngine):
    chunk = int(sys.argv[2])
    def advance(self, *arguments):
        print("chunk", flush=True)
        sys.stdin.readline()
        super().advance(*arguments)
sys.modules["grokfast.engines.native"].NativeEngine = Waiting
g = gf.preset("addition-classification").grid(**{
    "lr": [1e-3, 1e-2], "weight_decay": [0.0, 1.0, 10.0], "width": 24, "steps": 600,
    "record.embeddings": 50, "record.weights": True})
gf.run(g, out=sys.argv[1], engine="native", device="cpu", progress=False)
"""


def killable(out, chunk=40, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_KILLED), str(out), str(chunk)],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out):
    process = killable(out)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return gf.Results.load(out)


@pytest.mark.parametrize("point", ["written:2", "synced:3", "replaced:4", "replaced:5"])
def test_killed_inside_a_commit(point, tmp_path, whole):
    pytest.importorskip("grokfast._native")
    out = tmp_path / "a.h5"
    process = killable(out, GROKFAST_FAULT=point)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    gf.Results.load(out)
    assert_same_arrays(finish(out), whole)


def test_killed_at_random_moments(tmp_path, whole):
    """GROKFAST_KILLS=20 for the full count."""
    pytest.importorskip("grokfast._native")
    rng, kills = random.Random(1), int(os.environ.get("GROKFAST_KILLS", "3"))
    out = tmp_path / "a.h5"
    chunk = 600 // (4 * kills)  # three chunks a life at most: there are always some left
    for _ in range(kills):
        process = killable(out, chunk)
        for _ in range(rng.randint(2, 3)):
            begun = time.monotonic()
            line = process.stdout.readline()
            assert line == "chunk\n", (line, process.wait(), process.stderr.read())
            took = time.monotonic() - begun  # the last time: a chunk with its save
            process.stdin.write("\n")
            process.stdin.flush()
        time.sleep(rng.random() * took)  # within the next one, at this machine's pace
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        gf.Results.load(out)
    assert_same_arrays(finish(out), whole)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("engine", ["native", "reference", "compiled"])
def test_killed_before_any_write_nothing_is_lost(engine, tmp_path, monkeypatch):
    """Of a save the checkpoint may be there and the results not, never the other way round."""
    if engine == "native":
        pytest.importorskip("grokfast._native")
    some = {"lr": [1e-5, 1e-3], "weight_decay": 0.0, "width": 16, "phase.threshold": 0.1}
    grid, raised = (small(**some, steps=steps) for steps in (40, 50))
    monkeypatch.setattr(f"grokfast.engines.{engine}.{engine.capitalize()}Engine.chunk", 15)
    monkeypatch.setattr(trainer.Trainer, "_save_is_due", lambda t: t.states[0].step.max() == 15)
    monkeypatch.setattr(trainer.Trainer, "_tick", lambda t, done: False)
    wanted, left = run(raised, engine), [1000]
    assert (wanted["steps_done"] < 40).tolist() == [False, True], "one ends on the way"

    def until_killed(write):
        def counted(*arguments):
            left[0] -= 1
            if left[0] <= 0:  # who is dead writes nothing more
                raise Killed
            return write(*arguments)

        return counted

    monkeypatch.setattr(gf.Results, "save", until_killed(gf.Results.save))
    monkeypatch.setattr(trainer, "save_checkpoint", until_killed(trainer.save_checkpoint))
    for nth in (2, 3, 4, 5, 6, 7):
        out, left[0] = tmp_path / f"{nth}.h5", nth
        with pytest.raises(Killed) if nth < 7 else contextlib.nullcontext():
            run(grid, engine, out=out)
        left[0] = 1000
        found, rows = gf.Results.load(out), load_checkpoint(checkpoint_path(out))
        first = int(found["steps_done"][0])
        assert first == 0 or rows[found.grid.keys[0]]["step"] >= first
        assert found.complete == (nth >= 6), "saved at first, after a chunk, and at the end"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same_arrays(run(raised, engine, out=out), wanted)
    assert list(rows) == [found.grid.keys[0]], "the other's end is in the results"


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_costs_time_not_truth(damage, tmp_path, whole):
    out = tmp_path / "a.h5"
    run(small(steps=100), out=out)
    ckpt = tmp_path / "a.h5.ckpt"
    data = bytearray(ckpt.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 3] ^= 1
    ckpt.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="damaged"):
        r = run(small(), out=out)
    assert_same_arrays(r, whole)


#: The command line; says when a chunk has been trained, and at which step that is.
_SIGNALLED = """
import sys
from grokfast.cli import main
from grokfast.engines.native import NativeEngine
class Speaking(NativeEngine):
    calls = 0
    def advance(self, bucket, state, *rest):
        self.calls += 1
        if self.calls == 2:
            print(int(state.step.min()), flush=True)
        super().advance(bucket, state, *rest)
sys.modules["grokfast.engines.native"].NativeEngine = Speaking
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_checkpoint_and_go_on(signum, code, tmp_path):
    """A run of 20 million steps, twice stopped on its way: the bits of one that was not. (All other
    signals, and every stage of a command: tests/campaigns/signals.py.)"""
    pytest.importorskip("grokfast._native")
    out = tmp_path / "a.h5"
    options = [
        "run", "addition-classification", "--lr=1e-5,2e-5", "--weight-decay=20",
        "--steps=10000000", "--stop=never", "--threads=2", "--set=model.width=64",
        f"--out={out}", "--engine=native", "--device=cpu",
    ]  # fmt: skip
    done = np.zeros(2)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", _SIGNALLED, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        at = process.stdout.readline()
        assert at, process.stderr.read()
        assert int(at) > done.min(), "it goes on from where it was"
        process.send_signal(signum)
        _, err = process.communicate()
        assert process.returncode == code, err
        partial = gf.Results.load(out)
        assert not partial.complete
        assert (partial["steps_done"] > done).all()
        done = partial["steps_done"]

    rows = load_checkpoint(checkpoint_path(out))
    for k, key in enumerate(partial.grid.keys):
        straight = run(
            partial.grid.grid(lr=float(partial["lr"][k]), steps=int(done[k])).grid(
                **{"record.weights": True}
            )
        )
        kept = np.isin(partial["step"], straight["step"])
        for name in ("train_loss", "val_loss", "train_acc", "val_acc"):
            assert partial[name][k, kept].tobytes() == straight[name][0].tobytes(), name
        weights = [w for name, w in straight.weights[0].items() if name != "run"]
        for g, w in enumerate(weights):
            assert rows[key][f"params.{g}"].tobytes() == w[0].tobytes(), g


def test_two_trainers_do_not_share_a_file(tmp_path):
    out = tmp_path / "a.h5"
    with locked(out), pytest.raises(gf.UsageError, match="being written by another run"):
        run(small(steps=10), "reference", out=out)


def test_a_long_call_is_saved_before_its_end(tmp_path, monkeypatch):
    """An engine that can stop anywhere comes back when it is time to save."""
    monkeypatch.setattr("grokfast.trainer.SAVE_EVERY", 0.0)
    monkeypatch.setattr("grokfast.trainer.SAVE_SHARE", 1e9)
    saved = []
    save = gf.Results.save
    monkeypatch.setattr(
        gf.Results,
        "save",
        lambda r, path: (saved.append(int(r["steps_done"].sum())), save(r, path)),
    )
    run(small(lr=1e-3, weight_decay=[0.0, 10.0], steps=60), "reference", out=tmp_path / "a.h5")
    assert len(saved) > 50  # one chunk, one call, without it: twice
    assert saved == sorted(saved)


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "a.h5"
    run(small(steps=20), out=out)
    before = out.read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(gf.EnvironmentProblem, match="No space left"):
        run(small(steps=40), out=out)
    assert out.read_bytes() == before
