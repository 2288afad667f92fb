import json
from dataclasses import dataclass, replace

import pytest
import torch

import grokfast as gf
from grokfast.fields import scalar_fields
from grokfast.grid import static_key
from grokfast.presets import PRESETS
from grokfast.ranges import parse_values


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_through_json(name):
    grid = gf.preset(name)
    assert gf.Grid.from_json(grid.to_json()) == grid
    assert gf.Experiment.from_json(grid.experiment.to_json()) == grid.experiment
    json.loads(grid.to_json())


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("addition-classification", 441),
        ("addition-regression", 441),
        ("mnist-original", 100),
        ("mnist-extended", 210),
        ("mnist-digits", 100),
        ("power-division", 3),
        ("power-s5", 3),
        ("power-fractions", 36),
        ("power-ablations", 153),
        ("power-operations", 612),
        ("power-weight-decay", 21),
    ],
)
def test_presets_have_the_published_size(name, cells):
    assert gf.preset(name).size == cells


def test_extended_mnist_axes_are_those_of_the_spec():
    axes = gf.preset("mnist-extended").axes
    lr = axes["optimizer.lr"]
    assert lr[:3] == pytest.approx([1.2915e-9, 1e-8, 7.7426e-8], rel=1e-4)
    assert lr[-4:] == pytest.approx([7.7426, 59.948, 250, 464.16], rel=1e-4)
    decay = axes["optimizer.weight_decay"]
    assert decay == pytest.approx([10.0**k for k in range(-9, 2)] + [50, 100, 300])


def test_replace_takes_short_and_dotted_names():
    e = gf.preset("addition-regression").experiment
    changed = e.replace(lr=1, **{"task.p": 12, "data_seed": 3})
    assert changed.optimizer.lr == 1.0
    assert isinstance(changed.optimizer.lr, float)
    assert (changed.task.p, changed.task.seed) == (12, 3)
    assert e.task.p == 10


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("lr", -1.0, "lr is -1.0"),
        ("lr", float("nan"), "lr is nan"),
        ("lr", "fast", "optimizer.lr is 'fast'"),
        ("steps", 0, "steps is 0"),
        ("steps", 1.5, "steps is 1.5"),
        ("depth", 5, "depth is 5"),
        ("activation", "gelu", "give one of tanh, relu"),
        ("optimizer.beta1", 1.0, "0 <= beta1 < 1"),
        ("task.p", 1, "task.p is 1"),
        ("task.val_size", 55, "give 1 to 54"),
        ("data_seed", 2**32, "less than 2**32"),
        ("optimizer.beta3", 0.9, "did you mean optimizer.beta"),
        ("beta2", 0.9, "did you mean optimizer.beta2"),
        ("precision", "bf16", "give one of ieee"),
    ],
)
def test_bad_values_name_the_field_and_what_would_do(field, value, says):
    e = gf.preset("addition-regression").experiment
    with pytest.raises(gf.UsageError) as error:
        e.replace(**{field: value})
    assert says in str(error.value)


def test_identity_ignores_the_budget_and_nothing_else():
    e = gf.preset("addition-regression").experiment
    assert e.replace(steps=7).identity() == e.identity()
    for field, kind in scalar_fields(e).items():
        if kind is float and field not in ("phase.threshold", "phase.tolerance"):
            other = 0.5 if e.get(field) != 0.5 else 0.25
            assert e.replace(**{field: other}).identity() != e.identity(), field


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3", 1e-3),
        ("1e-4,1e-3", [1e-4, 1e-3]),
        ("logspace:-5:-3:3", [1e-5, 1e-4, 1e-3]),
        ("linspace:0:1:3", [0, 0.5, 1]),
        ("range:0:3", [0, 1, 2]),
    ],
)
def test_values_of_the_command_line(text, values):
    grid = gf.preset("addition-regression")
    assert parse_values(grid, "lr", text) == pytest.approx(values)


@pytest.mark.parametrize(
    "text", ["", "fast", "1e-3,", "logspace:1", "logspace:0:1:0", "linspace:0:1:x", "range:3:0"]
)
def test_malformed_values_are_refused(text):
    grid = gf.preset("addition-regression")
    with pytest.raises(gf.UsageError, match="lr"):
        parse_values(grid, "lr", text)


def test_grid_axes_fix_replace_and_append():
    g = gf.preset("addition-regression").grid(lr=1e-3, weight_decay=[0, 5], model_seed=[1, 2, 3])
    assert list(g.axes) == ["optimizer.weight_decay", "model.seed"]
    assert g.size == 6
    assert [c.model.seed for c in g.cells] == [1, 2, 3] * 2
    assert g.cells[0].optimizer.lr == 1e-3


@pytest.mark.parametrize("values", [[], [1e-3, 1e-3]])
def test_empty_and_repeated_axes_are_refused(values):
    with pytest.raises(gf.UsageError, match="axis lr"):
        gf.preset("addition-regression").grid(lr=values)


