"""What a package outside grokfast adds (outside.py) is trained, kept, read back and drawn; where it
is not installed, what was found can still be read."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import assert_close, assert_same_bits, bucket_of, engine_of, trained

import grokfast as gf
from grokfast.errors import UsageError
from grokfast.losses import LOSSES
from grokfast.models import MODELS
from grokfast.models.chain import Chain
from grokfast.models.layers import Linear
from grokfast.observables import OBSERVABLES
from grokfast.optimizers import OPTIMIZERS
from grokfast.phases import PHASE_RULES
from grokfast.registry import Registry
from grokfast.tasks.base import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")

REGISTRIES = (LOSSES, MODELS, OBSERVABLES, OPTIMIZERS, PHASE_RULES, TASKS)


@pytest.fixture(scope="module")
def outside():
    """The package, imported for these tests alone."""
    tables = [
        table
        for registry in REGISTRIES
        for table in (vars(registry).values() if isinstance(registry, Registry) else [registry])
        if isinstance(table, dict | set)
    ]
    before = [table.copy() for table in tables]
    path = Path(__file__).with_name("outside.py")
    spec = importlib.util.spec_from_file_location("outside", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


def experiment(outside, **changes):
    """Everything of theirs but the model."""
    return gf.Experiment(
        task=outside.Majority(),
        model=gf.Mlp(width=7, depth=2),
        loss="huber",
        optimizer=gf.Optimizer(kind="warm-sign", lr=1e-2, weight_decay=0.1, beta2=0.9),
        steps=12,
        stop="never",
        phase=outside.Halves(),
        record=gf.Recording(observables=("largest:4",), weights=True),
    ).replace(**changes)


def run(grid, **options):
    options = {"engine": "reference", "device": "cpu", "threads": 1, "progress": False} | options
    return gf.run(grid, **options)


def test_the_compiled_engine_trains_their_task_loss_and_optimizer(outside):
    e = experiment(outside, dtype="float64", batch_size=8)
    cells = [e.replace(lr=lr, model_seed=seed) for lr in (1e-3, 1e-2) for seed in (0, 1)]
    bucket = bucket_of(*cells)
    # Its update has a slope of 100 lr where AdamW's has lr / eps: no rounding is enlarged.
    assert_close(trained("eager", bucket, 5, 12), trained("reference", bucket, 12), rtol=1e-11)


@pytest.mark.parametrize("name", ["native"])
def test_other_engines_refuse_what_they_have_no_formulas_for(outside, name):
    pytest.importorskip("grokfast._native")
    engine = engine_of(name)
    assert "loss 'huber'" in engine.unsupported(bucket_of(experiment(outside)))
    theirs = experiment(outside, loss="mse")
    assert "optimizer.kind 'warm-sign'" in engine.unsupported(bucket_of(theirs))
    theirs = theirs.replace(**{"optimizer.kind": "adamw"})
    assert engine.unsupported(bucket_of(theirs)) is None


def features(outside, **axes):
    """A grid with their model, too: two seeds, and an axis of a field of its own."""
    e = experiment(outside)
    e = gf.Experiment(**{**vars(e), "model": outside.RandomFeatures()})
    return gf.Grid(experiment=e).grid(
        **{"model_seed": [3, 4], "model.features": [4, 8], "lr": [1e-3, 3e-2]} | axes
    )


@pytest.fixture(scope="module")
def found(outside, tmp_path_factory):
    """A run of it, and its file."""
    out = tmp_path_factory.mktemp("outside") / "theirs.h5"
    return run(features(outside), out=out), out


def test_their_model_is_trained_kept_and_read_back(outside, found):
    r, out = found
    again = gf.Results.load(out)
    assert again.complete and again.grid == features(outside)
    assert set(r.variables) == set(again.variables)
    for name in r.variables:
        assert np.array_equal(r[name], again[name]), name
    assert r["largest"].shape == (8, 4, 5)  # cells, steps 0, 4, 8, 12, parameters
    assert r.variables["largest"][0] == ("run", "observed", "parameter")
    for k in range(8):
        cell = r.grid.cells[k]
        values = {"model_seed": cell.model.seed, "model.features": cell.model.features}
        module = again.module(**values, lr=cell.optimizer.lr)
        data = cell.task.build()
        with torch.no_grad():
            right = module(data.x_val.float()).argmax(1) == data.y_val
        assert float(right.float().mean()) == again["final_val_acc"][k]
        sizes = [float(p.detach().abs().max()) for p in module.parameters()]
        assert again["largest"][k, -1].tolist() == sizes


def test_every_seed_keeps_the_features_that_it_has_drawn(outside, found):
    """Alone, too: what a cell is does not depend on its neighbours."""
    r, _ = found
    for k, cell in enumerate(r.grid.cells):
        alone = run(gf.Grid(experiment=cell))
        kept = next(w for w in r.weights if k in w["run"])
        row = kept["run"].tolist().index(k)
        assert {name: value[row].tobytes() for name, value in kept.items() if name != "run"} == {
            name: value[0].tobytes() for name, value in alone.weights[0].items() if name != "run"
        }
        generator = torch.Generator().manual_seed(cell.model.seed)
        drawn = torch.randn(5, cell.model.features, generator=generator)
        assert np.array_equal(kept["drawn"][row], drawn)


def test_a_frozen_parameter_stays_what_it_was(found):
    r, _ = found
    names = list(r.weights[0])
    offset = [name for name in names if not name.startswith(("run", "drawn", "norm.r", "norm.n"))]
    at = offset.index("offset")
    assert (r["largest"][:, :, at] == r["largest"][:, :1, at]).all()
    assert (r["largest"][:, 0] != r["largest"][:, -1]).any()


def test_a_run_of_theirs_goes_on_to_the_same_bits(outside, found, tmp_path):
    r, _ = found
    out = tmp_path / "a.h5"
    run(features(outside, lr=[1e-3], steps=5), out=out)
    run(features(outside, lr=[1e-3]), out=out)
    out.with_name("a.h5.ckpt").unlink()  # what is done is taken from the file
    again = run(features(outside), out=out)
    for name in r.variables:
        assert np.array_equal(r[name], again[name]), name
    for kept, same in zip(r.weights, again.weights, strict=True):
        assert all(kept[name].tobytes() == same[name].tobytes() for name in kept)


def test_their_phases_are_found_and_drawn(found):
    r, _ = found
    good = r["final_val_acc"] >= 0.5
    assert r.phases().tolist() == np.where(good, 0, 1).tolist()
    assert r.counts() == {"good": int(good.sum()), "bad": int((~good).sum())}
    gf.figures.phase_diagram(r)
    gf.figures.curves(r)


#: With nothing of it registered.
_ELSEWHERE = """
import sys, grokfast as gf
r = gf.Results.load(sys.argv[1])
print(r.grid.experiment.loss, r.grid.experiment.optimizer.kind, r.grid.experiment.model.name)
print(r["largest"].shape, r["model.features"].tolist(), r.phases().tolist())
assert gf.Grid.from_json(r.grid.to_json()).to_json() == r.grid.to_json()
gf.figures.curves(r, cells=[0])
for grid in (r.grid, r.grid.grid(steps=20)):
    try:
        gf.run(grid, engine="reference", device="cpu", progress=False)
    except gf.UsageError as error:
        print(error)
