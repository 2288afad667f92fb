"""Each piece of the kernel alone, against plain torch in float64: values and every gradient."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from grokfast.kernels import Spec, Tiles
from grokfast.kernels.activation import activated, activation_gradient, keep
from grokfast.kernels.adamw import adamw, bias_corrections, coefficients
from grokfast.kernels.embedding import embedding_forward, embedding_update
from grokfast.kernels.layout import make_layout, pack, unpack
from grokfast.kernels.linear import linear_forward, linear_input_gradient, linear_update
from grokfast.kernels.loss import measure
from grokfast.kernels.train_steps import Packed
from plain_training import ACTIVATIONS, assert_as_good
from torch import Tensor

SMALL = Tiles(edge=16, depth=16, rows=16, warps=4, stages=1)
# 19 and 33 overhang: masks; 41 and 70 leave tails; 64 and 32 fit exactly.
TILED = (
    (SMALL, (5, 19, 33)),
    (Tiles(edge=32, depth=32, rows=32, warps=4, stages=2, anew=True), (5, 41, 70)),
    (Tiles(edge=32, depth=16, rows=16, warps=4, stages=1), (3, 64, 32)),
    (Tiles(edge=16, depth=32, rows=16, warps=4, stages=1), (40, 2, 41)),
)


def make_spec(sizes=(5, 19, 33), **fields):
    given = {
        "sizes": sizes,
        "activation": "tanh",
        "loss": "cross_entropy",
        "predict": "argmax",
        "num_train": 19,
        "num_val": 7,
        "batch_size": 19,
        "num_classes": sizes[-1],
    }
    return Spec(**{**given, **fields})


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def poisoned(tensor, rows, pitch, device):
    """[n, width] -> [rows, pitch], zero to the right (as the kernels keep it), NaN below."""
    out = torch.full((rows, pitch), float("nan"), dtype=tensor.dtype, device=device)
    out[: len(tensor)] = 0
    out[: len(tensor), : tensor.shape[1]] = tensor
    return out


@triton.jit
def activation_kernel(x, dy, y, dx, SIZE: tl.constexpr, SPEC: tl.constexpr):
    at = tl.arange(0, SIZE)
    kept = keep(tl.load(x + at), SPEC)
    tl.store(y + at, activated(kept, SPEC))
    tl.store(dx + at, activation_gradient(tl.load(dy + at), kept, SPEC))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_activation(name, dtype, device):
    x = torch.cat((4 * normal(480), torch.tensor([0.0, -0.0, 0.625, -0.625, 1e-30, 50, -50, 9.1])))
    x = torch.cat((x, normal(24) * 1e-4)).to(dtype)
    dy = normal(512, seed=1).to(dtype)

    def plain(dtype):
        leaf = x.to(dtype).clone().requires_grad_()
        y = ACTIVATIONS[name](leaf)
        y.backward(dy.to(dtype))
        return y.detach(), leaf.grad

    y, dx = torch.empty_like(x, device=device), torch.empty_like(x, device=device)
    spec = make_spec(activation=name)
    activation_kernel[(1,)](x.to(device), dy.to(device), y, dx, SIZE=512, SPEC=spec)
    for got, same, exact in zip((y, dx), plain(dtype), plain(torch.float64), strict=True):
        assert_as_good(got, same, exact)
    # Small arguments keep their relative accuracy, which the error of a maximum cannot show.
    small = x.abs() < 1e-3
    exact = plain(torch.float64)[0][small]
    normal_range = exact.abs().clamp(min=torch.finfo(dtype).tiny)  # a square may underflow
    error = (y.cpu()[small].double() - exact).abs() / normal_range
    assert error.max() < 4 * torch.finfo(dtype).eps


class Rates(NamedTuple):
    lr: Tensor
    weight_decay: Tensor


@triton.jit
def adamw_kernel(packed, rates, corrections, grad, SIZE: tl.constexpr, SPEC: tl.constexpr):
    at = tl.arange(0, SIZE)
    step = coefficients(rates, corrections, 1, 2, 3, grad.dtype.element_ty)
    adamw(packed, at, at < SIZE - 3, tl.load(grad + at), step, SPEC)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_adamw(dtype, device):
    spec = make_spec(beta1=0.8, beta2=0.97, eps=1e-6)
    table = [[[0, 0, 0], [0, 0, 3e-2]], [[0, 0, 0], [0, 0, 0.7]]]  # lr, weight_decay [G, M]
    rates = Rates(*torch.tensor(table, dtype=torch.float64, device=device))
    size = 64
    start = normal(size)
    grads = [normal(size, seed=s) * 10.0 ** (s - 4) for s in range(6)]

    def plain(dtype):
        p = start.to(dtype).clone().requires_grad_()
        made = torch.optim.AdamW([p], lr=3e-2, weight_decay=0.7, betas=(0.8, 0.97), eps=1e-6)
        for grad in grads:
            p.grad = grad.to(dtype)
            made.step()
        return p.detach(), made.state[p]["exp_avg"], made.state[p]["exp_avg_sq"]

    zeros = torch.zeros(size, dtype=dtype)
    packed = Packed(*(t.clone().to(device) for t in (start.to(dtype), zeros, zeros)))
    table = bias_corrections(1, len(grads), 0.8, 0.97).to(device)
    for row, grad in zip(table, grads, strict=True):
        grad = grad.to(device=device, dtype=dtype)
        adamw_kernel[(1,)](packed, rates, row, grad, SIZE=size, SPEC=spec)
    for got, same, exact in zip(packed, plain(dtype), plain(torch.float64), strict=True):
        assert_as_good(got[:-3], same[:-3], exact[:-3])
    assert torch.equal(packed.p[-3:].cpu(), start.to(dtype)[-3:])  # masked: untouched


def test_bias_corrections_know_only_their_step():
    whole = bias_corrections(1, 100, 0.9, 0.999)
    assert torch.equal(whole[40:47], bias_corrections(41, 47, 0.9, 0.999))
    assert torch.allclose(whole[0], torch.tensor([10.0, 1e-3**-0.5], dtype=torch.float64))


@triton.jit
def linear_kernel(
    x, index, packed, y, dy, dx, rate, NUM: tl.constexpr, LAYER: tl.constexpr, LAYOUT: tl.constexpr
):
    GATHER: tl.constexpr = LAYER == 0
    linear_forward(x, index, packed.p, y, 7, NUM, GATHER, LAYER, LAYOUT)
    if LAYER > 0:
        linear_input_gradient(dy, packed.p, x, dx, 7, NUM, LAYER, LAYOUT)
    tl.debug_barrier()
    dtype: tl.constexpr = x.dtype.element_ty
    step = (tl.load(rate).to(dtype), tl.load(rate + 1).to(dtype), tl.load(rate + 2).to(dtype))
    linear_update(dy, x, index, packed, step, step, 7, NUM, GATHER, LAYER, LAYOUT)


KEPT = {"tanh": torch.tanh, "square": lambda x: x}  # of the activation of x


@pytest.mark.parametrize("layer", (0, 1))
@pytest.mark.parametrize(("activation", "bias"), (("tanh", True), ("square", False)))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize(("tiles", "sizes"), TILED)
def test_linear(tiles, sizes, activation, bias, layer, dtype, device):
    """Forward, dx and updates of one layer; the first gathers its rows, the last is linear.

    The first moment after one step is (1 - beta1) times the gradient.
    """
    name = str(dtype).removeprefix("torch.")
    spec = make_spec(sizes, dtype=name, activation=activation, bias=bias)
    layout = make_layout(spec, tiles)
    inputs, outputs = spec.sizes[layer : layer + 2]
    rows, batch = spec.num_train, torch.arange(spec.num_train)
    shapes = spec.parameters.values()
    params = [normal(1, *shape, seed=s).to(dtype) for s, shape in enumerate(shapes)]
    zeros = [torch.zeros_like(p) for p in params]
    own = slice(layer * (1 + bias), (layer + 1) * (1 + bias))
    x = normal(rows, inputs, seed=8)
    dy = normal(rows, outputs, seed=9)
    kept = KEPT[activation](x) if layer else x
    if layer == 0:
        batch = torch.randperm(rows, generator=torch.Generator().manual_seed(0))

    def plain(dtype):
        leaves = [p[0].to(dtype).clone().requires_grad_() for p in params[own]]
        before = x[batch].to(dtype).requires_grad_()
        y = F.linear(ACTIVATIONS[activation](before) if layer else before, *leaves)
        y.backward(dy.to(dtype))
        out = y.detach() if layer else KEPT[activation](y.detach())
        return [out, *(leaf.grad for leaf in leaves), *([before.grad] if layer else [])]

    def buffer(tensor, pitch):
        return poisoned(tensor.to(dtype), rows + 20, pitch, device)

    cells = torch.zeros(1, dtype=torch.int64)
    packed = Packed(*(pack(t, cells, layout).to(device) for t in (params, zeros, zeros)))
    i_pitch, o_pitch = layout.pitch[layer : layer + 2]
    y, dx = buffer(dy * float("nan"), o_pitch), buffer(kept * float("nan"), i_pitch)
    rate = torch.tensor([0.1, 1.0, 1.0], dtype=torch.float64, device=device)
    linear_kernel[(1,)](
        buffer(kept, i_pitch), batch.int().to(device), packed, y, buffer(dy, o_pitch), dx, rate,
        NUM=rows, LAYER=layer, LAYOUT=layout,
    )  # fmt: skip
    moments = [torch.zeros_like(p) for p in params]
    unpack(packed.m.cpu(), moments, cells, layout)
    gradients = [10 * moment[0] for moment in moments[own]]
    got = [y[:rows, :outputs], *gradients, *([dx[:rows, :inputs]] if layer else [])]
    for one, same, exact in zip(got, plain(dtype), plain(torch.float64), strict=True):
        assert_as_good(one, same, exact)
    assert y[rows:].isnan().all() and (y[:rows, outputs:] == 0).all()
    del moments[own]
    assert all((m == 0).all() for m in moments)


@triton.jit
def embedding_kernel(tokens, index, packed, x, dx, rate, NUM: tl.constexpr, LAYOUT: tl.constexpr):
    embedding_forward(tokens, index, packed.p, x, 7, NUM, LAYOUT)
    dtype: tl.constexpr = x.dtype.element_ty
    step = (tl.load(rate).to(dtype), tl.load(rate + 1).to(dtype), tl.load(rate + 2).to(dtype))
    tl.debug_barrier()
    embedding_update(tokens, index, dx, packed, step, 7, NUM, LAYOUT)


@pytest.mark.parametrize("activate", (False, True))
@pytest.mark.parametrize("table", ((6, 1), (21, 18)))
def test_embedding(table, activate, device):
    spec = make_spec(
        sizes=(table[1], 3), embedding=table, activate_embedding=activate, num_tokens=3,
        dtype="float64", num_classes=3,
    )  # fmt: skip
    layout = make_layout(spec, SMALL)
    rows = spec.num_train
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randint(table[0], (rows, 3), generator=draw, dtype=torch.int32)
    weights = normal(*table).requires_grad_()
    gradient = normal(rows, table[1], seed=2)
    weights[tokens.long()].sum(dim=1).backward(gradient)

    params = [weights.detach()[None], normal(1, 3, table[1]), normal(1, 3)]
    zeros = [torch.zeros_like(p) for p in params]
    cells = torch.zeros(1, dtype=torch.int64)
    packed = Packed(*(pack(t, cells, layout).to(device) for t in (params, zeros, zeros)))
    x = torch.full((rows + 20, layout.pitch[0]), float("nan"), dtype=torch.float64, device=device)
    index = torch.arange(rows, dtype=torch.int32, device=device)
    rate = torch.tensor([0.1, 1.0, 1.0], dtype=torch.float64, device=device)
    dx = poisoned(gradient, rows + 20, layout.pitch[0], device)
    embedding_kernel[(1,)](tokens.to(device), index, packed, x, dx, rate, NUM=rows, LAYOUT=layout)
    expected = weights.detach()[tokens.long()].sum(dim=1)
    if activate:
        expected = expected.tanh()
    assert torch.allclose(x[:rows, : table[1]].cpu(), expected, rtol=1e-14)
    moments = [torch.zeros_like(p) for p in params]
    unpack(packed.m.cpu(), moments, cells, layout)
    assert torch.allclose(10 * moments[0][0], weights.grad, rtol=1e-13, atol=1e-14)


@triton.jit
def measure_kernel(
    y, dy, labels, index, targets, out,
    NUM_TRAIN: tl.constexpr, NUM_VAL: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    a, b, c, d = measure(y, dy, labels, index, targets, 7, NUM_TRAIN, NUM_VAL, LAYOUT)
    tl.store(out, a)
    tl.store(out + 1, b)
    tl.store(out + 2, c)
    tl.store(out + 3, d)


@pytest.mark.parametrize("predict", ("argmax", "nearest"))
@pytest.mark.parametrize("loss", ("cross_entropy", "mse"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_measure(loss, predict, dtype, device):
    spec = make_spec(
        sizes=(3, 18), loss=loss, predict=predict, dtype=str(dtype).removeprefix("torch.")
    )
    layout = make_layout(spec, SMALL)
    train, val, outputs = spec.num_train, spec.num_val, spec.sizes[-1]
    y = 3 * normal(train + val, outputs)
    y[2] = y[2].round()
    y[2, 5] = y[2, 9] = 20.0  # a tie: the first wins
    targets = normal(outputs, outputs, seed=1)
    labels = torch.arange(train + val, dtype=torch.int32).flip(0) % outputs
    index = torch.arange(train + val).flip(0)

    def plain(dtype):
        z, goal = y.to(dtype).clone().requires_grad_(), targets.to(dtype)
        want = labels[index].long()
        found = []
        for part in (slice(0, train), slice(train, None)):
            if loss == "mse":
                found.append(F.mse_loss(z[part], goal[want[part]]))
            else:
                found.append(F.cross_entropy(z[part], want[part]))
        found[0].backward()
        distance = torch.cdist(z.detach(), goal)
        guess = distance.argmin(dim=1) if predict == "nearest" else z.argmax(dim=1)
        hits = guess == want
        return torch.stack(found).detach(), z.grad[:train], hits[:train].sum(), hits[train:].sum()

    rows, pitch = train + val + 20, layout.pitch[-1]
    dy = torch.full((rows, pitch), float("nan"), dtype=dtype, device=device)
    out = torch.zeros(4, dtype=dtype, device=device)
    measure_kernel[(1,)](
        poisoned(y.to(dtype), rows, pitch, device), dy, labels.to(device),
        index.int().to(device), targets.to(device, dtype), out,
        NUM_TRAIN=train, NUM_VAL=val, LAYOUT=layout,
    )  # fmt: skip
    exact = plain(torch.float64)
    pairs = zip((out[[0, 2]], dy[:train, :outputs]), plain(dtype)[:2], exact[:2], strict=True)
    for got, same, truth in pairs:
        assert_as_good(got, same, truth)
    assert (out[1], out[3]) == exact[2:]
    assert (dy[:train, outputs:] == 0).all() and dy[train:].isnan().all()
