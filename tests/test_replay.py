"""A cell trained a second time: its parameters at any step, and a refusal where bits differ."""

import os

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.replaying import relative_epochs

ENGINES = os.environ.get("GROKFAST_TEST_ENGINES", "native,reference,compiled").split(",")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch):
    """What compiling changes is tests/engines' business."""
    monkeypatch.setattr("grokfast.engines.compiled.CompiledEngine.eager", True)


def grid(**changes):
    """Four cells: all memorise, all but the one at 2 generalise, and stop then."""
    options = {
        "lr": [1e-3, 1e-2],
        "weight_decay": [0.0, 1.0],
        "width": 24,
        "steps": 300,
        "phase.threshold": 0.3,
        "record.weights": True,
    } | changes
    return gf.preset("addition-classification").grid(**options)


def run(grid, engine="reference", **options):
    if engine == "native":
        pytest.importorskip("grokfast._native")
    return gf.run(grid, engine=engine, device="cpu", progress=False, threads=1, **options)


@pytest.fixture(scope="module")
def results():
    return run(grid())


def last_weights(results, cell):
    return {name: values[cell] for name, values in results.weights[0].items() if name != "run"}


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_are_those_of_the_run(engine, monkeypatch):
    monkeypatch.setattr("grokfast.engines.compiled.CompiledEngine.chunk", 40)
    results = run(grid(**{"record.observables": ("norms:70",)}), engine)
    done = results["steps_done"]
    assert len(set(done.tolist())) > 1, "some cells stop early, and the rest are grouped anew"
    cell = int(done.argmax())
    again = gf.replay(results, cell, steps=[0, 95, int(done[cell])])
    assert again.steps.tolist() == [0, 95, done[cell]]
    assert again.compared > 200
    for name, values in last_weights(results, cell).items():
        assert values.tobytes() == again.tensors[name][2].numpy().tobytes(), name
    short = run(grid(steps=95, **{"record.observables": ("norms:70",)}), engine)
    for name, values in last_weights(short, cell).items():
        assert values.tobytes() == again.tensors[name][1].numpy().tobytes(), name


def test_hidden_representations_are_what_enters_the_last_layer(results):
    again = gf.replay(results, {"lr": 1e-2, "weight_decay": 0}, epochs=[0, 50])
    assert again.epochs.tolist() == [0, 50]
    hidden = again.hidden(1)
    net = again.module(1)
    with torch.no_grad():
        outputs = net.layers[-1](torch.from_numpy(hidden))
        torch.testing.assert_close(outputs, net(again.x_train), rtol=0, atol=0)
    assert hidden.shape == (45, 24)
    assert not np.array_equal(hidden, again.hidden(0))
    assert len(again.y_train) == 45


def test_minibatches_are_epochs_of_several_steps():
    several = grid(lr=1e-2, weight_decay=0.0, batch_size=15, steps=60, stop="never")
    again = gf.replay(run(several), epochs=[1, 20])
    assert again.steps.tolist() == [3, 60]


@pytest.mark.parametrize(
    ("first", "last", "titles"),
    [  # of Figures 2, 3 and 9 of the parity blog: every one has ties of another parity
        (14, 195, [14, 59, 105, 150, 195]),
        (14, 500, [14, 135, 257, 379, 500]),
        (51, 500, [51, 163, 275, 388, 500]),
        (7, 7, [7]),
        (7, 9, [7, 8, 9]),
    ],
)
def test_relative_epochs_are_the_published_ones(first, last, titles):
    assert relative_epochs(first, last) == titles


def test_the_five_go_from_memorised_to_generalised_or_to_the_end(results):
    t_train, t_val, done = (results[name].tolist() for name in ("t_train", "t_val", "steps_done"))
    assert 0 < t_train[0] < t_val[0] == done[0]
    steps = gf.replay(results, 0).steps
    assert (steps[0], steps[-1], len(steps)) == (t_train[0], t_val[0], 5)
    assert 0 < t_train[2] < done[2]
    assert t_val[2] == -1
    for until in ("generalised", "end"):
        steps = gf.replay(results, 2, until=until).steps
        assert (steps[0], steps[-1], len(steps)) == (t_train[2], done[2], 5)
    further = run(grid(lr=1e-3, weight_decay=0.0, stop="never"))
    assert gf.replay(further, until="end").steps[-1] == 300
    assert gf.replay(further).steps[-1] == t_val[0]
    neither = run(grid(lr=1e-3, weight_decay=0.0, steps=20))
    assert gf.replay(neither).steps.tolist() == [1, 6, 11, 15, 20]


