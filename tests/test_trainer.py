"""Runs end to end: resume, extension, shards. Small networks, real training."""

import os
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from small_runs import assert_same_arrays, run, small

import grokfast as gf
from grokfast.merge import merge
from grokfast.trainer import Interrupted

ENGINES = os.environ.get("GROKFAST_TEST_ENGINES", "native,reference,compiled").split(",")


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch):
    """What compiling changes is tests/engines' business."""
    monkeypatch.setattr("grokfast.engines.compiled.CompiledEngine.eager", True)


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
    before = out.read_bytes()
    assert_same_arrays(run(small(), out=out), whole)
    assert out.read_bytes() == before  # provenance too: nothing has been computed


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_counts_what_is_left_and_writes_nothing(engine, tmp_path):
    if engine == "native":
        pytest.importorskip("grokfast._native")
    out = tmp_path / "a.h5"
    options = {"engine": engine, "device": "cpu", "threads": 1, "out": out}
    grid = small(steps=60, stop="never")
    new = gf.plan(grid, **options)
    assert (new.cells, new.steps, new.left) == (6, 360, 360)
    assert not list(tmp_path.iterdir())
    assert new.seconds == pytest.approx(new.left / new.rate)

    run(small(steps=40, stop="never"), engine, out=out, shard=(1, 2), threads=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    rest = gf.plan(grid, **options)
    assert (rest.steps, rest.left) == (360, 3 * 20 + 3 * 60)
    assert gf.plan(grid, **options, overwrite=True).left == 360
    done = gf.plan(small(steps=40, stop="never"), **options, shard=(1, 2))
    assert (done.left, done.rate, done.seconds) == (0, 0.0, 0.0)
    with pytest.raises(gf.UsageError, match="was run with steps=40, more than 20"):
        gf.plan(small(steps=20, stop="never"), **options, shard=(1, 2))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_one_shard_is_not_the_whole(tmp_path, whole):
    out = tmp_path / "a.h5"
    run(small(), out=out, shard=(1, 2))
    assert_same_arrays(run(small(), out=out), whole)


@pytest.mark.parametrize("more", [0, 90])
def test_what_was_known_is_kept_until_a_cell_is_there_again(more, tmp_path, whole):
    """The budget is raised without a checkpoint: those cells begin anew, interrupted or not."""
    out = tmp_path / "a.h5"
    first = run(small(steps=200), out=out)
    (tmp_path / "a.h5.ckpt").unlink()
    stop_after(more, small(), out)
    partial = gf.Results.load(out)
    assert not partial.complete
    for name in ("t_train", "t_val", "diverged_at", "steps_done", "phase"):
        known = first["t_train"] >= 0 if name == "phase" else slice(None)
        assert (partial[name][known] == first[name][known]).all(), name
    at = np.searchsorted(partial["step"], np.intersect1d(partial["step"], first["step"]))
    assert len(at) > 20
    there = np.searchsorted(first["step"], partial["step"][at])
    assert partial["val_acc"][:, at].tobytes() == first["val_acc"][:, there].tobytes()
    assert partial["embeddings"][:, :5].tobytes() == first["embeddings"].tobytes()
    assert all(
        partial.weights[0][n].tobytes() == first.weights[0][n].tobytes() for n in first.weights[0]
    )
    assert partial.phases(budget=200).tolist() == first.phases().tolist()
    assert_same_arrays(run(small(), out=out), whole)


def stop_after(steps, grid, out):
    """Interrupts a run into ``out`` when each of its cells has done so many steps."""
    from grokfast.engines import native

    class Brief(native.NativeEngine):
        chunk = steps or 1

        def advance(self, bucket, state, cells, until, tick=None):
            if steps:
                super().advance(bucket, state, cells, until, tick)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "NativeEngine", Brief)
        with pytest.raises(Interrupted):
            run(grid, out=out)


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
        ({"record.weights": False}, "record.weights: true -> false"),
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


def test_another_instruction_set_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "a.h5"
    monkeypatch.setenv("GROKFAST_NATIVE_LEVEL", "baseline")
    run(small(steps=20), out=out)
    monkeypatch.delenv("GROKFAST_NATIVE_LEVEL")
    from grokfast import _native

    if _native.levels()["active"] == "baseline":
        pytest.skip("this machine has no other level")
    run(small(steps=20), out=out)  # nothing to train: nothing to refuse
    with pytest.raises(gf.UsageError, match=r"native on cpu \(level baseline\), not"):
        run(small(steps=40), out=out)


def test_other_data_under_the_same_name_is_refused(tmp_path, monkeypatch):
    from grokfast.tasks.addition import Addition

    out = tmp_path / "a.h5"
    run(small(steps=20), out=out)
    build = Addition.build
    monkeypatch.setattr(
        Addition, "build", lambda task: replace(d := build(task), y_train=d.y_train.flip(0))
    )
    with pytest.raises(gf.UsageError, match="other data than task 'addition'"):
        run(small(steps=40), out=out)


