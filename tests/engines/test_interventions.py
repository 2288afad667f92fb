"""What Power's code does besides Adam's update, against formulas written out: decay to the initial
values, noise on the update, noise on the weights; and that a run that goes on is the same run."""

from __future__ import annotations

import pytest
import torch
from parity import assert_close, assert_same_bits, bucket_of, trained

import grokfast as gf
from grokfast.errors import UsageError
from grokfast.models import Transformer
from grokfast.noise import UPDATE_NOISE, WEIGHT_NOISE, normal
from grokfast.state import State
from grokfast.tasks import Algorithmic, Modular

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, SEED = 6, 11
LR, DECAY, EPS = 1e-2, 0.7, 1e-3
OPTIMIZERS = {
    "adam": {"kind": "adam"},
    "adam without decay": {"kind": "adam", "weight_decay": 0.0},
    "to the initial values": {"decay_towards": "initial"},
    "noise on the update": {"update_noise": 1.0},
    "noise on the weights": {"weight_noise": 0.05},
    "all, with warm-up": {
        "decay_towards": "initial", "update_noise": 0.4, "weight_noise": 0.02, "warmup": 4,
    },
    "adam with noise": {"kind": "adam", "update_noise": 0.3, "weight_noise": 0.02},
}  # fmt: skip


def experiment(**optimizer) -> gf.Experiment:
    return gf.Experiment(
        task=Modular(p=5),
        model=gf.Mlp(width=6, depth=2, embedding_dim=4, seed=SEED),
        loss="cross_entropy",
        optimizer=gf.Optimizer(**{"lr": LR, "weight_decay": DECAY, "eps": EPS} | optimizer),
        steps=STEPS,
        stop="never",
        evaluation=gf.Evaluation(train="after"),
        dtype="float64",
    )


def by_hand(e: gf.Experiment) -> list[torch.Tensor]:
    """Parameters after STEPS."""
    bucket = bucket_of(e)
    o, x, y = e.optimizer, bucket.x_train[0], bucket.y_train[0]
    net = bucket.module()
    names = [name for name, _ in net.named_parameters()]
    initial = [p[0] for p in State.initial(bucket).params]
    params = [p.clone() for p in initial]
    mean, square = ([torch.zeros_like(p) for p in params] for _ in range(2))

    def drawn(site, i):
        """One row of numbers for all parameters, in their order."""
        row = normal(torch.tensor([SEED]), torch.tensor(i), site, (sum(sizes),), torch.float64)[0]
        return [part.view(p.shape) for part, p in zip(row.split(sizes), params, strict=True)]

    sizes = [p.numel() for p in params]
    for i in range(1, STEPS + 1):
        lr = LR * min((i - 1) / o.warmup, 1) if o.warmup else LR
        weight_noise, update_noise = drawn(WEIGHT_NOISE, i), drawn(UPDATE_NOISE, i)
        seen = [
            (p + o.weight_noise * z).requires_grad_()
            for p, z in zip(params, weight_noise, strict=True)
        ]
        output = torch.func.functional_call(net, dict(zip(names, seen, strict=True)), (x,))
        gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(output, y), seen)
        for g, gradient in enumerate(gradients):
            if o.kind == "adam":
                gradient = gradient + o.weight_decay * params[g]
            mean[g] = o.beta1 * mean[g] + (1 - o.beta1) * gradient
            square[g] = o.beta2 * square[g] + (1 - o.beta2) * gradient**2
            direction = mean[g] / (1 - o.beta1**i)
            direction = direction / ((square[g] / (1 - o.beta2**i)).sqrt() + EPS)
            direction = direction + o.update_noise * update_noise[g]
            if o.kind == "adamw":
                aim = {"zero": 0.0, "initial": initial[g]}[o.decay_towards]
                direction = direction + o.weight_decay * (params[g] - aim)
            params[g] = params[g] - lr * direction
    return params


