"""Small buckets trained by any engine, and what it means that two states are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import grokfast as gf
from grokfast.bucket import Bucket
from grokfast.bucketing import make_buckets
from grokfast.engines import make_engine
from grokfast.engines.base import Tick
from grokfast.engines.compiled import CompiledEngine
from grokfast.outcomes import CURVES
from grokfast.state import State


def bucket_of(*cells: gf.Experiment) -> Bucket:
    """The one bucket of experiments that may train together."""
    (bucket,) = make_buckets(cells, range(len(cells)))
    return bucket


def engine_of(name: str):
    """An engine on one thread of the CPU; ``eager`` is ``compiled`` without compiling."""
    if name != "eager":
        return make_engine(name, "cpu", 1)
    engine = CompiledEngine(torch.device("cpu"), 1)
    engine.eager = True
    return engine


def trained(
    name: str,
    bucket: Bucket,
    *untils: int,
    state: State | None = None,
    cells: Sequence[int] | None = None,
    tick: Tick | None = None,
) -> State:
    """The state after calls to these steps, each by an engine of its own."""
    state = State.initial(bucket) if state is None else state
    chosen = torch.tensor(range(bucket.num_cells) if cells is None else cells)
    for until in untils:
        engine_of(name).advance(bucket, state, chosen, until, tick)
    return state


def assert_close(ours: State, truth: State, rtol: float) -> None:
    """Counts equal; real numbers within ``rtol`` of the largest of their tensor and cell."""
    names = [name for name, _ in truth.tensors()]
    assert [name for name, _ in ours.tensors()] == names
    for (name, x), (_, y) in zip(ours.tensors(), truth.tensors(), strict=True):
        if not x.is_floating_point():
            assert torch.equal(x, y), f"{name}: {x.tolist()} for {y.tolist()}"
            continue
        assert torch.equal(x.isnan(), y.isnan()), name
        x, y = (t.double().nan_to_num().reshape(len(t), -1) for t in (x, y))
        if not x.numel():
            continue
        # Curves are kept in float32. 1e-300: a tensor of zeros.
        size = y.abs().amax(1, keepdim=True) + 1e-300
        bound = size * (max(rtol, 2**-22) if name in CURVES else rtol)
        assert bool(((x - y).abs() <= bound).all()), f"{name}: {((x - y).abs() / size).max()}"


def assert_same_bits(a: State, b: State, rows=slice(None), there=slice(None)) -> None:
    """Rows of one state are those rows of another, byte for byte."""
    for (name, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
        assert x[rows].numpy().tobytes() == y[there].numpy().tobytes(), name
