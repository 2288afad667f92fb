"""Runs end to end: resume, extension, shards, crash safety. Small networks, real training."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.merge import merge

ENGINES = [e for e in os.environ.get("GROKFAST_TEST_ENGINES", "native,reference").split(",") if e]


def small(**changes):
    """Six cells of every kind of ending, in a second."""
    options = {
        "lr": [1e-3, 1e-2],
        "weight_decay": [0.0, 1.0, 10.0],
        "width": 24,
        "steps": 600,
        "record.embeddings": 50,
        "record.weights": True,
    } | changes
    return gf.preset("addition-classification").grid(**options)


def run(grid, engine="native", **kw):
    if engine == "native":
        pytest.importorskip("grokfast._native")
    kw.setdefault("threads", 2 if engine == "native" else 1)
    return gf.run(grid, engine=engine, device="cpu", progress=False, **kw)


def assert_same_arrays(a, b):
    """Every array of two results, byte for byte."""
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        x, y = a[name], b[name]
        assert x.dtype == y.dtype, name
        assert x.tobytes() == y.tobytes() if x.dtype.kind != "O" else (x == y).all(), name
    for p, q in zip(a.weights, b.weights, strict=True):
        assert all(p[k].tobytes() == q[k].tobytes() for k in p | q)


@pytest.fixture(scope="module")
def whole():
    return run(small())


def test_the_grid_has_several_endings(whole):
    assert whole.complete
    assert (whole["t_train"] >= 0).any()
    assert (whole["t_train"] < 0).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_holds_what_the_run_returned(engine, tmp_path):
    out = tmp_path / "a.h5"
    r = run(small(steps=60), engine, out=out)
    assert_same_arrays(r, gf.Results.load(out))
    assert not list(tmp_path.glob(".*")), "leftover temporaries"
    assert not (tmp_path / "a.h5.lock").exists()


def test_xarray_opens_the_file_with_names(tmp_path):
    xarray = pytest.importorskip("xarray")
    run(small(steps=60), out=tmp_path / "a.h5")
    with xarray.open_dataset(tmp_path / "a.h5", engine="h5netcdf") as ds:
        assert ds.sizes["run"] == 6
        assert set(ds.coords) >= {"lr", "weight_decay", "data_seed", "model_seed", "run", "step"}
        assert ds.train_acc.dims == ("run", "step")
        assert ds.embeddings.dims[:2] == ("run", "snapshot")
        assert not [d for d in ds.sizes if d.startswith("phony")]


def test_a_run_again_repeats_nothing(tmp_path, whole):
    out = tmp_path / "a.h5"
    run(small(), out=out)
    (tmp_path / "a.h5.ckpt").unlink()  # outcomes are known without it
    begun = time.monotonic()
    again = run(small(), out=out)
    assert_same_arrays(again, gf.Results.load(out))
    for name in ("t_train", "t_val", "phase", "train_loss"):
        assert again[name].tobytes() == whole[name].tobytes()
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("engine", ENGINES)
def test_raised_budget_gives_the_bits_of_the_long_run(engine, tmp_path):
    out = tmp_path / "a.h5"
    run(small(steps=100), engine, out=out)
    raised = run(small(steps=250), engine, out=out)
    assert_same_arrays(raised, run(small(steps=250), engine))


def test_added_axis_values_reuse_what_is_done(tmp_path, whole):
    out = tmp_path / "a.h5"
    run(small(weight_decay=[0.0, 10.0]), out=out)
    assert_same_arrays(run(small(), out=out), whole)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 25}, "width: 24 -> 25"),
        ({"steps": 10}, "raised, not lowered"),
        ({"lr": [1e-3]}, "lr"),
        ({"record.weights": False}, "record.weights: True -> False"),
        ({"dtype": "float64"}, "dtype: float32 -> float64"),
    ],
)
def test_any_other_change_is_refused_with_the_difference(changes, says, tmp_path):
    out = tmp_path / "a.h5"
    run(small(steps=60), out=out)
    before = out.read_bytes()
    with pytest.raises(gf.UsageError, match=says):
        run(small(**({"steps": 60} | changes)), out=out)
    assert out.read_bytes() == before
    if "width" in changes:
        run(small(**({"steps": 60} | changes)), out=out, overwrite=True)


def test_another_engine_is_refused(tmp_path):
    out = tmp_path / "a.h5"
    run(small(steps=20), out=out)
    with pytest.raises(gf.UsageError, match="trained by native on cpu"):
        run(small(steps=20), "reference", out=out)


def test_shards_merge_to_the_whole(tmp_path, whole):
    files = [tmp_path / f"s{i}.h5" for i in (1, 2, 3)]
    for i, file in enumerate(files, start=1):
        run(small(), out=file, shard=(i, 3))
    merge(files, tmp_path / "m.h5")
    assert_same_arrays(gf.Results.load(tmp_path / "m.h5"), whole)


def test_buckets_of_other_shapes_and_operations_share_a_file(tmp_path):
    grid = small(lr=1e-2, weight_decay=0.0, width=[8, 16], activation=["tanh", "relu"], steps=80)
    r = run(grid, out=tmp_path / "a.h5")
    assert len(r.weights) == 4
    for width in (8, 16):
        for activation in ("tanh", "relu"):
            one = run(
                small(lr=1e-2, weight_decay=0.0, width=width, activation=activation, steps=80)
            )
            k = r.find(width=width, activation=activation)
            assert r["train_loss"][k].tobytes() == one["train_loss"][0].tobytes()
            module = r.module(width=width, activation=activation)
            assert module.layers[0].weight.shape == (width, 1)


def test_a_module_has_the_trained_weights(whole):
    import torch

    from grokfast.program import make_programs

    k = int(np.flatnonzero(whole["t_train"] < 0)[0])  # ran to the budget: curves end there too
    values = {n: whole[n][k] for n in ("lr", "weight_decay")}
    module = whole.module(**values)
    (program,) = make_programs(whole.grid.cells, range(6))
    output = module(program.x_val[0])
    correct = (output.argmax(1) == program.y_val[0]).float().mean()
    loss = torch.nn.functional.cross_entropy(output, program.y_val[0])
    longer = run(small(steps=600, **{"record.curve_points": 2000, **values}))
    j = np.flatnonzero(longer["step"] == 600)
    if len(j):
        assert float(correct) == pytest.approx(longer["val_acc"][0, j[0]])
        assert float(loss) == pytest.approx(longer["val_loss"][0, j[0]], rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_diverging_cell_is_a_result_and_touches_no_other(engine):
    options = {"activation": "relu", "loss": "mse", "predict": "nearest", "task.target_dim": 5}
    calm = run(small(lr=[1e-3, 1e-2], weight_decay=0.0, steps=60, **options), engine)
    wild = run(small(lr=[1e-3, 1e-2, 1e25], weight_decay=0.0, steps=60, **options), engine)
    assert wild["status"].tolist() == [2, 2, 3]
    assert wild["diverged_at"][2] > 0
    assert wild["steps_done"][2] == wild["diverged_at"][2] - 1
    for name in ("train_loss", "val_loss", "t_train", "embeddings"):
        assert wild[name][:2].tobytes() == calm[name].tobytes()


_KILLED = """
import sys, grokfast.trainer as t, grokfast as gf
t.SAVE_EVERY, t.SAVE_SHARE = 0.0, 1e9
from grokfast.engines.native import NativeEngine
NativeEngine.chunk = 40
g = gf.preset("addition-classification").grid(**{
    "lr": [1e-3, 1e-2], "weight_decay": [0.0, 1.0, 10.0], "width": 24, "steps": 600,
    "record.embeddings": 50, "record.weights": True})
