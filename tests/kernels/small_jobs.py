"""Small jobs as the contract names their fields, of sizes that fit no tile."""

import itertools

import torch


def make_job(
    sizes=(1, 20, 17, 7),
    embedding=(6, 1),
    activation="tanh",
    bias=True,
    activate_embedding=False,
    loss="cross_entropy",
    predict="argmax",
    cells=2,
    train=13,
    val=5,
    classes=None,
    data_sets=2,
    batch_size=None,
    epochs=8,
    eval_steps=None,
    curve_steps=(1, 3),
    until=3,
    need=None,
    more=((), ()),
    train_accuracy="running",
    stop=False,
    lr=1e-2,
    seed=0,
    dtype=torch.float64,
):
    """A job of random data and weights, drawn in float64; learning rates differ by cell."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    def integers(high, *shape):
        return torch.randint(high, shape, generator=draw, dtype=torch.int32)

    classes = classes or sizes[-1]
    params = [normal(cells, *embedding)] if embedding else []
    for inputs, outputs in itertools.pairwise(sizes):
        params.append(normal(cells, outputs, inputs) / inputs**0.5)
        if bias:
            params.append(0.3 * normal(cells, outputs))
    groups = len(params)
    minibatch = batch_size is not None

    def inputs(count):
        if embedding:
            return integers(embedding[0], data_sets, count, 2)
        return normal(data_sets, count, sizes[0])

    def curve():
        return torch.full((cells, len(curve_steps)), -1.0)

    def never(*shape):
        return torch.full((cells, *shape), -1)

    shuffles = [torch.randperm(train, generator=draw) for _ in range(2 * epochs)]
    scale = torch.linspace(0.5, 2.0, cells, dtype=torch.float64)
    return {
        "sizes": sizes,
        "embedding": embedding,
        "activation": activation,
        "bias": bias,
        "activate_embedding": activate_embedding,
        "loss": loss,
        "predict": predict,
        "optimizer": "adamw",
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
        "params": params,
        "exp_avg": [torch.zeros_like(p) for p in params],
        "exp_avg_sq": [torch.zeros_like(p) for p in params],
        "lr": lr * scale * torch.linspace(1, 2, groups, dtype=torch.float64)[:, None],
        "weight_decay": 0.3 * scale.flip(0) * torch.ones(groups, 1, dtype=torch.float64),
        "x_train": inputs(train),
        "y_train": integers(classes, data_sets, train),
        "x_val": inputs(val),
        "y_val": integers(classes, data_sets, val),
        "targets": normal(data_sets, classes, sizes[-1])
        if "mse" in loss or predict == "nearest"
        else None,
        "num_classes": classes,
        "data_index": integers(data_sets, cells),
        "batch_size": batch_size or train,
        "order": torch.stack(shuffles).int().view(2, epochs, train) if minibatch else None,
        "order_index": integers(2, cells) if minibatch else None,
        "first_epoch": 0,
        "eval_steps": None if eval_steps is None else torch.tensor(eval_steps),
        "need_train": need[0] if need else train,
        "need_val": need[1] if need else val,
        "need_train_more": torch.tensor(more[0], dtype=torch.int64),
        "need_val_more": torch.tensor(more[1], dtype=torch.int64),
        "stop": stop,
        "step": torch.zeros(cells, dtype=torch.int64),
        "t_train": never(),
        "t_val": never(),
        "train_crossings": never(len(more[0])),
        "val_crossings": never(len(more[1])),
        "diverged_at": never(),
        "train_accuracy": train_accuracy,
        "train_correct": never(),
        "val_correct": never(),
        "best_train_correct": never(),
        "best_val_correct": never(),
        "epoch_correct": torch.zeros(cells, dtype=torch.int64),
        "epoch_loss": torch.zeros(cells, dtype=torch.float64),
        "curve_steps": torch.tensor(curve_steps, dtype=torch.int64),
        "train_loss": curve(),
        "val_loss": curve(),
        "train_acc": curve(),
        "val_acc": curve(),
        "cells": torch.arange(cells),
        "until": until,
    }


def addition(job, p):
    """The job with addition modulo p for data: tokens m and p + n, label m + n mod p, one-hot.

    All p^2 pairs in a random order; the job has as many samples, and width p.
    """
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p)).int()
    pairs = pairs[torch.randperm(p * p, generator=torch.Generator().manual_seed(0))]
    train = job["x_train"].shape[1]
    for part, rows in (("train", pairs[:train]), ("val", pairs[train:])):
        job[f"x_{part}"][:] = rows + torch.tensor([0, p], dtype=torch.int32)
        job[f"y_{part}"][:] = rows.sum(dim=1) % p
    job["targets"][:] = torch.eye(p)
    return job