def test_tools_of_all_parts_are_told(tmp_path):
    out = tmp_path / "a.h5"
    run(small(steps=20), out=out)
    r = gf.Results.load(out)
    r.provenance["torch"] = "2.11.0"
    r.save(out)
    assert run(small(steps=40), out=out).provenance["torch"] == f"2.11.0, {torch.__version__}"


@pytest.mark.parametrize("engine", ENGINES)
def test_budgets_can_be_an_axis(engine, tmp_path):
    out = tmp_path / "a.h5"
    grid = small(lr=1e-2, weight_decay=0.0, steps=[100, 600, 300])
    r = run(grid, engine, out=out)
    assert r["steps_done"].tolist() == [100, r["steps_done"][1], 300]
    assert_same_arrays(run(grid, engine, out=out), r)
    more = run(small(lr=1e-2, weight_decay=0.0, steps=[50, 100, 600, 300]), engine, out=out)
    assert more["steps_done"].tolist() == [50, *r["steps_done"]]
    for k, steps in enumerate((100, 600, 300)):
        alone = run(small(lr=1e-2, weight_decay=0.0, steps=steps), engine)
        assert r["t_train"][k] == alone["t_train"][0]
        assert r["phase"][k] == alone["phase"][0]
    with pytest.raises(gf.UsageError, match="steps: "):
        run(small(lr=1e-2, weight_decay=0.0, steps=700), engine, out=out)


def test_each_cell_has_its_own_phase_rule(tmp_path):
    one = {"lr": 3e-3, "weight_decay": 0.0, "data_seed": 0}
    delays = run(small(**one))
    delay = int(delays["t_val"][0] - delays["t_train"][0])
    assert delay > 1
    run(small(**one, **{"phase.gap": [delay + 1, delay, 0]}), out=tmp_path / "a.h5")
    r = gf.Results.load(tmp_path / "a.h5")
    assert r["phase"].tolist() == [0, 1, 1]
    assert r.phases().tolist() == [0, 1, 1]


def test_each_cell_has_its_own_snapshots(tmp_path):
    grid = small(lr=1e-2, weight_decay=0.0, steps=40, **{"record.embeddings": [10, 20, 15]})
    r = run(grid, out=tmp_path / "a.h5")
    assert r["snapshot"].tolist() == [0, 10, 15, 20, 30, 40]
    for k, every in enumerate((10, 20, 15)):
        there = np.isfinite(r["embeddings"][k]).all((1, 2))
        assert (r["snapshot"][there] % every == 0).all()
        assert there.sum() == 40 // every + 1
        alone = run(small(lr=1e-2, weight_decay=0.0, steps=40, **{"record.embeddings": every}))
        assert r["embeddings"][k][there].tobytes() == alone["embeddings"].tobytes()
    files = [tmp_path / f"s{i}.h5" for i in (1, 2, 3)]
    for i, file in enumerate(files, start=1):
        run(grid, out=file, shard=(i, 3))
    assert_same_arrays(merge(files, tmp_path / "m.h5"), r)
    raised = run(grid.grid(steps=60), out=tmp_path / "a.h5")
    assert_same_arrays(raised, run(grid.grid(steps=60)))


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

    from grokfast.bucketing import make_buckets

    k = int(np.flatnonzero(whole["t_train"] < 0)[0])  # not stopped: it ran to the budget
    values = {n: whole[n][k] for n in ("lr", "weight_decay")}
    (bucket,) = make_buckets(whole.grid.cells, range(6))
    last = int(bucket.curve_steps[-1])  # a step whose accuracy and loss are kept
    trained = run(small(steps=last, **values))
    with torch.no_grad():
        output = trained.module()(bucket.x_val[0])
        correct = (output.argmax(1) == bucket.y_val[0]).float().mean()
        loss = torch.nn.functional.cross_entropy(output, bucket.y_val[0])
    assert trained["step"][-1] == last
    assert float(correct) == pytest.approx(trained["val_acc"][0, -1])
    assert float(loss) == pytest.approx(trained["val_loss"][0, -1], rel=1e-4)
    for name, value in whole.module(**values).state_dict().items():
        assert (value != trained.module().state_dict()[name]).any(), name  # 600 steps, not `last`


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


def test_a_state_beyond_the_memory_is_refused_before_any_work(tmp_path):
    grid = small(lr=1e-3, weight_decay=0.0, width=500_000)
    with pytest.raises(gf.EnvironmentProblem, match="the state of 1 cells takes 2,794 GiB at"):
        run(grid, out=tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_an_unwritable_place_is_found_before_any_work(tmp_path):
    with pytest.raises(gf.UsageError, match="no such folder"):
        run(small(), out=tmp_path / "nowhere" / "a.h5")


def test_a_run_without_a_file_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(small(steps=10), "reference")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_named_before_data_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("GROKFAST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(gf.UsageError, match="no CUDA GPU"):
        gf.run(gf.preset("mnist-original").grid(steps=5), device="cuda")
