"""Hinge, sign, and a decay that changes once a model has memorised: by the reference as in a loop
written by hand, by other engines as by the reference, alone or in a grid, at once or in parts."""

from __future__ import annotations

import pytest
import torch
from parity import assert_close, assert_same_bits, bucket_of, engine_of, trained
from torch.utils.data import DataLoader, TensorDataset

import grokfast as gf
from grokfast.errors import UsageError
from grokfast.measuring import count_correct
from grokfast.outcomes import CURVES
from grokfast.state import State
from grokfast.tasks import Addition, Modular, Parity

pytestmark = pytest.mark.usefixtures("one_thread")

#: 60 samples in batches of 16, the last of 12.
PER_EPOCH, EPOCHS = 4, 40


def experiment(**changes) -> gf.Experiment:
    """A small one of the family in float64, which memorises after about ten epochs."""
    return gf.Experiment(
        task=Parity(n=10, train_size=60, val_size=50),
        model=gf.Mlp(width=30, depth=2, activation="relu", output_bias=False, seed=None),
        loss="hinge",
        predict="sign",
        optimizer=gf.Optimizer(kind="sgd", lr=0.1, weight_decay=0.01),
        batch_size=16,
        batches=gf.Batches(remainder="short"),
        steps=PER_EPOCH * EPOCHS,
        stop="never",
        evaluation=gf.Evaluation(train="after", train_loss="after", initial=True),
        phase=gf.PhaseRule(threshold=1.0),
        record=gf.Recording(curves="evaluated"),
        dtype="float64",
    ).replace(**changes)


#: Decays after memorising: one that changes nothing, one of 0, none at all, small and large ones.
AFTER = (0.01, 0.0, None, 0.1, 1.0)


def cells(**changes) -> list[gf.Experiment]:
    """Of two seeds each."""
    return [
        experiment(data_seed=seed, **{"optimizer.weight_decay_memorised": decay}, **changes)
        for decay in AFTER
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def bucket():
    return bucket_of(*cells())


@pytest.fixture(scope="module")
def truth(bucket):
    return trained("reference", bucket, PER_EPOCH * EPOCHS)


def by_hand(cell: gf.Experiment) -> tuple[dict[str, list[float]], int, list[torch.Tensor]]:
    """The loop as the authors of the family would write it: curves from epoch 0, the epoch that
    memorised, and the trained parameters."""
    data, o = cell.task.build(), cell.optimizer
    torch.manual_seed(cell.task.seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 30), torch.nn.ReLU(), torch.nn.Linear(30, 1, bias=False)
    ).double()
    sets = {
        "train": (data.x_train.double(), 2.0 * data.y_train - 1),
        "val": (data.x_val.double(), 2.0 * data.y_val - 1),
    }
    batches = DataLoader(TensorDataset(*sets["train"]), cell.batch_size, shuffle=True)
    validation = DataLoader(TensorDataset(*sets["val"]), 1000)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=o.lr, weight_decay=o.weight_decay, momentum=o.momentum
    )
    curves: dict[str, list[float]] = {name: [] for name in CURVES}

    @torch.no_grad()
    def evaluate() -> bool:
        for name, (x, sign) in sets.items():
            margin = sign * net(x)[:, 0]
            curves[f"{name}_loss"].append(float(torch.clamp(1 - margin, min=0).mean()))
            curves[f"{name}_acc"].append(float((margin > 0).double().mean()))
        return curves["train_acc"][-1] == 1

    evaluate()
    memorised = -1
    for epoch in range(1, cell.steps // PER_EPOCH + 1):
        for x, sign in batches:
            optimizer.zero_grad()
            torch.relu(1 - sign * net(x)[:, 0]).mean().backward()
            optimizer.step()
        list(validation)  # whose iterator draws a number, too
        if evaluate() and memorised < 0:
            memorised = epoch
            if o.weight_decay_memorised is not None:
                optimizer.param_groups[0]["weight_decay"] = o.weight_decay_memorised
    return curves, memorised, [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("m", range(2 * len(AFTER)))
def test_the_reference_is_the_loop_written_by_hand(bucket, truth, m):
    curves, memorised, parameters = by_hand(cells()[m])
    assert 1 < memorised < EPOCHS - 10
    assert int(truth.t_train[m]) == PER_EPOCH * memorised
    for name, values in curves.items():
        kept = truth.curves[name][m].double()
        torch.testing.assert_close(kept, torch.tensor(values).double(), rtol=1e-6, atol=1e-7)
    for own, right in zip(truth.params, parameters, strict=True):
        torch.testing.assert_close(own[m], right, rtol=1e-11, atol=1e-13)


def test_the_change_moves_every_step_after_the_one_that_memorised_and_none_before(bucket, truth):
    unchanged = AFTER.index(None)
    for k, decay in enumerate(AFTER):
        for seed in range(2):
            m, same = 2 * k + seed, 2 * unchanged + seed
            assert truth.t_train[m] == truth.t_train[same]
            epoch = int(truth.t_train[m]) // PER_EPOCH
            ours, theirs = truth.train_loss[m], truth.train_loss[same]
            assert torch.equal(ours[: epoch + 1], theirs[: epoch + 1])
            moved = not torch.equal(ours[epoch + 1 :], theirs[epoch + 1 :])
            assert moved == (decay not in (None, 0.01))
            assert decay != 1.0 or bool((ours[epoch + 1 :] != theirs[epoch + 1 :]).all())


def test_float64_parity_over_the_event(bucket, truth):
    # A relu or a hinge that rounding switches on elsewhere would move a gradient by a whole sample.
    assert_close(trained("eager", bucket, PER_EPOCH * EPOCHS), truth, rtol=1e-11)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.momentum": 0.9},
        {"optimizer.warmup": 20},
        {"optimizer.kind": "adamw", "lr": 3e-2, "optimizer.eps": 1e-3},
        {"optimizer.kind": "adamw", "lr": 3e-2, "optimizer.warmup": 20, "optimizer.eps": 1e-3},
        {"model.output_bias": True},
        {"batch_size": 0, "lr": 0.3},
        {"evaluation.train_loss": "before"},
        {"loss": "mse", "lr": 0.02},
        {"optimizer.encoder": "all-but-last", "optimizer.encoder_lr": 0.05},
    ],
    ids=str,
)
def test_the_event_goes_with_every_optimizer_and_batch(changes):
    """Both paths of the lockstep engine: gradients by formulas, and by autograd."""
    bucket = bucket_of(*cells(**{"steps": 60, "phase.threshold": 0.7} | changes)[::2])
    truth = trained("reference", bucket, 60)
    assert 0 < int(truth.t_train.max()) < 52
    assert len(truth.params[0].flatten(1).norm(dim=1).unique()) == len(AFTER) - 1
    assert_close(trained("eager", bucket, 60), truth, rtol=1e-9)


