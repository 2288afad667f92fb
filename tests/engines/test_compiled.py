"""The compiled engine: parity with the reference, isolation, records, resume, fallback.

The mathematics is tested without compiling, on every kind of experiment; compiling takes many
seconds a layout, so that compiled passes are tested on two experiments that share them.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.engines import compiled as engine_module
from grokfast.engines import lockstep_block as block_module
from grokfast.engines import lockstep_compile
from grokfast.engines.compiled import CompiledEngine
from grokfast.engines.lockstep_block import room, split
from grokfast.engines.reference import ReferenceEngine
from grokfast.state import State

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TOY = {"width": 33, "steps": 60, "dtype": "float64", "stop": "never", "record.embeddings": 7}
SEEDS = {"data_seed": [1, 2], "model_seed": [3, 4]}
DIGITS = {"width": 20, "steps": 60, "dtype": "float64", "stop": "never"}
CASES = {
    "cross-entropy": ("addition-classification", TOY | SEEDS),
    "mse": ("addition-regression", TOY | SEEDS),
    "relu": ("addition-regression", TOY | {"activation": "relu"}),
    "leaky_relu": ("addition-classification", TOY | {"activation": "leaky_relu"}),
    "square": ("addition-regression", TOY | {"activation": "square"}),
    "depth 1": ("addition-classification", TOY | {"depth": 1, "model.embedding_dim": 3}),
    "depth 2": ("addition-regression", TOY | {"depth": 2, "width": 129}),
    "depth 4": ("addition-classification", TOY | {"depth": 4, "model.embedding_dim": 17}),
    "width 1": ("addition-classification", TOY | {"width": 1}),
    "minibatch": ("mnist-digits", DIGITS | {"data_seed": [0, 1], "model_seed": [0, 1]}),
    "minibatch, argmax": ("mnist-digits", DIGITS | {"activation": "tanh", "batch_size": 500}),
    "dense full batch": ("mnist-digits", DIGITS | {"batch_size": 0, "init_scale": 1.0}),
}


def make(preset, **changes):
    grid = gf.preset(preset).grid(**({"lr": [1e-3, 1e-2], "weight_decay": [0.0, 3.0]} | changes))
    (bucket,) = make_buckets(grid.cells, range(grid.size))
    return bucket


def compiled(threads=2, eager=False, cpu_block=4):
    engine = CompiledEngine(CPU, threads)
    engine.eager, engine.cpu_block = eager, cpu_block
    return engine


def train(engine, bucket, *untils, state=None, cells=None, tick=None):
    state = State.initial(bucket) if state is None else state
    cells = torch.arange(bucket.num_cells) if cells is None else cells
    for until in untils:
        engine.advance(bucket, state, cells, until, tick)
    return state


#: Rounding moves a gradient by about 1e-16; where it is far smaller than AdamW's eps of 1e-8 the
#: update moves by lr * 1e-16 / 1e-8 a step: 3e-9 in 30 steps at lr 1e-2.
AFTER_30_STEPS = 1e-8


def assert_close(ours, truth, rtol=AFTER_30_STEPS, fields=""):
    """Counters equal; real numbers within ``rtol`` of each tensor's and cell's largest."""
    for (name, x), (_, y) in zip(ours.tensors(), truth.tensors(), strict=True):
        if not name.startswith(fields):
            continue
        if not x.dtype.is_floating_point:
            assert torch.equal(x, y), name
            continue
        assert torch.equal(x.isnan(), y.isnan()), name
        if x.numel():
            x, y = (
                t.double().nan_to_num().flatten(1) if t.ndim > 1 else t[:, None] for t in (x, y)
            )
            bound = rtol * y.abs().amax(1, keepdim=True) + 1e-300
            # Curves and snapshots are kept in float32.
            bound = bound + (2**-22 * y.abs() if name in RECORDS else 0)
            assert bool(((x - y).abs() <= bound).all()), f"{name}: {(x - y).abs().max()}"


RECORDS = ("train_loss", "val_loss", "train_acc", "val_acc", "embeddings")


def assert_same_bits(a, b, rows=slice(None)):
    for (name, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
        assert x[rows].numpy().tobytes() == y[rows].numpy().tobytes(), name


@pytest.mark.parametrize("name", CASES)
def test_float64_parity_with_the_reference(name):
    preset, changes = CASES[name]
    bucket = make(preset, **changes)
    engine = compiled(eager=True)
    first = train(ReferenceEngine(CPU), bucket, 1)
    for gradients in ("exp_avg.", "exp_avg_sq.", "epoch_loss"):
        assert_close(train(engine, bucket, 1), first, rtol=1e-13, fields=gradients)
    truth = train(ReferenceEngine(CPU), bucket, 30, state=first)
    assert_close(train(engine, bucket, 30), truth)
    # Mixed data in one block, as on CUDA.
    engine._block_size = lambda *_: None
    assert_close(train(engine, bucket, 30), truth)


def make_toy(**changes):
    """Eight cells, two a block; the low threshold stops four of them early."""
    changes = {"lr": [3e-3, 1e-2, 3e-2, 1e-1], "weight_decay": [0.0, 1.0]} | changes
    return make(
        "addition-classification",
        width=16,
        depth=2,  # compiles faster
        data_seed=6,
        steps=120,
        dtype="float64",
        **{"phase.threshold": 0.1, "record.embeddings": 10},
        **changes,
    )


@pytest.fixture(scope="module")
def toy():
    return make_toy()


@pytest.fixture(scope="module")
def truth(toy):
    return train(ReferenceEngine(CPU), toy, 120)


def test_compiled_parity_and_freezing_at_the_step_of_the_stop_rule(toy, truth):
    assert toy.stop_at_both
    frozen = truth.frozen(toy)
    assert frozen.any() and not frozen.all()
    assert_close(train(compiled(cpu_block=2), toy, 60, 120), truth)


def test_resumed_in_equal_chunks_gives_the_same_bits(toy):
    once = train(compiled(cpu_block=2), toy, 60, 90, 120)
    again = train(compiled(threads=1, cpu_block=2), toy, 60)
    kept = State.initial(toy)
    for (_, target), (_, source) in zip(kept.tensors(), again.tensors(), strict=True):
        target.copy_(source)
    assert_same_bits(train(compiled(cpu_block=2), toy, 90, 120, state=kept), once)


def test_interrupted_call_leaves_the_state_as_it_was():
    engine = compiled(eager=True, cpu_block=2)
    endless = make("addition-classification", width=16, depth=2, steps=10**6, stop="never")
    state, before = train(engine, endless, 60), train(engine, endless, 60)
    seen = []

    def tick(done):
        seen.append(done)
        return done > 0

    train(engine, endless, endless.cell.steps, state=state, tick=tick)
    assert seen == sorted(seen) and seen[-1] > 0
    assert_same_bits(state, before)


def test_cells_not_listed_frozen_or_past_the_step_are_left_alone(toy, truth):
    state = train(compiled(eager=True), toy, 50, cells=torch.tensor([6, 1]))
    untouched = torch.tensor([0, 2, 3, 4, 5, 7])
    assert_same_bits(state, State.initial(toy), rows=untouched)
    before = train(compiled(eager=True), toy, 50, cells=torch.tensor([6, 1]))
    train(compiled(eager=True), toy, 30, state=state, cells=torch.tensor([6, 1]))
    assert_same_bits(state, before)
    # Cells at different steps go on together.
    assert_close(train(compiled(eager=True), toy, 120, state=state), truth)


@pytest.mark.parametrize("eager", [False, True])
def test_a_diverging_cell_changes_no_bit_of_its_neighbours(eager):
    def with_second(lr):
        bucket = make_toy(lr=[1e-3, lr, 3e-3, 1e-2], weight_decay=0.0)
        return train(compiled(threads=1, cpu_block=2, eager=eager), bucket, 60)

    calm, wild = with_second(4e-3), with_second(1e308)
    assert 0 < int(wild.diverged_at[1]) <= 60
    assert int(wild.step[1]) == int(wild.diverged_at[1]) - 1
    assert_same_bits(calm, wild, rows=torch.tensor([0, 2, 3]))
    assert calm.diverged_at.tolist() == [-1] * 4


def test_cell_that_diverges_ends_where_it_does_in_the_reference():
    bucket = make(
        "addition-regression", width=16, steps=60, activation="relu", dtype="float64",
        lr=[1e-3, 1e60, 1e300], weight_decay=[0.0], stop="never",
    )  # fmt: skip
    ours, truth = train(compiled(eager=True), bucket, 60), train(ReferenceEngine(CPU), bucket, 60)
    assert (truth.diverged_at > 0).any()
    assert torch.equal(ours.diverged_at, truth.diverged_at)
    assert torch.equal(ours.step, truth.step)


def test_compiled_minibatches_in_calls_that_split_epochs():
    changes = {"model_seed": [0, 1], "lr": [1e-3], "depth": 1}
    bucket = make("mnist-digits", **DIGITS | changes)
    truth = train(ReferenceEngine(CPU), bucket, 37)
    assert_close(train(compiled(cpu_block=2, threads=1), bucket, 13, 37), truth)


@pytest.mark.parametrize("preset", ["addition-classification", "mnist-digits"])
def test_tables_are_refilled_where_a_call_outlasts_them(preset, monkeypatch):
    bucket = make(preset, width=2, steps=50, lr=[1e-3])
    at_once = train(compiled(eager=True), bucket, 50)
    for module in (engine_module, block_module):
        monkeypatch.setattr(module, "WINDOW", 16)
    lockstep_compile.compiled_pass.cache_clear()
    assert_same_bits(train(compiled(eager=True), bucket, 50), at_once)


def test_blocks_share_their_data_where_they_can():
    bucket = make("addition-classification", width=2, steps=10, **SEEDS)  # 2 x 2 x 4 cells
    cells = torch.arange(bucket.num_cells)
    blocks = split(bucket, cells, 3)
    assert sorted(torch.cat(blocks).tolist()) == cells.tolist()
    assert {len(b) for b in blocks} == {3, 1}
    assert all(len(bucket.data_index[b].unique()) == 1 for b in blocks)
    assert [b.tolist() for b in split(bucket, cells, None)] == [cells.tolist()]
    assert split(bucket, cells[:0], 3) == []


def test_a_gpus_blocks_shrink_by_halves_and_their_filling_changes_nothing(toy):
    sizes, cells = [], torch.arange(7)

    def as_on_cuda(bucket, cells):
        sizes.append((len(cells), room(bucket, cells)))
        return sizes[-1][1]

    engine = compiled(eager=True)
    engine._block_size, engine._room = lambda *_: None, as_on_cuda
    truth = train(ReferenceEngine(CPU), toy, 120, cells=cells)
    assert_close(train(engine, toy, *range(20, 121, 20), cells=cells), truth)
    assert sizes[0] == (7, 8)
    assert sizes[-1][0] < 7 and {models for _, models in sizes} <= {8, 4, 2, 1}


def test_room_of_kinds_of_data():
    bucket = make(
        "addition-classification", width=2, steps=10, lr=[1e-3 * k for k in range(1, 41)], **SEEDS
    )
    kinds = split(bucket, torch.arange(bucket.num_cells), None)  # two data sets
    assert [len(own) for own in kinds] == [160, 160]
    assert [room(bucket, kinds[0][:n]) for n in (160, 81, 80, 3, 1)] == [160, 160, 80, 3, 1]
    few, many = (torch.cat([own[:n] for own in kinds]) for n in (30, 90))
    assert [room(bucket, mixed) for mixed in (few, many)] == [80, 320]


def test_without_a_compiler_it_runs_eagerly_with_one_warning(tmp_path):
    script = """
