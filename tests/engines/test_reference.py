"""The reference against the authors' own training code."""

import json

import pytest
import torch

import grokfast as gf
from grokfast.engines import make_engine
from grokfast.program import make_programs
from grokfast.state import State

TOY = ("addition-classification", "addition-regression")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TOY)
def test_losses_and_accuracies_of_the_authors_trace(name, dtype, shared):
    trace = json.loads((shared / "reference" / "toy_trace.json").read_text())[name]
    rows = trace[f"trace_{dtype}"]
    last = rows[-1]["step"]
    grid = gf.preset(name).grid(lr=1e-3, weight_decay=5.0, dtype=dtype, steps=last, stop="never")
    (program,) = make_programs(grid.cells, [0])
    state = State.initial(program)
    engine = make_engine("reference", "cpu", threads=1)
    # float32: one rounding of a sum of 45 terms, another summation order elsewhere.
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    for row in rows:
        engine.advance(program, state, torch.tensor([0]), row["step"])
        assert float(state.epoch_loss[0]) == pytest.approx(row["loss"], rel=tolerance)
        assert int(state.epoch_correct[0]) / 45 == pytest.approx(row["train_acc"])
        j = program.curve_index.get(row["step"])
        if j is not None:
            assert float(state.val_acc[0, j]) == pytest.approx(row["val_acc"], abs=1e-6)


@pytest.mark.parametrize("name", TOY)
def test_steps_of_the_authors_code_on_the_quickest_cells(name, shared):
    """T_train and T_val within 2% below 3,000 steps; the whole subgrid: make agreement."""
    cells = json.loads((shared / "reference" / "toy_steps.json").read_text())["cells"]
    quick = [c for c in cells if c["task"] == name and c["t_val"] and c["t_val"] < 1000]
    assert quick
    for cell in quick[:2]:
        grid = gf.preset(name).grid(lr=cell["lr"], weight_decay=cell["wd"], steps=1500)
        r = gf.run(grid, engine="reference", device="cpu", progress=False)
        assert r["t_train"][0] == pytest.approx(cell["t_train"], rel=0.02)
        assert r["t_val"][0] == pytest.approx(cell["t_val"], rel=0.02)