@pytest.mark.parametrize("name", ["reference", "eager"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_the_update_is_that_of_the_formulas(name, case):
    e = experiment(**OPTIMIZERS[case])
    state = trained(name, bucket_of(e), STEPS)
    for ours, right in zip(state.params, by_hand(e), strict=True):
        torch.testing.assert_close(ours[0], right, rtol=1e-9, atol=1e-12)


def test_every_kind_of_noise_draws_numbers_of_its_own():
    cases = [{}, {"update_noise": 0.1}, {"weight_noise": 0.1}]
    found = [trained("reference", bucket_of(experiment(**case)), 2).params for case in cases]
    moved = [(a - b).flatten() for k in (1, 2) for a, b in zip(found[k], found[0], strict=True)]
    assert all(bool((move != 0).any()) for move in moved)
    sites = [UPDATE_NOISE, WEIGHT_NOISE, 0, 1]
    step = torch.tensor(1)
    numbers = [normal(torch.tensor([SEED]), step, s, (8,), torch.float64) for s in sites]
    assert len(torch.stack(numbers).unique()) == 8 * len(sites)


@pytest.mark.parametrize("name", ["reference", "eager"])
def test_what_is_evaluated_has_no_noise(name):
    e = experiment(weight_noise=0.3).replace(**{"record.curves": "evaluated"})
    bucket = bucket_of(e)
    state = trained(name, bucket, STEPS)
    net = bucket.module()
    with torch.no_grad():
        for p, own in zip(net.parameters(), state.params, strict=True):
            p.copy_(own[0])
        loss = torch.nn.functional.cross_entropy(net(bucket.x_val[0]), bucket.y_val[0])
        correct = (net(bucket.x_train[0]).argmax(1) == bucket.y_train[0]).sum()
    assert float(state.val_loss[0, -1]) == pytest.approx(float(loss), rel=1e-6)
    assert int(state.train_correct[0]) == int(correct)


@pytest.mark.parametrize("name", ["reference", "eager"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_run_that_goes_on_is_the_same_run_to_the_bit(name, case):
    e = experiment(**OPTIMIZERS[case])
    bucket = bucket_of(e, e.replace(model_seed=3, lr=1e-3))
    assert_same_bits(trained(name, bucket, 2, 3, STEPS), trained(name, bucket, STEPS))


def transformers() -> list[gf.Experiment]:
    """Three in one bucket, with everything that draws."""
    e = gf.Experiment(
        task=Algorithmic(operation="x+y", p=5, fraction=0.6),
        model=Transformer(width=8, heads=2, feedforward=12, dropout=0.2),
        optimizer=gf.Optimizer(
            weight_decay=1.0, beta2=0.98, warmup=3, decay_towards="initial", update_noise=0.1,
            weight_noise=0.01,
        ),
        batch_size=4,
        batches=gf.Batches(order="fixed", remainder="short"),
        steps=6,
        stop="never",
        evaluation=gf.Evaluation(train="after", schedule="every-steps", every=3),
    )  # fmt: skip
    return [e.replace(model_seed=seed, data_seed=seed) for seed in range(3)]


@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer.kind": "adam", "optimizer.decay_towards": "zero"}]
)
def test_transformers_with_all_of_it_go_on_and_are_those_of_the_reference(optimizer):
    """In float64; eps as in the other tests, or AdamW would enlarge roundings by lr / eps."""
    changes = {"dtype": "float64", "optimizer.eps": EPS, **optimizer}
    bucket = bucket_of(*(e.replace(**changes) for e in transformers()))
    ours = trained("eager", bucket, 6)
    assert_same_bits(trained("eager", bucket, 1, 5, 6), ours)
    assert_close(ours, trained("reference", bucket, 6), rtol=1e-10)


def test_transformers_go_on_to_the_same_bits_whatever_is_trained_beside():
    bucket = bucket_of(*transformers())
    whole = trained("reference", bucket, 6)
    assert_same_bits(trained("reference", bucket, 1, 5, 6), whole)
    alone = trained("reference", bucket_of(transformers()[1]), 6)
    assert_same_bits(alone, whole, slice(0, 1), slice(1, 2))
    assert (whole.step == 6).all()
    assert whole.params[0].isfinite().all()


def test_the_first_update_of_a_warm_up_changes_nothing():
    (first, *_) = transformers()
    bucket = bucket_of(first)
    before, after = State.initial(bucket), trained("reference", bucket, 1)
    assert all(torch.equal(a, b) for a, b in zip(before.params, after.params, strict=True))
    assert any(bool(slot.any()) for slot in after.exp_avg)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "adam", "decay_towards": "initial"}, "is for the decay of adamw, but"),
        ({"kind": "sgd", "decay_towards": "initial"}, "but optimizer.kind is 'sgd'"),
        ({"update_noise": -0.1}, "optimizer.update_noise is -0.1; give a finite value of 0.0 or"),
        ({"weight_noise": float("inf")}, "optimizer.weight_noise is inf"),
        ({"decay_towards": "nowhere"}, "optimizer.decay_towards is 'nowhere'; give one of zero"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(fields, says):
    with pytest.raises(UsageError, match=says):
        experiment(**fields)