def test_shards_partition_the_grid_counted_from_one():
    g = gf.preset("addition-regression")
    shards = [g.shard(i, 4) for i in (1, 2, 3, 4)]
    assert sorted(cell for shard in shards for cell in shard) == list(range(441))
    # Files of shards are gone on with by this.
    assert [shard[0] for shard in shards] == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("shard", "says"),
    [
        ((0, 4), "no shard 0/4; shards are counted from 1: 1/4 to 4/4"),
        ((-1, 4), "no shard -1/4; shards are counted from 1: 1/4 to 4/4"),
        ((5, 4), "no shard 5/4; shards are counted from 1: 1/4 to 4/4"),
        ((0, 0), "no shard 0/0; an example: 1/4"),
        ((900, 1000), "shard 900/1000 has no cells: the grid has only 441"),
    ],
)
def test_impossible_shards_are_refused(shard, says):
    with pytest.raises(gf.UsageError, match=says):
        gf.preset("addition-regression").shard(*shard)


def test_per_cell_numbers_share_a_bucket_and_operations_do_not():
    e = gf.preset("addition-regression").experiment
    for field, value in {"lr": 0.5, "data_seed": 9, "model_seed": 9, "init_scale": 2.0}.items():
        assert static_key(e.replace(**{field: value})) == static_key(e)
    for field, value in {"width": 9, "activation": "relu", "optimizer.beta2": 0.9}.items():
        assert static_key(e.replace(**{field: value})) != static_key(e)


def test_a_users_task_round_trips_and_trains():
    @gf.task("test-parity-of-two")
    @dataclass(frozen=True, kw_only=True)
    class Xor(gf.Task):
        copies: int = 2

        def build(self):
            import torch

            x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(
                self.copies, 1
            )
            y = x.sum(1).long() % 2
            return gf.TaskData(x_train=x, y_train=y, x_val=x[:4], y_val=y[:4], num_classes=2)

    e = gf.Experiment(task=Xor(), model=gf.Mlp(width=16, depth=2), steps=2000)
    assert gf.Experiment.from_json(e.to_json()) == e
    r = gf.run(gf.Grid(experiment=e.replace(lr=0.01)), engine="reference", progress=False)
    assert r.counts()["comprehension"] == 1


def test_a_file_of_an_unknown_task_can_be_read_but_not_trained(tmp_path, monkeypatch):
    from grokfast.tasks.base import TASKS

    @gf.task("parity-of-two")
    @dataclass(frozen=True, kw_only=True)
    class Two(gf.Task):
        copies: int = 2

        def build(self):
            x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
            y = x.sum(1).long() % 2
            return gf.TaskData(
                x_train=x.repeat(self.copies, 1), y_train=y.repeat(self.copies), x_val=x, y_val=y,
                num_classes=2,
            )  # fmt: skip

    grid = gf.Grid(experiment=gf.Experiment(task=Two(), steps=3)).grid(**{"task.copies": [1, 3]})
    gf.run(grid, out=tmp_path / "a.h5", engine="reference", device="cpu", progress=False)
    monkeypatch.delitem(TASKS, "parity-of-two")
    there = gf.Results.load(tmp_path / "a.h5")
    assert there["task.copies"].tolist() == [1, 3]
    assert there.grid.to_json() == grid.to_json()
    gf.figures.phase_diagram(there)
    with pytest.raises(gf.UsageError, match="unknown task 'parity-of-two'.*@grokfast.task"):
        gf.run(there.grid.grid(steps=4), engine="reference", device="cpu", progress=False)


def test_results_as_pandas_are_what_is_exported():
    pandas = pytest.importorskip("pandas")
    grid = gf.preset("addition-classification").grid(lr=[1e-3, 1e-2], weight_decay=0.0, steps=5)
    r = gf.run(grid, engine="reference", device="cpu", progress=False)
    table = r.to_pandas()
    assert isinstance(table, pandas.DataFrame) and len(table) == 2
    assert table["lr"].tolist() == [1e-3, 1e-2]
    assert table["phase"].tolist() == ["confusion"] * 2
    assert table["status"].tolist() == ["ok"] * 2
    assert "epoch_loss" not in table


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"experiment": 1}',
        '{"experiment": {}, "axes": {}, "name": 1}', '{"experiment": {"steps": 1e999}}',
        '{"experiment": {}, "axes": [["lr", [%s]]], "name": "x"}' % ("[" * 300 + "]" * 300),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_json_of_no_grid_is_one_line(text):
    with pytest.raises(gf.UsageError, match=r"this (is|describes) no|unknown|is not|give"):
        gf.Grid.from_json(text)


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9", "\ud800"])
def test_names_are_text_that_a_file_can_hold(text):
    grid = gf.preset("addition-classification").grid(lr=1e-3, weight_decay=0)
    for make in (
        lambda: replace(grid, name=text),
        lambda: grid.setting(text, {"8": {"batch_size": 8}}),
        lambda: grid.setting("batch", {text: {"batch_size": 8}}),
        lambda: gf.Grid.from_json(grid.to_json().replace('"addition-', json.dumps(text)[:-1])),
    ):
        with pytest.raises(gf.UsageError, match="give text in UTF-8 without NUL"):
            make()