"""


def test_where_it_is_not_installed_its_files_can_be_read_but_not_trained(found):
    r, out = found
    command = [sys.executable, "-c", _ELSEWHERE, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "huber warm-sign random-features"
    assert lines[1] == f"(8, 4, 5) {r['model.features'].tolist()} {[-1] * 8}"
    assert len(lines) == 4
    assert all("unknown task 'majority'" in line and "@grokfast.task" in line for line in lines[2:])


@pytest.mark.parametrize(
    "command", [["info"], ["info", "--json"], ["plot"], ["export", "--out=cells.csv"]], ids=str
)
def test_commands_read_it_there(command, found, tmp_path):
    _, out = found
    done = subprocess.run(
        [sys.executable, "-m", "grokfast", command[0], str(out), *command[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("loss", "unknown loss 'huber'.*@grokfast.loss"),
        ("optimizer", "unknown optimizer 'warm-sign'.*@grokfast.optimizer"),
        ("model", "unknown model 'random-features'.*@grokfast.model"),
        ("observable", "unknown observable 'largest'.*@grokfast.observable"),
        ("phase", "unknown phase rule 'halves'.*@grokfast.phase_rule"),
        ("task", "unknown task 'majority'.*@grokfast.task"),
    ],
)
def test_each_missing_part_is_told_when_it_is_asked_for(part, says, found, monkeypatch):
    r, out = found
    registry, name = {
        "loss": (LOSSES._entries, "huber"),
        "optimizer": (OPTIMIZERS._entries, "warm-sign"),
        "model": (MODELS._entries, "random-features"),
        "observable": (OBSERVABLES._entries, "largest"),
        "phase": (PHASE_RULES, "halves"),
        "task": (TASKS, "majority"),
    }[part]
    monkeypatch.delitem(registry, name)
    there = gf.Results.load(out)
    assert np.array_equal(there["largest"], r["largest"])
    with pytest.raises(UsageError, match=says):
        run(there.grid.grid(steps=20))


@dataclass(frozen=True, kw_only=True)
class DeepLinear(gf.Model):
    """Two layers and nothing between them: a chain, but no plain one."""

    def layers(self, shape):
        return Linear(shape.inputs, 3, True), Linear(3, shape.outputs, True)

    def build(self, shape):
        return Chain(self.layers(shape))


def test_a_chain_of_theirs_is_trained_by_all_who_know_its_layers(outside):
    gf.model("deep-linear")(DeepLinear)
    e = gf.Experiment(task=outside.Majority(), model=DeepLinear(), steps=9, dtype="float64")
    bucket = bucket_of(e, e.replace(model_seed=2))
    assert_close(trained("eager", bucket, 9), trained("reference", bucket, 9), rtol=1e-9)
    from grokfast.engines.support import unsupported

    for engine in ("native", "triton"):
        assert "model 'deep-linear'" in unsupported(engine, bucket)


class Maxout(torch.nn.Module):
    """The larger of two linear maps: no chain of layers."""

    def __init__(self, shape):
        super().__init__()
        self.a, self.b = (torch.nn.Linear(shape.inputs, shape.outputs) for _ in range(2))

    def forward(self, x):
        return torch.maximum(self.a(x), self.b(x))


@dataclass(frozen=True)
class StackedMaxout(gf.Stacked):
    def forward(self, params, buffers, x, noise=None):
        a, b = (
            torch.matmul(x, params[f"{k}.weight"].mT) + params[f"{k}.bias"][:, None] for k in "ab"
        )
        return torch.maximum(a, b), {}


@dataclass(frozen=True, kw_only=True)
class MaxoutModel(gf.Model):
    def build(self, shape):
        return Maxout(shape)

    def stacked(self, shape):
        return StackedMaxout()


def test_a_stacked_form_of_theirs_is_trained_by_compiled(outside):
    gf.model("maxout")(MaxoutModel)
    e = gf.Experiment(task=outside.Majority(), model=MaxoutModel(), steps=9, dtype="float64")
    bucket = bucket_of(e, e.replace(model_seed=2), e.replace(lr=1e-2))
    assert_close(trained("eager", bucket, 4, 9), trained("reference", bucket, 9), rtol=1e-9)
    from grokfast.engines.support import unsupported

    assert unsupported("compiled", bucket) is None
    for engine in ("native", "triton"):
        says = unsupported(engine, bucket)
        assert says == "model 'maxout'; it has chains of layers only"


def test_a_name_is_suggested_for_one_that_is_close(outside):
    with pytest.raises(UsageError, match="loss is 'hubert'; give one of"):
        experiment(outside).replace(loss="hubert")
    with pytest.raises(UsageError, match="did you mean huber?"):
        LOSSES["hubert"]


def test_their_training_repeats_its_bits(outside):
    bucket = bucket_of(experiment(outside, batch_size=8))
    assert_same_bits(trained("reference", bucket, 12), trained("reference", bucket, 3, 12))