@pytest.mark.parametrize("name", ["reference", "eager"])
def test_parts_that_end_at_or_around_the_event_give_the_bits_of_the_whole(truth, name):
    event, few = int(truth.t_train[0]), bucket_of(*cells()[4:7])
    before = trained(name, few, event - 1)
    whole = trained(name, few, event, event + 11, state=before.clone())
    assert bool((whole.t_train == event).any())
    for until in (event, event + 1, event + PER_EPOCH):
        parts = trained(name, few, until, state=before.clone())
        trained(name, few, event + 11, state=parts)
        if name == "reference":
            assert_same_bits(parts, whole)
        assert_close(parts, whole, rtol=1e-12)


def test_a_cell_is_the_same_alone_and_among_others(bucket, truth):
    for m in (0, 3, 5, 8):
        alone = trained("reference", bucket_of(cells()[m]), PER_EPOCH * EPOCHS)
        assert_same_bits(alone, truth, there=slice(m, m + 1))


def test_a_run_goes_on_from_its_file_across_the_event(tmp_path):
    grid = gf.Grid(experiment=experiment(**{"optimizer.weight_decay_memorised": 0.5})).grid(
        data_seed=[1, 2]
    )
    options = {"engine": "reference", "device": "cpu", "threads": 1, "progress": False}
    whole = gf.run(grid, out=tmp_path / "whole.h5", **options)
    first = int(whole["t_train"].min()) + 2 * PER_EPOCH
    out = tmp_path / "parts.h5"
    gf.run(grid.grid(steps=first), out=out, **options)
    parts = gf.run(grid, out=out, **options)
    assert parts["step"].tolist() == [PER_EPOCH * e for e in range(EPOCHS + 1)]
    for name in CURVES:
        assert parts[name].tobytes() == whole[name].tobytes(), name
        assert not torch.from_numpy(parts[name]).isnan().any()
    again = gf.Results.load(out)
    assert again.grid.experiment.optimizer.weight_decay_memorised == 0.5


