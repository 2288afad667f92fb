"""Transformers in stacked tensors: what the module computes, and its gradients, with less work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from grokfast.models import Shape, Transformer
from grokfast.models.decoder import Decoder
from grokfast.models.stacked import pick
from grokfast.models.stacked_decoder import StackedDecoder

pytestmark = pytest.mark.usefixtures("one_thread")

P = 9
#: All x o y =, with 7 for the operation and 8 for "=".
EQUATIONS = torch.tensor([[x, 7, y, 8] for x in range(7) for y in range(1, 7)])
FIELDS = {
    "the reproduction": {},
    "pre-norm": {"norm": "pre"},
    "no norm": {"norm": "none"},
    "no bias": {"bias": False},
    "untied": {"tied": False},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "no positions": {"positions": "none"},
    "gelu": {"activation": "gelu"},
    "one layer": {"depth": 1},
    "three layers": {"depth": 3, "norm": "pre"},
    "one head": {"heads": 1},
    "dropout": {"dropout": 0.3},
    "dropout, pre-norm, three layers": {"dropout": 0.1, "norm": "pre", "depth": 3},
}
#: Sequences with other common parts.
SEQUENCES = {
    "nothing in common": torch.randint(P, (20, 4), generator=torch.Generator().manual_seed(0)),
    "a common start": EQUATIONS[:, [1, 0, 2, 3]],
    "only the last varies": EQUATIONS[:, [1, 3, 3, 0]],
    "two tokens": EQUATIONS[:, [0, 3]],
    "one token": EQUATIONS[:, [0]],
    "all the same": EQUATIONS[:1].expand(5, -1),
    "five tokens": EQUATIONS[:, [0, 1, 1, 2, 3]],
}


def nets_of(model: Transformer, length: int, count: int = 3) -> list[Decoder]:
    """In float64 and with norms that do something, as after training."""
    nets = []
    for seed in range(count):
        torch.manual_seed(seed)
        net = model.build(Shape(inputs=length, outputs=P, vocabulary=P)).double()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) / 10)
        nets.append(net)
    return nets


def stack_of(nets: list[Decoder]) -> dict[str, Tensor]:
    named = [dict(net.named_parameters()) for net in nets]
    return {name: torch.stack([p[name].detach() for p in named]) for name in named[0]}


def assert_as_the_modules(model: Transformer, x: Tensor, training: bool) -> StackedDecoder:
    """Outputs and gradients of three networks that see the same tokens, and of three that each
    see their own."""
    nets = nets_of(model, x.shape[1])
    params = stack_of(nets)
    form = model.stacked(Shape(inputs=x.shape[1], outputs=P, vocabulary=P)).on(x[None])
    step = torch.tensor(5)
    noise = (torch.arange(len(nets)), step) if training else None
    orders = [torch.arange(len(x)), torch.arange(len(x)).flip(0), torch.arange(len(x)).roll(3)]
    for samples in (x[None], torch.stack([x[order] for order in orders])):
        labels = samples[:, :, 0].expand(len(nets), -1)  # any

        def total(params, samples=samples, labels=labels):
            output, buffers = form.forward(params, {}, samples, noise)
            assert buffers == {}
            loss = cross_entropy(output.flatten(0, 1), labels.flatten(), reduction="sum")
            return loss, output

        gradients, output = torch.func.grad(total, has_aux=True)(params)
        for m, net in enumerate(nets):
            net.train(training)
            net.noise = m, int(step)
            net.zero_grad()
            truth = net(samples[m % len(samples)])
            cross_entropy(truth, labels[m], reduction="sum").backward()
            torch.testing.assert_close(output[m], truth, rtol=1e-12, atol=1e-12)
            for name, p in net.named_parameters():
                torch.testing.assert_close(gradients[name][m], p.grad, rtol=1e-9, atol=1e-11)
    return form


@pytest.mark.parametrize("training", (True, False), ids=("training", "evaluation"))
@pytest.mark.parametrize("name", FIELDS)
def test_stacked_networks_compute_what_the_modules_do(name, training):
    fields = {"width": 16, "heads": 2, "feedforward": 24} | FIELDS[name]
    form = assert_as_the_modules(Transformer(**fields), EQUATIONS, training)
    assert form.constant == (None, 7, None, 8)


@pytest.mark.parametrize("name", SEQUENCES)
def test_whatever_sequences_have_in_common(name):
    x = SEQUENCES[name]
    model = Transformer(width=8, heads=2, feedforward=12, context=x.shape[1])
    form = assert_as_the_modules(model, x, False)
    assert form.constant == tuple(
        int(x[0, t]) if len(x[:, t].unique()) == 1 else None for t in range(x.shape[1])
    )


def test_products_are_of_few_rows(monkeypatch):
    """97 of 400 samples' worth: the saving is there, not only the result."""
    rows: list[int] = []
    multiply = torch.bmm

    def counted(a, b):
        rows.append(a.shape[1])
        return multiply(a, b)

    monkeypatch.setattr(torch, "bmm", counted)
    model = Transformer(width=8, heads=2, feedforward=12)
    params = stack_of(nets_of(model, 4))
    form = model.stacked(Shape(inputs=4, outputs=P, vocabulary=P)).on(EQUATIONS[None])
    form.forward(params, {}, EQUATIONS[None].repeat(1, 10, 1))
    samples = 10 * len(EQUATIONS)
    shared = 2 * P + 2 * samples  # x and o by value; y and = by sample
    of_layer_0 = [2 * P + 2, shared, shared, shared]  # x, o, y, = by token; then each position
    of_layer_1 = [samples, shared, samples, samples, samples]  # only = asks
    assert rows == [*of_layer_0, *of_layer_1, samples]


