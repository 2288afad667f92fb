"""Transformers in the compiled engine: parity, bits whatever trains beside, a compiled run."""

from __future__ import annotations

import pytest
import torch
from parity import assert_close, assert_same_bits, bucket_of
from torch.fx.experimental.proxy_tensor import make_fx

import grokfast as gf
from grokfast.engines import onednn
from grokfast.engines.compiled import CompiledEngine, _Call
from grokfast.engines.reference import ReferenceEngine
from grokfast.experiment import Batches, Evaluation, Optimizer, Recording
from grokfast.models import Transformer
from grokfast.models.stacked_decoder import StackedDecoder
from grokfast.state import State
from grokfast.tasks import Algorithmic

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SMALL = {"width": 8, "heads": 2, "feedforward": 12}


def experiment(model=(), **changes) -> gf.Experiment:
    """As power-division in small: 21 rows for training in batches of 8, 8 and 5; 21 others."""
    common = {
        "task": Algorithmic(p=7, fraction=0.5),
        "model": Transformer(**SMALL | dict(model)),
        "optimizer": Optimizer(lr=1e-2, weight_decay=1.0, beta2=0.98, warmup=10),
        "batch_size": 8,
        "batches": Batches(order="fixed", remainder="short"),
        "steps": 60,
        "stop": "never",
        "evaluation": Evaluation(
            schedule="every-steps", every=7, train="after", thresholds=(0.3, 0.6)
        ),
        "record": Recording(curves="evaluated"),
        "dtype": "float64",
    }
    return gf.Experiment(**common | changes)


def seeds(e: gf.Experiment, count: int = 3) -> list[gf.Experiment]:
    return [e.replace(model_seed=seed) for seed in range(count)]


def trained(bucket, *untils, cells=None, threads=1, eager=True, tick=None) -> State:
    """By the compiled engine."""
    engine = CompiledEngine(CPU, threads)
    engine.eager = eager
    state = State.initial(bucket)
    chosen = torch.arange(bucket.num_cells) if cells is None else torch.tensor(cells)
    for until in untils:
        engine.advance(bucket, state, chosen, until, tick)
    return state


def truth_of(bucket, until: int) -> State:
    state = State.initial(bucket)
    ReferenceEngine(CPU, 1).advance(bucket, state, torch.arange(bucket.num_cells), until)
    return state


CASES = {
    "the reproduction": experiment(),
    "pre-norm": experiment({"norm": "pre", "bias": False, "tied": False}),
    "no norm, sinusoidal": experiment({"norm": "none", "positions": "sinusoidal"}),
    "dropout, gelu": experiment({"dropout": 0.1, "activation": "gelu"}),
    "three layers, learned": experiment({"depth": 3, "positions": "learned"}),
    "full batch": experiment(batch_size=0),
    "running accuracy": experiment(
        evaluation=Evaluation(schedule="every-epoch"), steps=60, record=Recording()
    ),
    "S5": experiment(task=Algorithmic(operation="x.y", fraction=0.002)),
    "plain gradient descent": experiment(optimizer=Optimizer(kind="sgd", lr=0.1)),
    "noisy": experiment(optimizer=Optimizer(lr=1e-3, update_noise=1.0, weight_noise=0.01)),
}


@pytest.mark.parametrize("name", CASES)
def test_float64_parity_with_the_reference(name):
    """Keys' biases change nothing: their gradient is what rounding leaves, which AdamW's eps of
    1e-8 makes an update of up to lr * 1e-16 / 1e-8 a step."""
    bucket = bucket_of(*seeds(CASES[name], 2))
    assert_close(trained(bucket, 20, 45), truth_of(bucket, 45), rtol=1e-6)


def test_cells_of_different_data_train_together():
    e = experiment()
    bucket = bucket_of(*seeds(e, 2), e.replace(**{"task.seed": 5}), e.replace(**{"task.seed": 6}))
    assert len(bucket.x_train) == 3 and bucket.stacked.constant == (None, 7, None, 8)
    truth = truth_of(bucket, 40)
    assert_close(trained(bucket, 40), truth, rtol=1e-6)
    engine = CompiledEngine(CPU, 1)
    engine.eager, engine._block_size = True, lambda *_: None  # in one block, as on a GPU
    state = State.initial(bucket)
    engine.advance(bucket, state, torch.arange(4), 40)
    assert_close(state, truth, rtol=1e-6)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_bits_do_not_depend_on_what_is_trained_beside(dtype):
    bucket = bucket_of(*seeds(experiment(dtype=dtype, steps=100), 5))
    together = trained(bucket, 100, threads=2)
    assert_same_bits(together, trained(bucket, 50, 100, threads=2))
    for cells in ([1, 3, 4], [2, 3], [2]):
        rows = torch.tensor(cells)
        assert_same_bits(together, trained(bucket, 100, cells=cells, threads=2), rows, rows)


