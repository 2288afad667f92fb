"""The native engine: parity with the reference, and bitwise invariance."""

import pytest
import torch

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.engines import make_engine
from grokfast.state import State

pytest.importorskip("grokfast._native")

TOY = {"width": 33, "steps": 60, "dtype": "float64", "stop": "never", "record.embeddings": 7}
CASES = {
    "cross-entropy": ("addition-classification", TOY),
    "mse": ("addition-regression", TOY),
    "relu": ("addition-regression", TOY | {"activation": "relu"}),
    "leaky": ("addition-classification", TOY | {"activation": "leaky_relu"}),
    "depth 1": ("addition-classification", TOY | {"depth": 1, "model.embedding_dim": 3}),
    "depth 2": ("addition-regression", TOY | {"depth": 2}),
    "depth 4": ("addition-classification", TOY | {"depth": 4, "model.embedding_dim": 17}),
    "data seeds": ("addition-regression", TOY | {"data_seed": [1, 2], "model_seed": [3, 4]}),
    "minibatch": (
        "mnist-digits",
        {"width": 20, "steps": 60, "dtype": "float64", "stop": "never", "model_seed": [0, 1]},
    ),
}


def case(name, **more):
    preset, changes = CASES[name]
    axes = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 3.0]}
    grid = gf.preset(preset).grid(**(axes | changes | more))
    (bucket,) = make_buckets(grid.cells, range(grid.size))
    return bucket, State.initial(bucket)


def advance(engine, bucket, state, until, cells=None, threads=2, tick=None):
    cells = torch.arange(bucket.num_cells) if cells is None else cells
    make_engine(engine, "cpu", threads).advance(bucket, state, cells, until, tick)
    return state


def assert_same_bits(a, b, rows=None):
    for (name, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
        if rows is not None:
            x, y = x[rows], y[rows]
        assert x.numpy().tobytes() == y.numpy().tobytes(), name


@pytest.mark.parametrize("name", CASES)
def test_float64_parity_with_the_reference(name):
    bucket, native = case(name)
    _, reference = case(name)
    advance("native", bucket, native, 30)
    advance("reference", bucket, reference, 30, threads=1)
    for (field, x), (_, y) in zip(native.tensors(), reference.tensors(), strict=True):
        if not x.numel():
            continue
        if x.dtype.is_floating_point:
            # float64 sums in another order, carried through 30 steps; curves are float32.
            tolerance = 1e-5 if x.dtype == torch.float32 else 1e-9
            scale = y.nan_to_num().abs().max().clamp(min=1e-8)
            assert torch.equal(x.isnan(), y.isnan()), field
            assert ((x - y).nan_to_num().abs().max() / scale) < tolerance, field
        else:
            assert torch.equal(x, y), field


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "minibatch"])
@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_of_any_length_give_the_same_bits(name, chunk):
    bucket, whole = case(name)
    _, parts = case(name)
    advance("native", bucket, whole, 60)
    for until in [*range(chunk, 60, chunk), 60]:
        advance("native", bucket, parts, until)
    assert_same_bits(whole, parts)


@pytest.mark.parametrize("name", ["cross-entropy", "minibatch"])
def test_alone_in_any_order_on_any_threads_gives_the_same_bits(name):
    bucket, whole = case(name)
    advance("native", bucket, whole, 60, threads=2)
    _, alone = case(name)
    for m in reversed(range(bucket.num_cells)):
        advance("native", bucket, alone, 60, cells=torch.tensor([m]), threads=1)
    assert_same_bits(whole, alone)


def test_an_interrupted_call_goes_on_to_the_same_bits():
    endless = {"steps": 10**7, "record.embeddings": 0}  # minutes, unless it is told to stop
    bucket, whole = case("cross-entropy", **endless)
    _, parts = case("cross-entropy", **endless)
    advance("native", bucket, parts, 10**7, tick=lambda done: done > 0)
    later = int(parts.step.max()) + 7
    assert 7 < later < 10**7
    advance("native", bucket, parts, later)
    advance("native", bucket, whole, later)
    assert_same_bits(whole, parts)


def test_whole_cells_reach_the_thresholds_at_the_same_steps():
    grid = gf.preset("addition-regression").grid(
        lr=[3e-3], weight_decay=[1.0, 5.0], width=64, steps=1500, dtype="float64"
    )
    a, b = (gf.run(grid, engine=e, device="cpu", progress=False) for e in ("native", "reference"))
    assert a["t_train"].tolist() == b["t_train"].tolist()
    assert a["t_val"].tolist() == b["t_val"].tolist()


def test_it_takes_the_cpu_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_engine("native").device == torch.device("cpu")
    assert make_engine("reference").device.type == "cuda"
    with pytest.raises(gf.errors.GrokfastError, match="runs on the CPU, not on cuda"):
        make_engine("native", "cuda")
