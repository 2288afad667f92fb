"""The triton engine through Bucket and State, in Triton's interpreter (a process of its own)."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

_PARITY = """
import torch
import grokfast as gf
from grokfast.engines import make_engine
from grokfast.bucketing import make_buckets
from grokfast.state import State

def trained(grid, engine, ends):
    (bucket,) = make_buckets(grid.cells, range(grid.size))
    state = State.initial(bucket)
    for until in ends:
        make_engine(engine, "cpu", threads=1).advance(
            bucket, state, torch.arange(bucket.num_cells), until)
    return state

toy = gf.preset("addition-regression").grid(
    lr=[1e-3, 1e-2], weight_decay=3.0, width=17, steps=6, dtype="float64",
    **{"task.p": 5, "task.val_size": 4, "record.embeddings": 2})
digits = gf.preset("mnist-digits").grid(
    lr=1e-2, weight_decay=1.0, width=10, steps=20, dtype="float64", batch_size=20,
    **{"task.train_size": 40, "task.val_size": 15})
for grid, end in ((toy, 6), (digits, 4)):
    a, b = trained(grid, "reference", [end]), trained(grid, "triton", [1, end])
    for (name, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
        if x.dtype.is_floating_point:
            # sums in another order in float64; records are float32
            tolerance = 1e-10 if x.dtype == torch.float64 else 1e-5
            assert torch.allclose(x, y, rtol=tolerance, atol=1e-13, equal_nan=True), name
        else:
            assert torch.equal(x, y), name
print("same")
"""


def test_parity_with_the_reference_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-c", _PARITY],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "same", done.stderr


def test_without_a_gpu_the_engine_is_refused_with_the_reason():
    import torch

    from grokfast.engines import make_engine
    from grokfast.errors import EnvironmentProblem

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentProblem, match="runs on CUDA, not on cpu"):
        make_engine("triton", "cpu")
