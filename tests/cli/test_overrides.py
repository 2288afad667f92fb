"""Text of options -> a grid."""

import pytest

from grokfast.cli import overrides
from grokfast.cli.overrides import (
    build_grid,
    check_cells,
    parse_cells,
    parse_record,
    split_assignments,
)
from grokfast.errors import UsageError


def grid(sets=None, record=None, **fields):
    fields = {"lr": "1e-3", "weight_decay": "0"} | fields  # one cell is quick to check
    made = build_grid("addition-regression", fields, sets, record)
    check_cells(made)
    return made


def test_values_lists_and_ranges():
    g = grid(lr="1e-4,1e-3", weight_decay="linspace:0:10:3", model_seed="range:0:2")
    assert g.axes["optimizer.lr"] == (1e-4, 1e-3)
    assert g.axes["optimizer.weight_decay"] == (0.0, 5.0, 10.0)
    assert g.axes["model.seed"] == (0, 1)
    assert g.size == 12
    assert grid(steps="1e4").experiment.steps == 10_000
    assert grid(activation="tanh,relu").axes["model.activation"] == ("tanh", "relu")


def test_options_that_are_not_given_keep_the_preset():
    g = build_grid("addition-regression", {"lr": None, "steps": None}, None, None)
    assert g.size == 441
    assert g.experiment.steps == 100_000


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1", [("a", "1")]),
        ("optimizer.beta2=0.98,task.p=12", [("optimizer.beta2", "0.98"), ("task.p", "12")]),
        ("model.width=100,200", [("model.width", "100,200")]),
        ("a=1,2,b=3,4,5", [("a", "1,2"), ("b", "3,4,5")]),
        ("a=logspace:-5:-2:21,b=1", [("a", "logspace:-5:-2:21"), ("b", "1")]),
        ("weight-decay=1", [("weight_decay", "1")]),
        (" a = 1 , b=2 ", [("a", "1"), ("b", "2")]),
    ],
)
def test_set_splits_at_names(text, pairs):
    assert split_assignments(text) == pairs


@pytest.mark.parametrize("text", ["", "12", "12,a=1", "=3", "a=", "a=,b=1"])
def test_malformed_set(text):
    with pytest.raises(UsageError, match="--set"):
        split_assignments(text)


def test_set_reaches_every_field():
    g = grid("optimizer.beta2=0.98,task.p=12,model.width=100,200")
    assert g.experiment.optimizer.beta2 == 0.98
    assert g.experiment.task.p == 12
    assert g.axes["model.width"] == (100, 200)


def test_fields_that_need_each_other_are_set_together():
    g = build_grid(
        "addition-regression",
        {"lr": "1e-3", "weight_decay": "0"},
        "task.target_dim=0,loss=cross_entropy,predict=argmax",
        None,
    )
    assert g.experiment.loss == "cross_entropy"
    with pytest.raises(UsageError, match="optimizer.encoder is 'embedding'"):
        grid("model.embedding_dim=0")
    assert grid("model.embedding_dim=0,optimizer.encoder=none").experiment.model.embedding_dim == 0


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("embeddings", {"record.embeddings": "10"}),
        ("embeddings:50", {"record.embeddings": "50"}),
        (
            "weights,curves:400",
            {
                "record.weights": "true",
                "record.curve_points": "400",
                "record.curves": "log-spaced",
            },
        ),
        (
            "norms,ipr:10,curves:all,weights",
            {
                "record.curves": "evaluated",
                "record.weights": "true",
                "record.observables": "norms+ipr:10",
            },
        ),
        (
            "none",
            {
                "record.weights": "false",
                "record.curves": "log-spaced",
                "record.curve_points": "0",
                "record.embeddings": "0",
                "record.observables": "none",
            },
        ),
    ],
)
def test_record(text, pairs):
    assert dict(parse_record(text)) == pairs


