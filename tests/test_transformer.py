"""The transformer: torch's own modules with the same weights, the published fingerprint, fields."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from parity import bucket_of, trained
from torch import nn
from torch.nn.functional import cross_entropy

import grokfast as gf
from grokfast.bucketing import initial_model
from grokfast.errors import UsageError
from grokfast.models import Shape, Transformer
from grokfast.models.decoder import Decoder, sinusoidal
from grokfast.noise import dropout_mask
from grokfast.tasks import Addition, Algorithmic, Modular

pytestmark = pytest.mark.usefixtures("one_thread")

DIVISION, S5 = Algorithmic(), Algorithmic(operation="x.y", fraction=0.5)
SHAPE = Shape(inputs=4, outputs=9, vocabulary=9)
SMALL = {"width": 8, "heads": 2, "feedforward": 12}


def net_of(shape: Shape = SHAPE, seed: int = 0, **fields) -> Decoder:
    """In float64 and with norms that do something, as after training."""
    torch.manual_seed(seed)
    net = Transformer(**SMALL | fields).build(shape).double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.ndim == 1:
                p.copy_(torch.randn(p.shape, dtype=p.dtype) / 4 + ("norm" in name))
    return net


def tokens(shape: Shape = SHAPE, rows: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(shape.vocabulary, (rows, shape.inputs), generator=generator)


def torchs_encoder(
    width: int, heads: int, feedforward: int, depth: int, norm: str = "post", **more
):
    layer = nn.TransformerEncoderLayer(
        width, heads, feedforward, dropout=0.0, batch_first=True, norm_first=norm == "pre", **more
    )
    final = nn.LayerNorm(width) if norm == "pre" else None
    return nn.TransformerEncoder(layer, depth, norm=final, enable_nested_tensor=False)


def torchs_logits(table, encoder, x, vocabulary):
    h = table[x] + table[vocabulary:]
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=h.dtype)
    return encoder(h, mask=mask)[:, -1] @ table[:vocabulary].T


@pytest.mark.parametrize(("task", "parameters"), [(DIVISION, 409_728), (S5, 412_672)])
def test_the_reproduction_starts_as_torchs_own_modules_do(task, parameters):
    """Fingerprint: "=" everywhere, so not one is right, and a loss of tens."""
    d = task.build()
    x, y = d.x_train[:512], d.y_train[:512]
    losses = []
    for seed in range(5):
        net = initial_model(Transformer(seed=seed), d).module
        torch.manual_seed(seed)
        embedding = nn.Embedding(d.vocabulary + 4, 128)
        encoder = torchs_encoder(128, 4, 512, 2)
        theirs = {"embedding.weight": embedding.weight, **dict(encoder.named_parameters())}
        ours = dict(net.named_parameters())
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert sum(p.numel() for p in ours.values()) == parameters
        assert all(
            torch.equal(p, ours[name.replace(".0.", ".1.")])
            for name, p in ours.items()
            if name.startswith("layers.0.")
        )
        with torch.no_grad():
            output = net.eval()(x)
        assert (output.argmax(1) == d.num_classes - 1).all()
        assert not (output.argmax(1) == y).any()
        losses.append(float(cross_entropy(output, y)))
    # The logit of "=" is about |E|^2 / sqrt(2), of a normal vector with 128 components: 57 to 97
    # in 24 seeds of torch's own modules.
    assert 50 < statistics.median(losses) < 80
    assert all(45 < loss < 110 for loss in losses)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_network_is_torchs_encoder_with_the_same_weights(norm, activation, bias, depth):
    net = net_of(norm=norm, activation=activation, bias=bias, depth=depth, same_layers=False)
    encoder = torchs_encoder(8, 2, 12, depth, norm, activation=activation).double()
    weights = {k: v for k, v in net.state_dict().items() if k != "embedding.weight"}
    with torch.no_grad():
        for name, p in encoder.named_parameters():  # without biases, theirs are 0
            p.copy_(weights.get(name, torch.zeros_like(p)))
    x = tokens()
    right = torchs_logits(net.embedding.weight, encoder, x, SHAPE.vocabulary)
    right.square().sum().backward()
    theirs = {name: p.grad for name, p in encoder.named_parameters()}
    table = net.embedding.weight.grad.clone()
    net.zero_grad()
    for mode in (net.train(), net.eval()):
        torch.testing.assert_close(mode(x), right, rtol=1e-12, atol=1e-12)
    net.train()(x).square().sum().backward()
    for name, p in net.named_parameters():
        found = table if name == "embedding.weight" else theirs[name]
        torch.testing.assert_close(p.grad, found, rtol=1e-10, atol=1e-10)


def by_hand(net: Decoder, h, masks=lambda h, site: h):
    """Blocks without norms, written out, of embeddings ``[B, K, width]``."""
    p = dict(net.named_parameters())
    heads, length = net.model.heads, h.shape[1]
    for n in range(net.model.depth):
        own = {name.removeprefix(f"layers.{n}."): t for name, t in p.items()}
        q, k, v = (h @ own["self_attn.in_proj_weight"].T + own["self_attn.in_proj_bias"]).chunk(
            3, 2
        )
        q, k, v = (t.unflatten(2, (heads, -1)) for t in (q, k, v))  # [B, K, heads, width / heads]
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[3])
        for i in range(length):
            scores[:, :, i, i + 1 :] = -math.inf
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(3), v).flatten(2)
        mixed = mixed @ own["self_attn.out_proj.weight"].T + own["self_attn.out_proj.bias"]
        h = h + masks(mixed, 2 * n)
        hidden = (h @ own["linear1.weight"].T + own["linear1.bias"]).clamp(min=0)
        h = h + masks(hidden @ own["linear2.weight"].T + own["linear2.bias"], 2 * n + 1)
    return h


def test_without_norms_only_the_branches_are_left():
    net = net_of(norm="none")
    table = net.embedding.weight
    right = by_hand(net, table[tokens()] + table[9:])[:, -1] @ table[:9].T
    torch.testing.assert_close(net(tokens()), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("positions", ["learned-rows", "learned", "sinusoidal", "none"])
def test_positions_and_a_head_of_its_own(positions):
    shape = Shape(inputs=4, outputs=5, vocabulary=9)
    net = net_of(shape, norm="none", positions=positions, tied=False)
    p = dict(net.named_parameters())
    assert p["head.weight"].shape == (5, 8)
    assert p["embedding.weight"].shape == (13 if positions == "learned-rows" else 9, 8)
    assert ("positions.weight" in p) == (positions == "learned")
    assert not list(net.buffers())
    added = {
        "learned-rows": p["embedding.weight"][9:],
        "learned": p.get("positions.weight"),
        "sinusoidal": torch.tensor(
            [
                [
                    (math.cos if i % 2 else math.sin)(place / 10000 ** ((i - i % 2) / 8))
                    for i in range(8)
                ]
                for place in range(4)
            ],
            dtype=torch.float64,
        ),
        "none": torch.zeros(4, 8),
    }[positions]
    right = by_hand(net, p["embedding.weight"][tokens()] + added)[:, -1] @ p["head.weight"].T
    torch.testing.assert_close(net(tokens()), right, rtol=1e-12, atol=1e-12)


def test_fixed_positions_differ_from_one_another():
    table = sinusoidal(5, 7)
    assert table.shape == (5, 7)
    assert len({tuple(row) for row in table.tolist()}) == 5


def test_dropout_is_of_what_the_branches_add_and_a_function_of_seed_and_step():
    net = net_of(norm="none", dropout=0.4).train()
    x = tokens()
    with pytest.raises(RuntimeError, match="noise"):
        net(x)
    net.noise = (5, 17)

    def masks(h, site):
        return h * dropout_mask(0.4, torch.tensor([5]), torch.tensor(17), site, h.shape, h.dtype)[0]

    table = net.embedding.weight
    right = by_hand(net, table[x] + table[9:], masks)[:, -1] @ table[:9].T
    assert torch.equal(net(x), net(x))
    torch.testing.assert_close(net(x), right, rtol=1e-12, atol=1e-12)
    outputs = [net(x)]
    for net.noise in ((5, 18), (6, 17)):
        outputs.append(net(x))
    outputs.append(net.eval()(x))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    assert not any(torch.equal(outputs[a], outputs[b]) for a, b in pairs)


def test_initial_values():
    big = {"width": 64, "heads": 1, "feedforward": 64, "norm": "pre"}
    usual, other, apart, twice = (
        dict(initial_model(Transformer(**big | more), DIVISION.build()).module.named_parameters())
        for more in ({}, {"init": "normal"}, {"same_layers": False}, {"init_scale": 2.0})
    )
    for name, p in usual.items():
        norm = "norm" in name
        assert torch.equal(twice[name], p if norm else 2 * p)
        if norm:
            assert torch.equal(other[name], p)
        elif p.ndim == 1:
            assert not other[name].any()
        else:
            assert (
                abs(float(other[name].detach().std()) * 8 - 1) < 0.06
            )  # of 4,096 draws: 5 deviations
        if name.startswith("layers.1."):
            twin = name.replace(".1.", ".0.")
            assert torch.equal(other[name], other[twin])
            zero = "attn" in name and p.ndim == 1
            assert torch.equal(apart[name], apart[twin]) == (norm or zero)


VARIANTS = [
    {},
    {"positions": "none", "bias": False},
    {"tied": False, "norm": "pre", "depth": 1},
    {"tied": False, "positions": "learned", "norm": "none", "depth": 3, "feedforward": 1},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_what_is_stored_tells_the_shape_and_every_parameter_has_a_group(fields):
    shape = Shape(inputs=4, outputs=9 if fields.get("tied", True) else 5, vocabulary=9)
    model = Transformer(**SMALL | fields)
    tensors = dict(model.build(shape).named_parameters())
    assert model.shape_of(tensors) == shape
    groups = {name: model.group(name, shape) for name in tensors}
    assert groups["embedding.weight"] == "embedding"
    assert {name for name, group in groups.items() if group == "output"} == {
        name for name in tensors if name.startswith("head.")
    }
    assert 0 < model.least_parameters() < sum(p.numel() for p in tensors.values())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"heads": 3}, "model.heads is 3, which does not divide model.width, 128"),
        ({"heads": 0}, "model.heads is 0; give a finite value of 1 or more"),
        ({"depth": 0}, "depth is 0; give a finite value of 1 or more"),
        ({"feedforward": 2**20}, "model.feedforward is 1048576; give less than 2**20"),
        ({"dropout": 1.0}, "model.dropout is 1.0; give 0 <= dropout < 1"),
        ({"init_scale": math.inf}, "init_scale is inf"),
        ({"norm": "batch"}, "model.norm is 'batch'; give one of post, pre, none"),
        ({"loss_at": "answer-and-end"}, "without an end token"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_are_refused_in_one_line(fields, says):
    with pytest.raises(UsageError) as told:
        gf.Experiment(task=DIVISION, model=Transformer(**fields))
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("task", "fields", "says"),
    [
        (
            Algorithmic(p=5),
            {"context": 5},
            "gives 4 tokens a sample, but .* is 5; give model.context=4",
        ),
        (Addition(), {"context": 2}, "19 outputs and 10 tokens, but model.tied=true"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(task, fields, says):
    with pytest.raises(UsageError, match=says):
        bucket_of(gf.Experiment(task=task, model=Transformer(**SMALL | fields)))


def test_it_takes_no_dense_inputs():
    with pytest.raises(UsageError, match="'mnist' gives dense inputs"):
        Transformer().fits(Shape(inputs=784, outputs=10), "mnist")


def test_fractions_are_an_axis_of_one_run_and_modules_come_back():
    """Two data sets of other sizes, each with two models."""
    experiment = gf.Experiment(
        task=Algorithmic(operation="x*y", p=5),
        model=Transformer(**SMALL),
        optimizer=gf.Optimizer(lr=1e-2, weight_decay=1.0, warmup=2),
        steps=30,
        stop="never",
        evaluation=gf.Evaluation(schedule="every-steps", every=10, train="after"),
        record=gf.Recording(weights=True),
    )
    axes = {"task.fraction": (0.3, 0.6), "model.seed": (0, 1)}
    r = gf.run(gf.Grid(experiment=experiment, axes=axes), engine="reference", progress=False)
    assert r["steps_done"].tolist() == [30] * 4
    for fraction in (0.3, 0.6):
        d = Algorithmic(operation="x*y", p=5, fraction=fraction).build()
        for seed in (0, 1):
            net = r.module(model_seed=seed, **{"task.fraction": fraction})
            run = r.find(model_seed=seed, **{"task.fraction": fraction})
            with torch.no_grad():
                right = (net(d.x_train).argmax(1) == d.y_train).double().mean()
            assert float(r["final_train_acc"][run]) == pytest.approx(float(right))


def test_pairs_of_tokens_do_as_well():
    experiment = gf.Experiment(
        task=Modular(p=5), model=Transformer(**SMALL, context=2, tied=False), steps=2
    )
    assert trained("reference", bucket_of(experiment), 2).step.tolist() == [2]
