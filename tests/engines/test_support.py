"""Every value of every field that reaches an engine, times every engine: the numbers of the
reference, or a refusal that names the field."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from parity import assert_close, bucket_of, engine_of, trained

import grokfast as gf
from grokfast.bucket import Bucket
from grokfast.engines import support
from grokfast.engines.base import _ENGINES
from grokfast.engines.support import SUPPORT
from grokfast.fields import options, scalar_fields, short_name, value_text
from grokfast.models import MODELS, Transformer
from grokfast.state import State
from grokfast.tasks import Algorithmic, Modular, Parity

pytestmark = pytest.mark.usefixtures("one_thread")

#: Fields with listed values that no engine reads: what they mean is worked out before, into
#: tables. A new one belongs here, or into SUPPORT.
RESOLVED = {
    "batches.order",
    "evaluation.schedule",
    "model.init",
    "model.init_dtype",
    "optimizer.encoder",
    "record.curves",
    "stop",
    "transformer.init",
}

#: This file once more, in a process of its own, for what triton does beside its usual kind of net:
#: fewer cells and steps, because the interpreter takes a second for some of them.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ENGINES = ("triton",) if INTERPRETED else ("eager", "native")

#: Four cells of a bucket in all that may differ: numbers, initial values, data.
CELLS = (
    {"lr": 1e-2, "weight_decay": 0.0},
    {"lr": 1e-3, "weight_decay": 3.0, "model_seed": 5},
    {"lr": 3e-3, "optimizer.encoder_lr": 1e-2, "task.corruption": 0.5},
    {"lr": 3e-2, "init_scale": 2.0, "data_seed": 7},
)
TRANSFORMER_CELLS = (
    {"lr": 1e-2, "weight_decay": 0.0},
    {"lr": 1e-3, "weight_decay": 3.0, "model_seed": 5},
    {"lr": 3e-3, "data_seed": 7, "init_scale": 0.5},
)
STEPS = 7  # two epochs of three minibatches, and one more step
if INTERPRETED:
    CELLS, STEPS = CELLS[1:3], 2

#: Minibatches of 24 samples: three batches of 8, or three of 7 and 3 left over.
MINI = {"batch_size": 8}
#: Accuracies that are reached on the way, of the whole training set.
MEMORISES = MINI | {"evaluation.train": "after", "phase.threshold": 0.2}
#: What else must hold for a value to be possible.
NEEDS = {
    ("batches.order", None): MINI,
    ("batches.remainder", "none"): MINI,
    ("batches.remainder", None): {"batch_size": 7},
    ("evaluation.train_loss", "after"): MINI | {"evaluation.train": "after"},
    ("evaluation.schedule", "log-epochs"): MINI | {"evaluation.horizon": 30},
    ("evaluation.schedule", "every-steps"): {"evaluation.every": 3},
    ("evaluation.schedule", "log-steps"): {"evaluation.horizon": 12, "evaluation.points": 5},
    ("model.dropout", None): MINI,
    ("model.norm", None): MINI,
    ("model.one_hot", True): {"model.embedding_dim": 0, "model.bias": False},
    ("optimizer.kind", "sgd"): {"optimizer.momentum": 0.9},
    ("optimizer.weight_decay_memorised", None): MEMORISES,
    ("predict", "sign"): {"loss": "mse"},
    ("optimizer.weight_noise", None): MINI,
}


#: A gradient that is off by a rounding moves AdamW's update by lr / eps of it: with an eps of 1e-3
#: and lr of 0.03 by 30 of it a step, in seven steps by a few hundred.
EPS, ROUNDINGS = 1e-3, 1e4


def base(**changes) -> gf.Experiment:
    """A small net on tokens in float64, with further thresholds; on signs where they predict."""
    signs = changes.get("predict") == "sign"
    return gf.Experiment(
        task=Parity(n=7, train_size=24, val_size=20) if signs else Modular(p=7),
        model=gf.Mlp(width=9, depth=2 if INTERPRETED else 3, embedding_dim=0 if signs else 5),
        loss="mse",
        optimizer=gf.Optimizer(eps=EPS),
        steps=12,
        stop="never",
        evaluation=gf.Evaluation(thresholds=(0.1, 0.3)),
        record=gf.Recording(curve_points=20),
        dtype="float64",
    ).replace(**changes)


def transformer(**changes) -> gf.Experiment:
    """A small one in float64; every model begins with other weights."""
    return dataclasses.replace(
        base(),
        task=Algorithmic(operation="x+y", p=5, fraction=0.5),
        model=Transformer(width=6, heads=2, feedforward=7, same_layers=False),
        loss="cross_entropy",
        evaluation=gf.Evaluation(train="after", schedule="every-steps", every=2),
        batch_size=5,
        batches=gf.Batches(order="fixed", remainder="short"),
    ).replace(**changes)


def needs(path, value):
    return NEEDS.get((path, value), NEEDS.get((path, None), {}))


def rows_of(experiment: gf.Experiment) -> dict[str, object]:
    """Row of the tables -> type of the field, of every field of an experiment."""
    own = "model." if isinstance(experiment.model, gf.Mlp) else f"{experiment.model.name}."
    return {path.replace("model.", own): kind for path, kind in scalar_fields(experiment).items()}


def listed_fields(experiment: gf.Experiment) -> dict[str, tuple]:
    """Row -> its values, of every field whose values can be listed."""
    return {
        row: (False, True) if kind is bool else options(kind)
        for row, kind in rows_of(experiment).items()
        if kind is bool or options(kind)
    }


#: Beside them: numbers of which one value has a meaning of its own.
NUMBERS = {
    "model.dropout": (0.0, 0.3),
    "optimizer.momentum": (0.0, 0.9),
    "optimizer.weight_decay_memorised": (None, 2.0),
    "optimizer.update_noise": (0.0, 0.5),
    "optimizer.weight_noise": (0.0, 0.2),
    "batch_size": (0, 8, 12),
}
COMBINED = {
    "modular": {
        "model.one_hot": True, "model.embedding_dim": 0, "model.bias": False, "depth": 2,
        "activation": "square", "model.init": "cube-root", "evaluation.train": "after",
    },
    "everything": {
        "model.one_hot": True, "model.embedding_dim": 0, "model.bias": False,
        "model.dropout": 0.5, "model.norm": "batch", "activation": "square",
        "model.parametrization": "mean-field", "evaluation.train": "after", "batch_size": 7,
        "batches.remainder": "short", "batches.order": "continued", "optimizer.kind": "sgd",
        "evaluation.schedule": "every-steps", "evaluation.every": 5, "predict": "nearest",
        "optimizer.update_noise": 0.1, "optimizer.weight_noise": 0.05, "optimizer.warmup": 3,
        "optimizer.weight_decay_memorised": 0.3, "phase.threshold": 0.1,
        "evaluation.train_loss": "after",
    },
    "dense full batch, after": {"evaluation.train": "after", "loss": "cross_entropy"},
    "minibatches, after": MINI | {"evaluation.train": "after", "activation": "relu"},
    "noise": {
        "optimizer.decay_towards": "initial", "optimizer.update_noise": 0.3,
        "optimizer.weight_noise": 0.1, "optimizer.warmup": 3, "model.dropout": 0.2,
        "batch_size": 7, "batches.remainder": "short", "evaluation.train": "after",
    },
    "weight noise with a full batch": {
        "optimizer.weight_noise": 0.1, "optimizer.kind": "adam", "evaluation.train": "after",
    },
    "sgd without momentum": {"optimizer.kind": "sgd", "optimizer.momentum": 0.0},
    "stops": {"stop": "both", "phase.threshold": 0.1},
    "depth 1": {"depth": 1, "predict": "nearest"},
    "parity": MEMORISES | {
        "predict": "sign", "loss": "hinge", "depth": 2, "activation": "relu",
        "model.output_bias": False, "optimizer.kind": "sgd", "batch_size": 10,
        "batches.remainder": "short", "optimizer.weight_decay_memorised": 0.5,
        "evaluation.train_loss": "after", "evaluation.initial": True,
        "record.curves": "evaluated",
    },
    # No output bias: of as many samples of either sign its gradient is what rounding leaves of 0.
    "parity, full batch": {
        "model.output_bias": False, "predict": "sign", "loss": "hinge", "activation": "relu",
        "evaluation.train": "after",
        "optimizer.weight_decay_memorised": 2.0, "evaluation.train_loss": "after",
        "evaluation.initial": True, "phase.threshold": 0.6,
    },
}  # fmt: skip
VALUES = [(path, v) for path, values in (listed_fields(base()) | NUMBERS).items() for v in values]
TRANSFORMERS = [
    (row, v)
    for row, values in (listed_fields(transformer()) | {"transformer.dropout": (0.0, 0.3)}).items()
    for v in values
    if row.startswith("transformer.") and (row, v) != ("transformer.loss_at", "answer-and-end")
]
INVENTED = listed_fields(base()) | {
    row: values for row, values in listed_fields(transformer()).items() if "transformer." in row
}
if INTERPRETED:
    VALUES = [
        (path, v) for path, v in VALUES if path in SUPPORT["triton"] and v != base().get(path)
    ]
    COMBINED = {name: COMBINED[name] for name in ("modular", "stops")}


@functools.cache
def by_the_reference(experiment: gf.Experiment) -> tuple[Bucket, State]:
    # What turns a label into another one has another name.
    corruption = "task.flip" if isinstance(experiment.task, Parity) else "task.corruption"
    cells = [{k.replace("task.corruption", corruption): v for k, v in c.items()} for c in CELLS]
    if isinstance(experiment.model, Transformer):
        cells = TRANSFORMER_CELLS
    bucket = bucket_of(*(experiment.replace(**cell) for cell in cells))
    return bucket, trained("reference", bucket, STEPS)


def same_as_the_reference(name: str, experiment: gf.Experiment) -> str | None:
    """Trains the cells by the engine and by the reference; or why the engine does not."""
    bucket, truth = by_the_reference(experiment)
    reason = engine_of(name).unsupported(bucket)
    if reason is None:
        rtol = ROUNDINGS * torch.finfo(bucket.dtype).eps
        assert_close(trained(name, bucket, 1, STEPS), truth, rtol)
    return reason


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("path", "value"), VALUES, ids=str)
def test_every_value_of_every_field_is_trained_as_by_the_reference_or_refused(name, path, value):
    if name == "native":
        pytest.importorskip("grokfast._native")
    if path == "precision":
        pytest.skip("products of float32 on a GPU: tests/kernels")
    reason = same_as_the_reference(name, base(**{path: value, **needs(path, value)}))
    if reason is not None:
        values = SUPPORT[engine_of(name).name].get(path)
        known = path in SUPPORT["reference"] and values is not None and value in values
        assert not known, f"{path}={value!r} is in the table, but refused: {reason}"
        assert short_name(path) in reason and repr(value) in reason


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", COMBINED)
def test_fields_together_are_trained_as_by_the_reference_or_refused(name, case):
    if name == "native":
        pytest.importorskip("grokfast._native")
    reason = same_as_the_reference(name, base(**COMBINED[case]))
    assert reason is None or name != "eager"


@pytest.mark.parametrize("engine", ["native", "triton"])
def test_what_a_later_cell_of_a_bucket_needs_is_refused_too(engine):
    bucket = bucket_of(*(base(**{"optimizer.warmup": steps}) for steps in (0, 5)))
    assert "optimizer.warmup 5" in support.unsupported(engine, bucket)


@pytest.mark.skipif(INTERPRETED, reason="is triton's")
def test_compiled_code_computes_what_its_functions_do():
    """Noise, norms, a change of decay and gradients by autograd; a full batch, which is one pass to
    compile."""
    full_batch = {"batch_size": 0, "depth": 2, "evaluation.schedule": "every-epoch"}
    bucket = bucket_of(base(**COMBINED["everything"] | full_batch | CELLS[0], loss="hinge"))
    rtol = ROUNDINGS * torch.finfo(bucket.dtype).eps
    truth = trained("reference", bucket, STEPS)
    assert 0 < int(truth.t_train[0]) < STEPS
    assert_close(trained("compiled", bucket, STEPS), truth, rtol)


def test_every_listed_field_is_in_every_table_or_resolved_before_engines():
    fields = rows_of(base()) | rows_of(transformer())
    listed = {path for path, kind in fields.items() if options(kind)} - {
        "task.operation", "task.convention"
    }  # fmt: skip
    for engine, table in SUPPORT.items():
        assert set(table) == set(SUPPORT["reference"]), engine
        assert not RESOLVED & set(table), engine
        assert listed == (RESOLVED | set(table)) & listed, engine
        for path, values in table.items():
            kind = fields[path]
            for value in values or ():
                assert value in options(kind) or isinstance(value, kind), f"{engine}: {path}"
    assert set(_ENGINES) == set(SUPPORT)


def test_the_table_for_people_says_what_the_data_say():
    for path, text, engines in support.table():
        for engine, fields in SUPPORT.items():
            known = fields[path]
            for value in text.split(", "):
                told = known is None or value in map(value_text, known)
                assert told == (engine in engines), f"{engine}: {path} {value}"


def test_the_page_of_results_has_the_table():
    page = Path(__file__).parents[2] / "bench" / "RESULTS.md"
    assert support.markdown() in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("row", [p for p, v in INVENTED.items() if v != (False, True)])
@pytest.mark.parametrize("name", ["reference", *ENGINES])
def test_an_invented_value_is_refused_by_name_never_trained(name, row):
    of_transformer = row.startswith("transformer.")
    experiment = copy.deepcopy(transformer() if of_transformer else base(**MINI))
    *parents, leaf = row.replace("transformer.", "model.").split(".")
    owner = experiment.get(".".join(parents)) if parents else experiment
    object.__setattr__(owner, leaf, "invented")
    knows_none = SUPPORT[engine_of(name).name].get(row) == ()
    says = "'transformer'" if knows_none else "invented"
    with pytest.raises(Exception, match=says):  # of any kind: this is past every check
        bucket = bucket_of(experiment)
        if reason := support.unsupported(engine_of(name).name, bucket):
            raise gf.UsageError(reason)
        trained(name, bucket, STEPS)


@pytest.mark.skipif(INTERPRETED, reason="the net is refused")
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("row", "value"), TRANSFORMERS, ids=str)
def test_every_transformer_is_trained_as_by_the_reference_or_refused(name, row, value):
    if name == "native":
        pytest.importorskip("grokfast._native")
    experiment = transformer(**{row.replace("transformer.", "model."): value})
    reason = same_as_the_reference(name, experiment)
    if reason is not None:
        known = SUPPORT[engine_of(name).name].get(row, ())
        assert known is not None and value not in known
        assert "'transformer'" in reason


@pytest.mark.parametrize("precision", ["tf32x3", "tf32"])
@pytest.mark.parametrize("name", ["reference", "eager", "native"])
def test_other_precisions_are_refused_on_a_cpu(name, precision):
    if name == "native":
        pytest.importorskip("grokfast._native")
    bucket = bucket_of(base(dtype="float32", precision=precision))
    assert repr(precision) in engine_of(name).unsupported(bucket)


@pytest.mark.skipif(INTERPRETED, reason="the net is refused")
def test_a_cell_that_diverges_ends_as_in_the_reference_with_its_running_statistics():
    wild = base(
        loss="mse", batch_size=8, width=4, activation="square",
        **{"model.norm": "batch", "optimizer.kind": "sgd", "optimizer.momentum": 0.5},
    )  # fmt: skip
    bucket = bucket_of(*(wild.replace(lr=lr) for lr in (1e-2, 1e120)))
    truth = trained("reference", bucket, STEPS)
    assert truth.diverged_at[0] < 0 < truth.diverged_at[1] <= STEPS
    assert all(buffer.isfinite().all() for buffer in truth.buffers.values())
    ours = trained("eager", bucket, STEPS)
    for name in ("step", "diverged_at", "train_correct", "best_val_correct"):
        assert torch.equal(ours.progress[name], truth.progress[name]), name
    for name, buffer in truth.buffers.items():
        torch.testing.assert_close(ours.buffers[name], buffer, rtol=1e-9, atol=0)


@dataclass(frozen=True, kw_only=True)
class NoChain(gf.Model):
    """A model of one's own that no table of layers describes."""

    def build(self, shape):
        return torch.nn.Sequential(
            torch.nn.Embedding(shape.vocabulary, 4),
            torch.nn.Flatten(),
            torch.nn.Linear(8, shape.outputs),
        )


@pytest.fixture
def no_chain():
    gf.model("no-chain")(NoChain)
    yield NoChain()
    MODELS._entries.pop("no-chain")


def test_a_model_that_is_no_chain_is_trained_by_the_reference_alone(no_chain):
    experiment = gf.Experiment(task=Modular(p=5), model=no_chain, steps=3, dtype="float64")
    bucket = bucket_of(experiment)
    for engine in SUPPORT:
        reason = support.unsupported(engine, bucket)
        assert reason is None if engine == "reference" else "'no-chain'" in reason
    state = trained("reference", bucket, 3)
    assert state.step.tolist() == [3]
    assert not torch.equal(state.params[0], State.initial(bucket).params[0])


@pytest.mark.skipif(INTERPRETED, reason="is the interpreter")
def test_the_same_in_tritons_interpreter(tmp_path):
    pytest.importorskip("triton")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", Path(__file__)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