gf.run(g, out=sys.argv[1], engine="native", device="cpu", progress=False)
"""


def killable(out, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_KILLED), str(out)],
        env=os.environ | environment,
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
    rng = random.Random(1)
    out = tmp_path / "a.h5"
    for _ in range(int(os.environ.get("GROKFAST_KILLS", "3"))):
        process = killable(out)
        while not out.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        process.kill()
        process.communicate()
        gf.Results.load(out)
    assert_same_arrays(finish(out), whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_costs_time_not_truth(damage, tmp_path, whole):
    out = tmp_path / "a.h5"
    run(small(steps=100), out=out)
    ckpt = tmp_path / "a.h5.ckpt"
    data = bytearray(ckpt.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        with h5py.File(ckpt) as file:
            at = file["0/params.1"].id.get_offset()
        data[at + 5] ^= 1
    ckpt.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="damaged"):
        r = run(small(), out=out)
    assert_same_arrays(r, whole)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_checkpoint_and_go_on(signum, code, tmp_path):
    pytest.importorskip("grokfast._native")
    out = tmp_path / "a.h5"
    command = [
        sys.executable, "-m", "grokfast", "run", "addition-classification",
        "--lr=1e-5,2e-5", "--weight-decay=20", "--steps=12000", "--threads=2",
        "--set=model.width=64", f"--out={out}", "--engine=native", "--device=cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not out.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signum)
    sent = time.monotonic()
    _, err = process.communicate()
    assert process.returncode == code, err
    assert time.monotonic() - sent < 3
    partial = gf.Results.load(out)
    assert not partial.complete
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grid = gf.preset("addition-classification").grid(
        lr=[1e-5, 2e-5], weight_decay=20.0, steps=12000, width=64
    )
    assert_same_arrays(gf.Results.load(out), run(grid))


def test_two_trainers_do_not_share_a_file(tmp_path):
    from grokfast.files import locked

    out = tmp_path / "a.h5"
    with locked(out), pytest.raises(gf.UsageError, match="being written by another run"):
        run(small(steps=10), "reference", out=out)


@pytest.mark.parametrize("what", ["text", "other-hdf5", "newer", "link"])
def test_foreign_files_are_refused(what, tmp_path):
    path = tmp_path / "a.h5"
    if what == "text":
        path.write_text("no hdf5")
    else:
        with h5py.File(path, "w") as file:
            if what == "newer":
                file.attrs.update(schema="grokfast-results", schema_version=99)
            if what == "link":
                file["x"] = h5py.ExternalLink("/etc/other.h5", "/")
    with pytest.raises(gf.UsageError, match="a.h5"):
        gf.Results.load(path)


def test_an_unwritable_place_is_found_before_any_work(tmp_path):
    with pytest.raises(gf.UsageError, match="no such folder"):
        run(small(), out=tmp_path / "nowhere" / "a.h5")


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    import errno

    out = tmp_path / "a.h5"
    run(small(steps=20), out=out)
    before = out.read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(gf.EnvironmentProblem, match="No space left"):
        run(small(steps=40), out=out)
    assert out.read_bytes() == before


def test_a_run_without_a_file_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(small(steps=10), "reference")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_named_before_data_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("GROKFAST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(gf.UsageError, match="no CUDA GPU"):
        gf.run(gf.preset("mnist-original").grid(steps=5), device="cuda")
