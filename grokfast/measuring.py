"""What one network says of samples: its loss, and how many it predicts rightly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokfast.bucket import Bucket
from grokfast.experiment import Experiment
from grokfast.losses import LOSSES

#: Samples that go through the network at once where nothing is learned from them.
_ROWS = 20_000


def mean_loss(cell: Experiment, output: Tensor, label: Tensor, targets: Tensor | None) -> Tensor:
    """Mean loss of outputs ``[B, O]`` for labels ``[B]``, with targets ``[C, O]``: a scalar."""
    loss = LOSSES[cell.loss]
    if not loss.targets:
        return loss.mean(output, label, None)
    assert targets is not None
    return loss.mean(output, label, targets[label])


def count_correct(cell: Experiment, output: Tensor, label: Tensor, targets: Tensor | None) -> int:
    """Number of right predictions: the largest output, the nearest target row, or the target whose
    sign the one output has."""
    match cell.predict:
        case "argmax":
            right = output.argmax(dim=1) == label
        case "nearest":
            assert targets is not None
            distance = (output[:, None, :] - targets).square().sum(dim=2)  # [B, C]
            right = distance.argmin(dim=1) == label
        case "sign":
            assert targets is not None
            right = (output * targets[label] > 0)[:, 0]  # neither 0 nor NaN is
        case other:
            raise ValueError(f"unknown prediction {other!r}")
    return int(right.sum())


def measure(
    model: nn.Module, cell: Experiment, x: Tensor, y: Tensor, targets: Tensor | None
) -> tuple[float, int]:
    """Mean loss and right predictions of samples, in chunks of rows."""
    total, correct = 0.0, 0
    for rows, labels in zip(x.split(_ROWS), y.split(_ROWS), strict=True):
        output = model(rows)
        total += float(mean_loss(cell, output, labels, targets)) * len(rows)
        correct += count_correct(cell, output, labels, targets)
    return total / len(x), correct


@torch.no_grad()
def initial_curves(bucket: Bucket) -> dict[str, Tensor]:
    """Losses and accuracies (:data:`grokfast.outcomes.CURVES`) before the first step: ``[M]`` each.

    In float64, so that they do not depend on how many threads sum up.
    """
    found: dict[tuple[int, int], dict[str, float]] = {}
    pairs = list(zip(bucket.init_index.tolist(), bucket.data_index.tolist(), strict=True))
    for i, d in dict.fromkeys(pairs):
        model = bucket.module().double().eval()
        for p, initial in zip(model.parameters(), bucket.init[i], strict=True):
            p.copy_(initial)
        for name, buffer in model.named_buffers():
            buffer.copy_(bucket.init_buffers[i][name])
        targets = None if bucket.targets is None else bucket.targets[d].double()
        found[i, d] = {}
        for split in ("train", "val"):
            x, y = getattr(bucket, f"x_{split}")[d], getattr(bucket, f"y_{split}")[d]
            x = x.double() if x.is_floating_point() else x
            loss, correct = measure(model, bucket.cell, x, y, targets)
            found[i, d] |= {f"{split}_loss": loss, f"{split}_acc": correct / len(x)}
    return {
        name: torch.tensor([found[pair][name] for pair in pairs], dtype=torch.float32)
        for name in ("train_loss", "train_acc", "val_loss", "val_acc")
    }
