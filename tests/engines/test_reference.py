"""The reference against the authors' own training code."""

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.agree.tables import PUBLISHED, load_reference
from grokfast.bucketing import make_buckets
from grokfast.engines import make_engine
from grokfast.state import State

TOY = ("addition-classification", "addition-regression")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TOY)
def test_losses_and_accuracies_of_the_authors_trace(name, dtype, trace):
    rows = trace[name][f"trace_{dtype}"]
    last = rows[-1]["step"]
    grid = gf.preset(name).grid(lr=1e-3, weight_decay=5.0, dtype=dtype, steps=last, stop="never")
    (bucket,) = make_buckets(grid.cells, [0])
    state = State.initial(bucket)
    engine = make_engine("reference", "cpu", threads=1)
    # float32: one rounding of a sum of 45 terms, another summation order elsewhere.
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    for row in rows:
        engine.advance(bucket, state, torch.tensor([0]), row["step"])
        assert float(state.epoch_loss[0]) == pytest.approx(row["loss"], rel=tolerance)
        assert int(state.epoch_correct[0]) / 45 == pytest.approx(row["train_acc"])
        j = bucket.curve_index.get(row["step"])
        if j is not None:
            assert float(state.val_acc[0, j]) == pytest.approx(row["val_acc"], abs=1e-6)


@pytest.mark.parametrize("name", TOY)
def test_steps_of_the_authors_code_on_the_quickest_cells(name):
    """T_train and T_val within 2% below 3,000 steps; the whole subgrid: make agreement."""
    (table,) = (t for t in load_reference(PUBLISHED / "toy_steps.json") if t.title == name)
    quick = np.flatnonzero((table.t_val > 0) & (table.t_val < 1000))
    assert len(quick) >= 2
    for k in quick[:2]:
        values = {axis: at[k] for axis, at in zip(table.axes, table.at, strict=True)}
        grid = gf.preset(name).grid(**values, steps=1500)
        r = gf.run(grid, engine="reference", device="cpu", progress=False)
        assert r["t_train"][0] == pytest.approx(table.t_train[k], rel=0.02)
        assert r["t_val"][0] == pytest.approx(table.t_val[k], rel=0.02)
