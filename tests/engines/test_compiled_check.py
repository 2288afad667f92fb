"""Compiled code that computes something else is found; memory that runs out is made do with."""

import pytest
import torch

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.engines import compiled as engine_module
from grokfast.engines import lockstep_compile
from grokfast.engines.compiled import CompiledEngine
from grokfast.errors import EnvironmentProblem
from grokfast.state import State

pytestmark = pytest.mark.usefixtures("one_thread")


def bucket(preset="addition-classification", **changes):
    options = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 3.0], "width": 8, "steps": 20}
    grid = gf.preset(preset).grid(**(options | {"stop": "never"} | changes))
    (only,) = make_buckets(grid.cells, range(grid.size))
    return only


def train(bucket, engine=None, steps=10):
    state = State.initial(bucket)
    engine = engine or CompiledEngine(torch.device("cpu"), 1)
    engine.advance(bucket, state, torch.arange(bucket.num_cells), steps)
    return state


@pytest.fixture
def compiler(monkeypatch):
    """What stands for torch.compile: a function of the pass, the same pass where not set."""
    told = {"wraps": lambda run: run}
    monkeypatch.setattr(lockstep_compile, "compiled", lambda run, *_, **__: told["wraps"](run))
    monkeypatch.setattr(lockstep_compile, "compiled_arithmetic", lambda device: "some")
    lockstep_compile.compiled_pass.cache_clear()
    yield told
    lockstep_compile.compiled_pass.cache_clear()


def of_params(change):
    def wraps(run):
        def wrong(models, data, tables):
            run(models, data, tables)
            change(models)

        return wrong

    return wraps


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.batch_loss.mul_(1.1), "losses"),
        (lambda m: m.judged[1].add_(0.5), "losses"),
        (lambda m: m.batch_loss[2:3].fill_(float("nan")), "losses"),  # one model of four
        (lambda m: m.slots[0][1].mul_(1.05), "optimizer state 0"),
        (lambda m: m.slots[1][0].zero_(), "optimizer state 1"),
        (lambda m: [p.add_(0.1) for p in m.params], "updates"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_code_is_found_before_it_trains(compiler, change, what, dtype):
    compiler["wraps"] = of_params(change)
    with pytest.raises(
        EnvironmentProblem, match=f"computes other {what} than torch itself; remove"
    ):
        train(bucket(dtype=dtype))


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("addition-classification", {"lr": [1e-3, 1e25]}),
        ("addition-regression", {"activation": "relu"}),
        ("addition-classification", {"dtype": "float64", "evaluation.every": 3}),
        ("modular-addition", {"task.p": 7, "lr": 1e-2, "weight_decay": 1.0}),
    ],
)
def test_right_code_is_not_suspected(compiler, preset, changes):
    """Of rounding that is another: sums in float64, as a compiler may order them otherwise."""
    truth = train(bucket(preset, **changes))
    lockstep_compile.compiled_pass.cache_clear()

    def wraps(run):
        def rounded(models, data, tables):
            run(models, data, tables)
            eps = torch.finfo(models.params[0].dtype).eps
            for own in (*models.params, *(t for slot in models.slots for t in slot)):
                own.mul_(1 + 4 * eps)
            models.batch_loss.mul_(1 + 4 * eps)

        return rounded

    compiler["wraps"] = wraps
    rounded = train(bucket(preset, **changes))
    assert (rounded.step == truth.step).all()


def test_a_check_changes_nothing(compiler):
    checked, eager = train(bucket()), CompiledEngine(torch.device("cpu"), 1)
    eager.eager = True
    for (name, x), (_, y) in zip(checked.tensors(), train(bucket(), eager).tensors(), strict=True):
        assert x.numpy().tobytes() == y.numpy().tobytes(), name


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_without_memory_for_all_of_a_block(error, monkeypatch):
    """A block of eight finds none, one of four neither; two do."""
    sizes = []

    class Small(engine_module.Block):
        def __init__(self, bucket, state, cells, *rest):
            sizes.append(len(cells))
            if len(cells) > 2:
                raise error
            super().__init__(bucket, state, cells, *rest)

    monkeypatch.setattr(engine_module, "Block", Small)
    engine = CompiledEngine(torch.device("cpu"), 1)
    engine.eager, engine.cpu_block = True, 8
    own = bucket(weight_decay=[0.0, 1.0, 2.0, 3.0])
    with pytest.warns(
        RuntimeWarning, match="not enough memory for 8 models at once; going on with 4"
    ):
        state = train(own, engine)
    assert sizes[0] == 8
    assert sizes[-4:] == [2, 2, 2, 2]
    assert state.step.tolist() == [10] * 8
    truth = CompiledEngine(torch.device("cpu"), 1)
    monkeypatch.undo()
    truth.eager, truth.cpu_block = True, 2
    assert torch.equal(state.params[0], train(own, truth).params[0])


def test_without_memory_for_one(monkeypatch):
    def none(*arguments):
        raise MemoryError

    monkeypatch.setattr(engine_module, "Block", none)
    engine = CompiledEngine(torch.device("cpu"), 1)
    with pytest.warns(RuntimeWarning), pytest.raises(EnvironmentProblem, match="a single model"):
        train(bucket(), engine)


def test_any_other_error_is_no_lack_of_memory(monkeypatch):
    def wrong(*arguments):
        raise RuntimeError("something else")

    monkeypatch.setattr(engine_module, "Block", wrong)
    with pytest.raises(RuntimeError, match="something else"):
        train(bucket(), CompiledEngine(torch.device("cpu"), 1))