@pytest.mark.parametrize("name", ("the reproduction", "three layers", "dropout"))
def test_multiply_adds_are_those_of_the_products(name, monkeypatch):
    """And of attention, which is written out: 2 (t + 1) of its width for each row of position t."""
    done: list[int] = []
    multiply = torch.bmm

    def counted(a, b):
        done.append(a.shape[1] * a.shape[2] * b.shape[2])
        return multiply(a, b)

    monkeypatch.setattr(torch, "bmm", counted)
    model = Transformer(**{"width": 8, "heads": 2, "feedforward": 12} | FIELDS[name])
    shape = Shape(inputs=4, outputs=P, vocabulary=P)
    form = model.stacked(shape).on(EQUATIONS[None])
    x = EQUATIONS[None].repeat(1, 10, 1)
    samples, params = x.shape[1], stack_of(nets_of(model, 4))
    for training in (True, False):
        done.clear()
        noise = (torch.arange(3), torch.tensor(1)) if training else None
        form.forward(params, {}, x, noise)
        own = 2 * [samples if training and model.dropout else P] + 2 * [samples]
        attention = [own[t] * 2 * (t + 1) * 8 for t in range(4)]
        attention = (model.depth - 1) * sum(attention) + attention[-1]
        assert form.multiply_adds(samples, training) == sum(done) + attention


def test_forms_of_networks_that_differ_in_numbers_are_equal():
    """So that they share one compilation."""
    shape = Shape(inputs=4, outputs=P, vocabulary=P)
    one = Transformer(seed=1, init="normal", init_scale=2.0, same_layers=False).stacked(shape)
    assert one == Transformer().stacked(shape) and hash(one) == hash(Transformer().stacked(shape))
    assert one != Transformer(depth=1).stacked(shape)


def test_the_gradient_of_picked_rows_is_that_of_autograd():
    table = torch.randn(3, 5, 4, dtype=torch.float64)
    for index in (torch.tensor([[4, 0, 0, 2]]), torch.tensor([[4, 0], [1, 1], [2, 3]])):

        def plain(table, index=index):
            return table[torch.arange(3)[:, None], index].sin().sum()

        def ours(table, index=index):
            return pick(table, index).sin().sum()

        torch.testing.assert_close(torch.func.grad(ours)(table), torch.func.grad(plain)(table))