import torch, grokfast as gf
from grokfast.engines.compiled import CompiledEngine
from grokfast.bucketing import make_buckets
from grokfast.state import State
grid = gf.preset("addition-classification").grid(width=5, steps=8, lr=[1e-3, 1e-2], depth=1)
(bucket,) = make_buckets(grid.cells[:4], range(4))
state = State.initial(bucket)
for until in (4, 8):
    CompiledEngine(torch.device("cpu"), 2).advance(bucket, state, torch.arange(4), until)
print(state.step.tolist())
"""
    env = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "always", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[8, 8, 8, 8]"
    assert done.stderr.count("the compiled engine runs eagerly") == 1


def test_what_it_does_not_compute_is_refused_by_name():
    bucket = make("addition-classification", width=2, steps=10, precision="tf32x3")
    engine = CompiledEngine(CPU)
    assert "tf32x3" in (engine.unsupported(bucket) or "")
    engine.device = torch.device("cuda")  # as if one were here
    assert "tf32" in (engine.unsupported(bucket) or "")
    bucket = make("addition-classification", width=2, steps=10, precision="tf32")
    assert engine.unsupported(bucket) is None


def test_torchs_settings_are_as_they_were(toy):
    torch.set_num_threads(2)
    train(compiled(eager=True), toy, 3)
    assert torch.get_num_threads() == 2
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