def test_step_0_of_the_curves_is_the_initial_state(bucket):
    state = State.initial(bucket)
    assert bucket.curve_steps[0] == 0 and int(state.t_train.max()) == -1
    cell = bucket.cell
    for m in (0, 1):
        curves, _, _ = by_hand(cells(steps=PER_EPOCH)[m])
        for name in CURVES:
            assert float(state.curves[name][m, 0]) == pytest.approx(curves[name][0], rel=1e-6)
    assert bool(state.train_loss[:, 1:].isnan().all())
    without = bucket_of(cell.replace(**{"evaluation.initial": False}))
    assert without.curve_steps.tolist() == bucket.curve_steps.tolist()[1:]
    none = {"record.curves": "log-spaced", "record.curve_points": 0}
    assert not len(bucket_of(cell.replace(**none)).curve_steps)


def test_of_tokens_and_with_running_statistics_there_is_an_initial_state_too():
    model = gf.Mlp(width=5, depth=2, one_hot=True, bias=False, dropout=0.5, norm="batch")
    e = gf.Experiment(
        task=Modular(p=5), model=model, evaluation=gf.Evaluation(initial=True), dtype="float64"
    )
    bucket = bucket_of(e.replace(data_seed=1), e.replace(model_seed=4))
    state = State.initial(bucket)
    for m in range(2):
        net = bucket.module().eval()
        with torch.no_grad():
            for p, own in zip(net.parameters(), state.params, strict=True):
                p.copy_(own[m])
            d = int(bucket.data_index[m])
            loss = torch.nn.functional.cross_entropy(net(bucket.x_val[d]), bucket.y_val[d])
        assert float(state.val_loss[m, 0]) == pytest.approx(float(loss), rel=1e-6)


def test_an_output_of_0_or_nan_is_wrong_for_both_classes():
    output = torch.tensor([[0.0], [-0.0], [1e-30], [-1e-30], [torch.nan], [torch.inf]])
    targets = torch.tensor([[-1.0], [1.0]])
    cell = experiment()
    negative, positive = (torch.full((6,), c) for c in (0, 1))
    assert count_correct(cell, output, positive, targets) == 2
    assert count_correct(cell, output, negative, targets) == 1
    from grokfast.engines.lockstep import Spec
    from grokfast.engines.lockstep import count_correct as stacked

    spec = Spec.of(bucket_of(cell))
    both = output.expand(2, 6, 1)
    for y, right in ((positive, 2), (negative, 1)):
        assert stacked(spec, both, y[None], targets[None]).tolist() == [right] * 2


def test_a_collapsed_float32_net_is_wrong_everywhere():
    """Its outputs underflow to exactly 0, of which no sign is right: below chance."""
    e = experiment(dtype="float32", lr=0.5, weight_decay=1.0, steps=200)
    for name in ("reference", "eager"):
        state = trained(name, bucket_of(e), 200)
        assert int(state.train_correct[0]) == int(state.val_correct[0]) == 0
    state = trained("reference", bucket_of(e.replace(dtype="float64")), 200)
    assert int(state.train_correct[0]) > 30


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer.weight_decay_memorised": -1.0}, "is -1.0; give a finite .*, or none"),
        ({"optimizer.weight_decay_memorised": float("nan")}, "is nan; give a finite .*, or none"),
        (
            {"optimizer.weight_decay_memorised": 0.1, "evaluation.train": "running",
             "evaluation.train_loss": "before"},
            "weight_decay_memorised is 0.1, but a running accuracy .* evaluation.train=after",
        ),
        ({"evaluation.train": "running"}, "train_loss=after goes with evaluation.train=after"),
        ({"batch_size": 61}, "batch_size 61 is more than the 60 training samples"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(changes, says):
    with pytest.raises(UsageError, match=says) as caught:
        bucket_of(experiment(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Modular(p=5), "has 5 classes and 5 outputs"),
        (Addition(), "gives no dense targets"),
    ],
)
def test_signs_need_two_classes_with_opposite_targets(task, says):
    e = gf.Experiment(task=task, model=gf.Mlp(embedding_dim=3), loss="mse", predict="sign")
    with pytest.raises(UsageError, match=says):
        bucket_of(e)


def test_one_output_has_no_largest():
    with pytest.raises(UsageError, match="2 classes, .* of 1 outputs, of which predict=argmax"):
        bucket_of(experiment(predict="argmax"))


@pytest.mark.parametrize("name", ["native", "triton"])
def test_engines_of_formulas_train_it_as_the_reference_or_refuse_it_by_name(name):
    if name == "native":
        pytest.importorskip("grokfast._native")
    else:
        from grokfast.engines.support import unsupported
    bucket = bucket_of(*cells())
    reason = engine_of(name).unsupported(bucket) if name == "native" else unsupported(name, bucket)
    if reason is None:
        ours = trained(name, bucket, PER_EPOCH * EPOCHS)
        assert_close(ours, trained("reference", bucket, PER_EPOCH * EPOCHS), rtol=1e-11)
    else:
        assert "model.output_bias False" in reason
