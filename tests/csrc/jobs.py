"""Jobs for ``grokfast._native`` and the plain torch loop that they are checked against."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Shape:
    """One network and its data; every field has the meaning of the job's."""

    sizes: tuple[int, ...] = (1, 200, 200, 19)
    vocabulary: int | None = 10  # None: dense inputs
    tokens: int = 2
    train: int = 45
    val: int = 10
    batch: int | None = None  # None: the full training set
    classes: int = 19
    activation: str = "tanh"
    loss: str = "cross_entropy"
    predict: str = "argmax"
    dtype: str = "float64"
    models: int = 2
    epochs: int = 12
    bias: bool = True
    activate_embedding: bool = False
    train_accuracy: str = "running"
    short_batch: bool = False  # the remainder of an epoch is a batch, and not dropped
    output_bias: bool = True
    optimizer: str = "adamw"
    momentum: float = 0.0
    recorded_loss: str = "before"
    norm_every: int = 0  # steps between measurements of the first layer's norm; 0: none
    memorised: bool = False  # the decay changes once the training set has its time

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(self.train, self.batch or self.train)
        return whole + (self.short_batch and rest > 0)


# Sparse parity: one hidden layer and one output, no bias behind, minibatches with a short last one.
PARITY = Shape(
    (50, 131, 1),
    vocabulary=None,
    classes=2,
    train=44,
    val=100,
    batch=8,
    short_batch=True,
    activation="relu",
    loss="hinge",
    predict="sign",
    output_bias=False,
    optimizer="sgd",
    train_accuracy="after",
    recorded_loss="after",
    memorised=True,
    norm_every=4,
)


#: What each optimizer keeps beside a parameter.
SLOTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}

COUNTED = ("train", "val", "best_train", "best_val")