@pytest.mark.parametrize(
    "text", ["", "embed", "embeddings:", "embeddings:x", "curves", "weights:3", "none,weights"]
)
def test_malformed_record(text):
    with pytest.raises(UsageError, match="--record"):
        parse_record(text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": "abc"}, "lr='abc' is not a number, such as 1e-3"),
        ({"lr": "1e-3,"}, "lr='' is not a number"),
        ({"lr": "1e-3,1e-3"}, "twice"),
        ({"lr": "logspace:-5:-2"}, "an example: logspace:-5:-2:21"),
        ({"lr": "linspace:0:nan:3"}, "is no range"),
        ({"lr": "range:5:0"}, "is no range"),
        ({"lr": "range:0:5:0"}, "is no range"),
        ({"lr": "-inf"}, "lr is -inf"),
        ({"steps": "1.5"}, "steps='1.5' is not a whole number"),
        ({"steps": "inf"}, "steps='inf' is not a whole number"),
        ({"steps": "0"}, "steps is 0"),
        ({"model_seed": "-1"}, "model_seed is -1"),
        ({"model_seed": "5e9"}, "less than 2"),
        ({"activation": "than"}, "did you mean tanh?"),
        ({"stop": "boht"}, "did you mean both?"),
        ({"dtype": "float16"}, "not one of float32, float64"),
        ({"sets": "optimizer.bta2=1"}, "did you mean optimizer.beta2?"),
        ({"sets": "beta2=0.98"}, "did you mean optimizer.beta2?"),
        ({"sets": "optimizer.beta2=1"}, "give 0 <= beta2 < 1"),
        ({"sets": "task.val_size=99"}, "task.val_size is 99"),
        ({"sets": "lr=1"}, "lr is given twice"),
        ({"sets": "model.width=1,model.width=2"}, "width is given twice"),
        ({"lr": "logspace:-5:-2:1000000000000"}, "give at most 100,000"),
        ({"lr": "range:0:99999999999999999999"}, "give at most 100,000"),
        ({"lr": "range:99999999999999999999:0:-1"}, "give at most 100,000"),
        ({"model_seed": "range:0:2000", "data_seed": "range:0:2000"}, "4,000,000 cells"),
    ],
)
def test_impossible_values_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        grid(**changes)


def test_an_impossible_combination_is_found_before_any_work():
    with pytest.raises(UsageError, match="task.val_size is 20; give 1 to 14"):
        grid("task.p=5,10,task.val_size=10,20")


def test_shards():
    assert overrides.parse_shard(None) is None
    assert overrides.parse_shard("2/5") == (2, 5)
    for text in ("2", "2/", "a/b", "-1/2", "1/2/3", "1.0/2", "²/3"):
        with pytest.raises(UsageError, match="--shard"):
            overrides.parse_shard(text)


def test_counts():
    assert overrides.parse_count("threads", "4", 2) == 4
    assert overrides.parse_count("budget", "3e4", 2) == 30_000
    for text in ("0", "-1", "1.5", "nan", "inf", "x", ""):
        with pytest.raises(UsageError, match="an example: --threads=2"):
            overrides.parse_count("threads", text, 2)


@pytest.mark.parametrize("text", ["tpu", "cuda:", "cuda:x", "CPU", "cpu ", "cuda:0000"])
def test_unknown_devices(text):
    with pytest.raises(UsageError, match="give auto, cpu, cuda or cuda:N"):
        overrides.parse_device(text)


def test_the_engines_are_those_of_the_engine_table():
    from grokfast.engines import ENGINE_NAMES

    assert set(overrides.ENGINES) == set(ENGINE_NAMES)


def test_cells():
    assert parse_cells("lr:1e-3,weight-decay:5") == [{"lr": 1e-3, "weight_decay": 5.0}]
    assert parse_cells("lr:1;lr:2,activation:relu;") == [
        {"lr": 1.0},
        {"lr": 2.0, "activation": "relu"},
    ]
    assert parse_cells("optimizer.lr:1") == [{"lr": 1.0}]
    for text in ("", ";", "lr", "lr:", ":3", "lr=3", "lr:1,lr:2"):
        with pytest.raises(UsageError, match="--cell"):
            parse_cells(text)