def test_all_threads_evaluate_a_cell_that_is_alone_and_one_trains_it(monkeypatch):
    seen = []
    forward = StackedDecoder.forward

    def looked_at(self, params, buffers, x, noise=None):
        seen.append(("trained" if noise else "evaluated", torch.get_num_threads()))
        return forward(self, params, buffers, x, noise)

    monkeypatch.setattr(StackedDecoder, "forward", looked_at)
    bucket = bucket_of(*seeds(experiment()))
    for cells, evaluate in (([0], 4), ([0, 1], 1), ([0, 1, 2], 1)):
        seen.clear()
        trained(bucket, 8, cells=cells, threads=4)
        assert set(seen) == {("trained", 1), ("evaluated", evaluate)}


def test_blocks_take_turns(monkeypatch):
    """Three on two threads: none waits for another one to end."""
    monkeypatch.setattr(_Call, "turn", 1)
    order = []
    training = _Call._training

    def followed(self, k, cells):
        for _ in training(self, k, cells):
            order.append(k)
            yield

    bucket = bucket_of(*seeds(experiment()))
    expected = trained(bucket, 20)
    monkeypatch.setattr(_Call, "_training", followed)
    assert_same_bits(trained(bucket, 20), expected)
    assert order == [0, 1, 2] * (len(order) // 3) and len(order) >= 60


def test_a_stopped_call_leaves_the_state_alone(monkeypatch):
    monkeypatch.setattr(_Call, "turn", 1)
    bucket = bucket_of(*seeds(experiment(steps=10**6)))
    state = trained(bucket, 10**6, tick=lambda done: done > 20)
    assert_same_bits(state, State.initial(bucket))


def test_each_evaluation_is_one_pass():
    """Steps 7, 14 and 21, which 22 passes that train do not carry along."""
    from grokfast.engines.lockstep_block import BatchRows, Block

    bucket = bucket_of(experiment())
    block = Block(bucket, State.initial(bucket), torch.arange(1), 21, BatchRows(bucket), 1)
    kinds = [kind for k in range(block.passes) for kind in block.kinds_of(k)]
    assert set(kinds) == block.kinds() == {(True, 0), (False, 8), (False, 5)}
    assert kinds.count((True, 0)) == 3 and len(kinds) == 21 + 3
    assert kinds.index((True, 0)) == 7 and kinds[-1] == (True, 0)


@pytest.mark.skipif(not onednn.is_there(), reason="this torch has no oneDNN")
def test_products_are_replaced_and_nothing_else():
    def f(a, b, bias, stack):
        wide = torch.addmm(bias, a, b.T) + torch.mm(a, b.T).relu()
        deep = torch.baddbmm(wide[None], torch.bmm(stack, stack.mT), stack)
        return torch.bmm(deep.mT, deep), torch.mm(a.double(), b.T.double())

    inputs = (torch.randn(6, 4), torch.randn(4, 4), torch.randn(4), torch.randn(2, 6, 4))
    graph = make_fx(f, tracing_mode="fake")(*inputs)
    before = [str(node.target) for node in graph.graph.nodes]
    onednn.ReplaceProducts()(graph.graph)
    graph.recompile()
    after = [str(node.target) for node in graph.graph.nodes]
    assert [t for t in before if "mm" in t].count("aten.mm.default") == 2
    assert [t for t in after if "mm" in t] == ["aten.mm.default"]  # of float64
    assert after.count("grokfast.product.default") == 1 + 1 + 3 * 2
    for found, expected in zip(graph(*inputs), f(*inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_a_compiled_run_computes_what_the_reference_does():
    """Really compiled, in float32 with oneDNN's products: one pass that trains, one that judges."""
    e = experiment({"depth": 1}, dtype="float32", batch_size=0, steps=30)
    bucket = bucket_of(*seeds(e, 2))
    state, truth = trained(bucket, 30, threads=2, eager=False), truth_of(bucket, 30)
    for name in ("train_loss", "val_loss"):
        torch.testing.assert_close(getattr(state, name), getattr(truth, name), rtol=2e-3, atol=1e-3)
    alone = trained(bucket, 14, 30, cells=[1], threads=1, eager=False)
    rows = torch.tensor([1])
    assert_same_bits(state, alone, rows, rows)