def test_a_cell_that_generalised_first_has_no_epochs_between():
    early = run(grid(lr=1e-3, weight_decay=0.0, **{"phase.threshold": 0.2}))
    assert early["t_val"][0] < early["t_train"][0]
    with pytest.raises(gf.UsageError, match=r"generalised in epoch 13, before .* epoch 88"):
        gf.replay(early)


def test_other_bits_are_refused_with_what_differs(results):
    def changed(name, index, value):
        again = gf.Results(results.grid, dict(results.variables), [], dict(results.provenance))
        dims, values = results.variables[name]
        again.variables[name] = dims, values.copy()
        again.variables[name][1][index] = value
        return again

    at = int(results["step"][3])
    loss = np.nextafter(results["val_loss"][0, 3], np.float32(9))
    other = changed("val_loss", (0, 3), loss)
    message = f"not the run of addition-classification: val_loss at step {at} is {loss} in the file"
    with pytest.raises(gf.UsageError, match=message):
        gf.replay(other, 0, steps=[at])
    assert gf.replay(other, 0, steps=[at - 1]).compared
    assert gf.replay(other, 1, steps=[at]).compared
    other.provenance["engine_detail"] = "threads 1, isa NEON"
    with pytest.raises(gf.UsageError, match=r"trained with isa NEON \(here"):
        gf.replay(other, 0, steps=[at])
    cell = int(results["t_train"].argmax())
    with pytest.raises(gf.UsageError, match=r"t_train is 2 in the file and -1 now"):
        gf.replay(changed("t_train", cell, 2), cell, steps=[3])


def test_where_nothing_can_be_compared_the_facts_must_hold():
    bare = run(grid(lr=1e-3, weight_decay=0.0, steps=20, **{"record.curve_points": 0}))
    assert gf.replay(bare, steps=[10]).compared == 0
    bare.provenance["engine_detail"] = "torch 1.0"
    with pytest.raises(gf.UsageError, match=r"tells of nothing up to there; it was .* torch 1.0"):
        gf.replay(bare, steps=[10])


def test_other_data_are_refused(results):
    other = gf.Results(results.grid, results.variables, [], dict(results.provenance))
    other.provenance["data_sha256"] = ["0" * 64]
    with pytest.raises(gf.UsageError, match="other data than task 'addition' gives now"):
        gf.replay(other, 0, steps=[1])


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (4, {"steps": [1]}, "no cell 4; there are 4"),
        (None, {"steps": [1]}, "4 cells match no values"),
        (0, {"steps": [1], "epochs": [1]}, "give one of the two"),
        (2, {"steps": []}, r"give one or more of 0 to 300"),
        (2, {"epochs": [301]}, r"steps \[301\] of a cell that was trained for 300 \(300 epochs\)"),
        (0, {"steps": [-1]}, r"give one or more of 0"),
        (0, {"until": "grokked"}, "until is 'grokked'; give generalised or end"),
    ],
)
def test_what_cannot_be_replayed(results, cell, options, message):
    with pytest.raises(gf.UsageError, match=message):
        gf.replay(results, cell, **options)


def test_the_instruction_set_of_the_file_is_taken_and_put_back(monkeypatch):
    native = pytest.importorskip("grokfast._native")
    levels = native.levels()["runnable"]
    monkeypatch.setenv("GROKFAST_NATIVE_LEVEL", levels[0])
    results = run(grid(lr=1e-2, weight_decay=0.0), "native")
    monkeypatch.setenv("GROKFAST_NATIVE_LEVEL", levels[-1])
    assert gf.replay(results, steps=[100]).compared
    assert os.environ["GROKFAST_NATIVE_LEVEL"] == levels[-1]
