"""The wall: every tensor handed to train() is checked here, once, and nowhere inside."""

import torch
from torch import Tensor

from .spec import Spec

MAX_STEPS = 2**31 - 1  # steps are int32 inside the kernel


def check(spec: Spec, fields: dict) -> None:
    """Raises ValueError naming the first field that does not fit, what it is, what it should be."""
    if not 0 <= fields["until"] <= MAX_STEPS:
        raise ValueError(f"until {fields['until']}: must be from 0 to {MAX_STEPS}")
    device = fields["params"][0].device
    for name, (dtype, shape) in expected_tensors(spec, fields).items():
        check_tensor(name, fields[name], dtype, shape, device)
    cells = fields["params"][0].shape[0]
    shapes = [(cells, *shape) for shape in spec.parameters.values()]
    for name in ("params", "exp_avg", "exp_avg_sq"):
        if len(fields[name]) != len(shapes):
            raise ValueError(f"{name}: {len(fields[name])} tensors, expected {len(shapes)}")
        for number, (tensor, shape) in enumerate(zip(fields[name], shapes, strict=True)):
            real = fields["params"][0].dtype
            check_tensor(f"{name}[{number}]", tensor, real, shape, device)
    check_ranges(spec, fields)


def expected_tensors(spec: Spec, fields: dict) -> dict[str, tuple[torch.dtype, tuple]]:
    """name -> dtype and shape of all tensors that this run needs, parameters apart."""
    real = fields["params"][0].dtype
    cells, sets = fields["params"][0].shape[0], fields["x_train"].shape[0]
    hyperparameters = (len(spec.parameters), cells)
    width, kind = (spec.num_tokens, torch.int32) if spec.embedding else (spec.sizes[0], real)
    expected = {
        "lr": (torch.float64, hyperparameters),
        "weight_decay": (torch.float64, hyperparameters),
        "x_train": (kind, (sets, spec.num_train, width)),
        "y_train": (torch.int32, (sets, spec.num_train)),
        "x_val": (kind, (sets, spec.num_val, width)),
        "y_val": (torch.int32, (sets, spec.num_val)),
        "data_index": (torch.int32, (cells,)),
        "epoch_loss": (torch.float64, (cells,)),
    }
    counts = ("train_correct", "val_correct", "best_train_correct", "best_val_correct")
    for name in ("step", "t_train", "t_val", "diverged_at", "epoch_correct", *counts):
        expected[name] = (torch.int64, (cells,))
    thresholds = len(fields["need_train_more"])
    for name in ("need_train_more", "need_val_more"):
        expected[name] = (torch.int64, (thresholds,))
    for name in ("train_crossings", "val_crossings"):
        expected[name] = (torch.int64, (cells, thresholds))
    if spec.loss == "mse" or spec.predict == "nearest":
        expected["targets"] = (real, (sets, spec.num_classes, spec.sizes[-1]))
    if not spec.full_batch:
        orders = (0, 0) if fields["order"] is None else fields["order"].shape[:2]
        expected["order"] = (torch.int32, (*orders, spec.num_train))
        expected["order_index"] = (torch.int32, (cells,))
    if fields["curve_steps"] is not None and len(fields["curve_steps"]):
        for name in ("train_loss", "val_loss", "train_acc", "val_acc"):
            expected[name] = (torch.float32, (cells, len(fields["curve_steps"])))
    return expected


def check_tensor(name: str, tensor: Tensor | None, dtype, shape: tuple, device) -> None:
    if tensor is None:
        raise ValueError(f"{name} is missing: expected {dtype} {list(shape)}")
    got = (tensor.dtype, tuple(tensor.shape), tensor.device)
    if got != (dtype, tuple(shape), device) or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected contiguous {dtype} {list(shape)} on {device}, "
            f"got {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        )


def check_ranges(spec: Spec, fields: dict) -> None:
    """Every index points into what it indexes: the kernel would read elsewhere without a word."""
    limits = {
        "cells": len(fields["step"]),
        "y_train": spec.num_classes,
        "y_val": spec.num_classes,
        "data_index": fields["x_train"].shape[0],
    }
    if spec.loss == "cross_entropy":
        limits["y_train"] = limits["y_val"] = min(spec.num_classes, spec.sizes[-1])
    if spec.embedding:
        limits["x_train"] = limits["x_val"] = spec.embedding[0]
    if not spec.full_batch:
        limits["order"] = spec.num_train
        limits["order_index"] = fields["order"].shape[0]
    for name, limit in limits.items():
        tensor = fields[name]
        if tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) < limit:
            raise ValueError(
                f"{name}: values from {int(tensor.min())} to {int(tensor.max())}, "
                f"expected 0 to {limit - 1}"
            )
    cells = fields["cells"]
    if len(cells.unique()) != len(cells):
        raise ValueError("cells: each may be listed only once")


def check_order(spec: Spec, order: Tensor, first_epoch: int, base: int, until: int) -> None:
    """The orders of all epochs of steps base + 1 .. until are there."""
    batches = spec.num_train // spec.batch_size
    needed = base // batches, (until - 1) // batches
    if needed[0] < first_epoch or needed[1] >= first_epoch + order.shape[1]:
        raise ValueError(
            f"order: holds epochs {first_epoch} to {first_epoch + order.shape[1] - 1}, "
            f"needed are {needed[0]} to {needed[1]}"
        )
