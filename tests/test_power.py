"""Presets of transformers: what the recipes say, and small runs from end to end."""

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.analyses import signature
from grokfast.bucketing import make_buckets
from grokfast.cli import main
from grokfast.models import Transformer
from grokfast.planning import plan

NAMES = [name for name in gf.PRESETS if name.startswith("power-")]
SMALL = {"width": 8, "model.heads": 2, "model.feedforward": 8, "steps": 40, "batch_size": 6}
MODULAR = {"task.operation": "x/y", "task.p": 5, "task.fraction": 0.5}


def small(name, **axes):
    return gf.preset(name).grid(**SMALL | MODULAR | axes)


@pytest.mark.parametrize(
    ("name", "train", "val", "per_epoch", "parameters"),
    [("power-division", 2793, 6519, 6, 409_728), ("power-s5", 7140, 7140, 14, 412_672)],
)
def test_the_reproduction_to_the_letter(name, train, val, per_epoch, parameters):
    grid = gf.preset(name)
    buckets = make_buckets(grid.cells[:1], [0])
    (bucket,) = buckets
    assert (bucket.num_train, bucket.num_val) == (train, val)
    assert bucket.steps_per_epoch == per_epoch
    assert bucket.batch_rows(per_epoch - 1) == (512 * (per_epoch - 1), train)
    assert sum(int(np.prod(shape)) for shape in bucket.shapes) == parameters
    assert [float(bucket.lr_factor(step)) for step in (1, 2, 10, 11, 99)] == [0, 0.1, 0.9, 1, 1]
    assert (bucket.weight_decay == 1).all(), "embeddings, norms and biases, too"
    assert bucket.orders.__class__.__name__ == "FixedOrders"
    assert bucket.cell.steps == 20_000
    assert (bucket.cell.optimizer.lr, bucket.cell.optimizer.beta2) == (1e-3, 0.98)


def test_batches_of_the_paper_are_512_or_half_of_the_training_set():
    for name in ("power-fractions", "power-ablations", "power-operations"):
        tasks = {cell.task for cell in gf.preset(name).cells}
        rows = [task.train_rows() for task in tasks]
        assert min(512, *(n // 2 for n in rows)) == 512


def test_variants_of_the_optimizer_differ_in_what_they_are_called_after():
    cells = gf.preset("power-ablations").grid(**{"task.fraction": 0.5}).cells
    full, adam, noisy, dropout, adamw, towards, slow, fast, weight = cells
    assert (full.batch_size, adam.batch_size, noisy.batch_size) == (0, 512, 0)
    assert {c.optimizer.kind for c in cells if c not in (adamw, towards)} == {"adam"}
    decays = [c.optimizer.weight_decay for c in cells]
    assert decays == [0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert (adamw.optimizer.kind, towards.optimizer.decay_towards) == ("adamw", "initial")
    assert (noisy.optimizer.update_noise, weight.optimizer.weight_noise) == (1.0, 0.01)
    assert dropout.model.dropout == 0.1
    assert (slow.optimizer.lr, adam.optimizer.lr, fast.optimizer.lr) == (3e-4, 1e-3, 3e-3)


@pytest.fixture(scope="module")
def division(tmp_path_factory):
    """A small run of power-division, as the command line makes it."""
    path = tmp_path_factory.mktemp("run") / "r.h5"
    options = ",".join(f"{name}={value}" for name, value in (SMALL | MODULAR).items())
    options = options.replace("width=", "model.width=").replace(
        "steps=", "evaluation.every=5,steps="
    )
    run = ["run", "power-division", f"--set={options}", "--engine=reference", "--device=cpu"]
    assert main([*run, f"--out={path}"]) == 0
    return path


def test_a_trained_cell_is_the_plain_module(division):
    r = gf.Results.load(division)
    net = r.module(model_seed=1)
    assert isinstance(net, torch.nn.Module)
    data = r.grid.experiment.task.build()
    with torch.no_grad():
        right = net(data.x_val).argmax(1) == data.y_val
    assert float(right.float().mean()) == pytest.approx(float(r["final_val_acc"][1]))
    assert r["layer_norms"].shape == (3, 1, 3), "of step 0; the next would be 100"
    assert r["step"].tolist() == list(range(5, 41, 5))
    assert {f"t_{part}_{t}" for part in ("train", "val") for t in (0.5, 0.9, 0.99)} == set(
        r.crossings
    )
    assert signature(r, 0).every == 5


def test_commands_know_a_transformer(division, tmp_path, capsys):
    assert main(["analyze", str(division), "--cell=model_seed:0"]) == 0
    assert "mean validation accuracy" in capsys.readouterr().out
    assert main(["info", str(division)]) == 0
    assert "crossing  t_val_0.99: 0 of 3 cells, median never" in capsys.readouterr().out
    for kind, more in (("curves", ["--over=model_seed"]), ("observables", [])):
        out = tmp_path / f"{kind}.png"
        assert main(["plot", str(division), f"--kind={kind}", f"--out={out}", *more]) == 0
        assert out.stat().st_size > 10_000


@pytest.mark.parametrize("name", NAMES)
def test_what_a_run_would_take(name):
    options = SMALL | MODULAR
    if name == "power-ablations":  # a batch size of one's own leaves no full batches
        options |= {"variant": ["dropout", "adamw-to-initial", "weight-noise"]}
    grid = gf.preset(name).grid(**options)
    found = plan(grid, engine="reference", device="cpu")
    net = Transformer(width=8, heads=2, feedforward=8, bias=False)
    module = net.build(gf.Shape(inputs=4, outputs=7, vocabulary=7))
    parameters = sum(p.numel() for p in module.parameters())
    assert found.cells == grid.size
    assert found.steps == 40 * grid.size
    assert found.rate > 0
    assert found.memory_bytes > 2 * 4 * parameters * grid.size


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path):
    grid = small("power-division", **{"model.seed": 0, "evaluation.every": 4})
    whole = gf.run(grid, engine="reference", device="cpu", progress=False)
    path = tmp_path / "r.h5"
    for steps in (12, 40):
        part = gf.run(
            grid.grid(steps=steps), out=path, engine="reference", device="cpu", progress=False
        )
    for name in ("train_loss", "val_acc", "t_train", "train_crossings"):
        np.testing.assert_array_equal(part[name], whole[name])
    for name, values in whole.weights[0].items():
        np.testing.assert_array_equal(part.weights[0][name], values)