def make_job(shape: Shape, until: int, seed: int = 0, **changes) -> dict:
    """A job from its initial state; arrays are fresh."""
    rng = np.random.default_rng(seed)
    real = np.dtype(shape.dtype)
    m, d, n, v = shape.models, 2, shape.train, shape.val
    shapes = [] if shape.vocabulary is None else [(shape.vocabulary, shape.sizes[0])]
    for layer, (i, o) in enumerate(zip(shape.sizes[:-1], shape.sizes[1:], strict=True), 1):
        biased = shape.bias and (shape.output_bias or layer < len(shape.sizes) - 1)
        shapes += [(o, i), (o,)] if biased else [(o, i)]
    # Drawn in float32, so that both dtypes start from the same values.
    bound = [0.5 if len(s) < 2 or shape.vocabulary == s[0] else s[1] ** -0.5 for s in shapes]
    params = [
        rng.uniform(-b, b, (m, *s)).astype(np.float32).astype(real)
        for b, s in zip(bound, shapes, strict=True)
    ]
    if shape.vocabulary is None:
        x_train = rng.uniform(0, 1, (d, n, shape.sizes[0])).astype(np.float32).astype(real)
        x_val = rng.uniform(0, 1, (d, v, shape.sizes[0])).astype(np.float32).astype(real)
    else:
        x_train = rng.integers(0, shape.vocabulary, (d, n, shape.tokens), dtype=np.int32)
        x_val = rng.integers(0, shape.vocabulary, (d, v, shape.tokens), dtype=np.int32)
    targets = rng.standard_normal((d, shape.classes, shape.sizes[-1])).astype(np.float32)
    if shape.predict == "sign":
        targets = np.sign(targets)
    batch = shape.batch or n
    order = None
    if shape.batch is not None:
        order = np.stack([[rng.permutation(n) for _ in range(shape.epochs)] for _ in range(2)])
        order = order.astype(np.int32)
    curve = np.arange(1, until + 1, dtype=np.int64)
    curve = np.ascontiguousarray(curve[curve % shape.steps_per_epoch == 0])
    job = dict(
        dtype=shape.dtype,
        sizes=list(shape.sizes),
        embedding=None if shape.vocabulary is None else (shape.vocabulary, shape.sizes[0]),
        activation=shape.activation,
        activate_embedding=shape.activate_embedding,
        bias=shape.bias,
        output_bias=shape.output_bias,
        loss=shape.loss,
        predict=shape.predict,
        optimizer=shape.optimizer,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        momentum=shape.momentum,
        params=params,
        **{name: [np.zeros_like(p) for p in params] for name in SLOTS[shape.optimizer]},
        lr=np.ascontiguousarray(10 ** rng.uniform(-3.5, -2, (len(params), m))),
        weight_decay=np.ascontiguousarray(rng.uniform(0, 3, (len(params), m))),
        weight_decay_memorised=None,
        x_train=x_train,
        y_train=rng.integers(0, shape.classes, (d, n), dtype=np.int32),
        x_val=x_val,
        y_val=rng.integers(0, shape.classes, (d, v), dtype=np.int32),
        targets=targets.astype(real),
        num_classes=shape.classes,
        data_index=np.arange(m, dtype=np.int32) % d,
        batch_size=batch,
        order=order,
        order_index=np.arange(m, dtype=np.int32) % 2,
        first_epoch=0,
        steps_per_epoch=shape.steps_per_epoch,
        train_accuracy=shape.train_accuracy,
        recorded_loss=shape.recorded_loss,
        eval_steps=None,
        need_train=n + 1,
        need_val=v + 1,
        need_train_more=np.array([n // 4, n // 8], np.int64),
        need_val_more=np.array([v // 4, v // 8], np.int64),
        stop=False,
        step=np.zeros(m, np.int64),
        t_train=np.full(m, -1, np.int64),
        t_val=np.full(m, -1, np.int64),
        train_crossings=np.full((m, 2), -1, np.int64),
        val_crossings=np.full((m, 2), -1, np.int64),
        **{f"{k}_correct": np.full(m, -1, np.int64) for k in COUNTED},
        diverged_at=np.full(m, -1, np.int64),
        epoch_correct=np.zeros(m, np.int64),
        epoch_loss=np.zeros(m, np.float64),
        curve_steps=curve,
        **{
            k: np.full((m, len(curve)), np.nan, np.float32)
            for k in ("train_loss", "val_loss", "train_acc", "val_acc")
        },
        norm_steps=None,
        cells=np.arange(m, dtype=np.int32),
        until=until,
        threads=1,
        level=None,
        tick=None,
    )
    if shape.norm_every:
        job["norm_steps"] = np.arange(shape.norm_every, until + 1, shape.norm_every)
        job["spectral_norm"] = np.full((m, len(job["norm_steps"])), np.nan, np.float32)
    if shape.memorised:
        job["weight_decay_memorised"] = np.ascontiguousarray(rng.uniform(0, 3, (len(params), m)))
        job["need_train"] = n // 2
    job.update(changes)
    return job


def clone(job: dict) -> dict:
    """The same job with its own arrays."""
    tick = job["tick"]
    return copy.deepcopy({**job, "tick": None}) | {"tick": tick}


RESULTS = [
    *("params", "step", "t_train", "t_val", "diverged_at"),
    *("epoch_correct", "epoch_loss", "train_loss", "val_loss", "train_acc", "val_acc"),
    *("train_crossings", "val_crossings", *(f"{k}_correct" for k in COUNTED)),
]


def results(job: dict) -> dict[str, np.ndarray]:
    """Everything that training writes."""
    flat = {}
    norms = ["spectral_norm"] if "spectral_norm" in job else []
    for name in (*SLOTS[job["optimizer"]], *norms, *RESULTS):
        values = job[name]
        if isinstance(values, list):
            flat |= {f"{name}[{g}]": v for g, v in enumerate(values)}
        else:
            flat[name] = values
    return flat


def assert_same(a: dict, b: dict, cells=None) -> None:
    """Every result equal to the last bit, in all cells or in those listed."""
    for name, values in results(a).items():
        other = results(b)[name]
        if cells is not None:
            values, other = values[cells], other[cells]
        np.testing.assert_array_equal(
            values.view(np.uint8) if values.size else values,
            other.view(np.uint8) if other.size else other,
            err_msg=name,
        )


ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda x: nn.functional.leaky_relu(x, 0.1),
    "square": torch.square,
}


def torch_train(job: dict, dtype: torch.dtype | None = None) -> None:
    """What ``_native.train`` is to do, by autograd and ``torch.optim``, in `dtype`."""
    dtype = dtype or getattr(torch, job["dtype"])
    for m in job["cells"].tolist():
        _torch_cell(job, m, dtype)


def _torch_cell(job: dict, m: int, dtype: torch.dtype) -> None:
    tensors = [torch.tensor(p[m]).to(dtype).requires_grad_() for p in job["params"]]
    groups = [
        {
            "params": [p],
            "lr": float(job["lr"][g, m]),
            "weight_decay": float(job["weight_decay"][g, m]),
        }
        for g, p in enumerate(tensors)
    ]
    if job["optimizer"] == "adamw":
        betas = job["beta1"], job["beta2"]
        optimizer = torch.optim.AdamW(groups, betas=betas, eps=job["eps"], foreach=False)
    else:
        optimizer = torch.optim.SGD(groups, momentum=job["momentum"], foreach=False)
    names = SLOTS[job["optimizer"]]
    for g, p in enumerate(tensors):
        optimizer.state[p] = {name: torch.tensor(job[name][g][m]).to(dtype) for name in names}
        optimizer.state[p]["step"] = torch.tensor(float(job["step"][m]))
    d = int(job["data_index"][m])
    cast = (
        (lambda x: torch.tensor(x)) if job["embedding"] else (lambda x: torch.tensor(x).to(dtype))
    )
    x_train, x_val = cast(job["x_train"][d]), cast(job["x_val"][d])
    y_train, y_val = (torch.tensor(job[k][d]).long() for k in ("y_train", "y_val"))
    targets = torch.tensor(job["targets"][d]).to(dtype)
    act = ACTIVATIONS[job["activation"]]

    def network(x):
        weights = list(tensors)
        if job["embedding"]:
            x = weights.pop(0)[x.long()].sum(1)
            x = act(x) if job["activate_embedding"] else x
        while weights:
            biased = job["bias"] and (job["output_bias"] or len(weights) > 1)
            x = nn.functional.linear(x, weights.pop(0), weights.pop(0) if biased else None)
            x = act(x) if weights else x
        return x

    def judge(out, y):
        if job["loss"] == "mse":
            loss = nn.functional.mse_loss(out, targets[y])
        elif job["loss"] == "hinge":
            loss = (1 - targets[y] * out).relu().mean()
        else:
            loss = nn.functional.cross_entropy(out, y)
        if job["predict"] == "argmax":
            guess = out.argmax(1)
        elif job["predict"] == "sign":
            return loss, int((out * targets[y] > 0).sum())
        else:
            guess = (out[:, None] - targets).square().sum(2).argmin(1)
        return loss, int((guess == y).sum())

    n, b, per_epoch = len(y_train), job["batch_size"], job["steps_per_epoch"]
    while job["step"][m] < job["until"]:
        i = int(job["step"][m]) + 1
        epoch, k = divmod(i - 1, per_epoch)
        rows = torch.arange(n)
        if job["order"] is not None:
            rows = torch.tensor(job["order"][job["order_index"][m], epoch - job["first_epoch"]])
            rows = rows.long()[k * b : (k + 1) * b]
        loss, correct = judge(network(x_train[rows]), y_train[rows])
        if not torch.isfinite(loss):
            job["diverged_at"][m] = i
            break
        if k == 0:
            job["epoch_correct"][m], job["epoch_loss"][m] = 0, 0
        job["epoch_correct"][m] += correct
        job["epoch_loss"][m] += loss.item()
        if job["weight_decay_memorised"] is not None and job["t_train"][m] >= 0:
            for g, group in enumerate(optimizer.param_groups):
                group["weight_decay"] = float(job["weight_decay_memorised"][g, m])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        job["step"][m] = i
        if job["norm_steps"] is not None:
            first = tensors[0].detach().double()
            at = np.flatnonzero(job["norm_steps"] == i)
            job["spectral_norm"][m, at] = torch.linalg.matrix_norm(first, 2).item()
        if k + 1 < per_epoch if job["eval_steps"] is None else i not in job["eval_steps"]:
            continue
        with torch.no_grad():
            val_loss, val_correct = judge(network(x_val), y_val)
            if job["train_accuracy"] == "after":
                (after, train_correct), counted = judge(network(x_train), y_train), n
                train_loss = (after if job["recorded_loss"] == "after" else loss).item()
            else:
                train_correct, counted = int(job["epoch_correct"][m]), min(n, (k + 1) * b)
                train_loss = job["epoch_loss"][m] / (k + 1)
        for name, correct in (("train", train_correct), ("val", val_correct)):
            job[f"{name}_correct"][m] = correct
            job[f"best_{name}_correct"][m] = max(correct, job[f"best_{name}_correct"][m])
            if job[f"t_{name}"][m] < 0 and correct >= job[f"need_{name}"]:
                job[f"t_{name}"][m] = i
            crossings = job[f"{name}_crossings"][m]
            crossings[(crossings < 0) & (correct >= job[f"need_{name}_more"])] = i
        j = np.flatnonzero(job["curve_steps"] == i)
        job["train_loss"][m, j] = train_loss
        job["train_acc"][m, j] = train_correct / counted
        job["val_loss"][m, j] = val_loss.item()
        job["val_acc"][m, j] = val_correct / len(y_val)
        if job["stop"] and job["t_train"][m] >= 0 and job["t_val"][m] >= 0:
            break
    for g, p in enumerate(tensors):
        job["params"][g][m] = p.detach().numpy()
        for name in names:
            job[name][g][m] = optimizer.state[p][name].numpy()
