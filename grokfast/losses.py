"""Losses by name. A user's own is a function, torch or not known here::

    @gf.loss("huber", targets=True)
    def huber(output, label, target):
        return torch.nn.functional.huber_loss(output, target)

Imports no torch: experiments are read and checked before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokfast.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

#: Mean loss of outputs ``[B, O]`` with labels ``[B]``, and targets ``[B, O]`` where it uses them.
Function = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]


@dataclass(frozen=True)
class Loss:
    """A loss: the mean over a batch, and whether it compares with dense targets."""

    mean: Function
    targets: bool


LOSSES: Registry[Loss] = Registry("loss")


def loss(name: str, *, targets: bool = False) -> Callable[[Function], Function]:
    """Function decorator: registers a loss under ``name``. Engines with formulas of their own for
    its gradient refuse it; ``reference`` and ``compiled`` differentiate it.

    Args:
        targets: whether the task must give dense targets.
    """

    def register(mean: Function) -> Function:
        LOSSES.add(name, Loss(mean, targets))
        return mean

    return register


@loss("cross_entropy")
def cross_entropy(output: Tensor, label: Tensor, target: Tensor | None) -> Tensor:
    """Mean of -log softmax(output)[label]."""
    from torch.nn import functional

    return functional.cross_entropy(output, label)


@loss("mse", targets=True)
def mse(output: Tensor, label: Tensor, target: Tensor | None) -> Tensor:
    """Mean over samples and outputs of the squared distance from the target."""
    from torch.nn import functional

    assert target is not None
    return functional.mse_loss(output, target)


@loss("hinge", targets=True)
def hinge(output: Tensor, label: Tensor, target: Tensor | None) -> Tensor:
    """Mean over samples and outputs of max(0, 1 - target * output); where the two are equal the
    gradient is 0."""
    assert target is not None
    return (1 - target * output).relu().mean()
