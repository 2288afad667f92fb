"""Optimizers by name: the update of every parameter from its gradient. A user's own::

    @gf.optimizer("signsgd")
    class SignSgd(gf.UpdateRule):
        def update(self, parameter, gradient, slots, lr, decay, step, settings):
            return parameter * (1 - lr * decay) - lr * gradient.sign(), slots

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from grokfast.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from grokfast.experiment import Optimizer


class UpdateRule:
    """Base of every optimizer: what it remembers of each parameter, and its update."""

    #: Names of the tensors kept beside each parameter, of its shape, zero at first.
    slots: tuple[str, ...] = ()

    def update(
        self,
        parameter: Tensor,
        gradient: Tensor,
        slots: Sequence[Tensor],
        lr: Any,
        decay: Any,
        step: Any,
        settings: Optimizer,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The parameter and its slots after one step, as new tensors.

        Args:
            parameter, gradient: of M models at once ``[M, ...]``, or of one.
            slots: as named by ``slots``.
            lr, decay: numbers, or tensors that broadcast against the parameter.
            step: number of this update, from 1: a number or a float64 scalar.
            settings: the other fields of the optimizer.
        """
        raise NotImplementedError


OPTIMIZERS: Registry[UpdateRule] = Registry("optimizer")

R = TypeVar("R", bound=type[UpdateRule])


def optimizer(name: str):
    """Class decorator: registers an :class:`UpdateRule` under ``name``."""

    def register(cls: R) -> R:
        OPTIMIZERS.add(name, cls())
        return cls

    return register


@optimizer("adamw")
class AdamW(UpdateRule):
    """Decoupled decay before the update, as ``torch.optim.AdamW`` (Loshchilov and Hutter 2019)."""

    slots = ("exp_avg", "exp_avg_sq")

    def update(self, parameter, gradient, slots, lr, decay, step, settings):
        beta1, beta2 = settings.beta1, settings.beta2
        mean = slots[0] + (1 - beta1) * (gradient - slots[0])
        square = beta2 * slots[1] + (1 - beta2) * gradient * gradient
        size = (square / (1 - beta2**step)) ** 0.5 + settings.eps
        moved = parameter * (1 - lr * decay) - lr / (1 - beta1**step) * mean / size
        return moved, (mean, square)


@optimizer("adam")
class Adam(AdamW):
    """The same with coupled decay, added to the gradient, as ``torch.optim.Adam`` (Kingma and Ba
    2015)."""

    def update(self, parameter, gradient, slots, lr, decay, step, settings):
        gradient = gradient + decay * parameter
        return super().update(parameter, gradient, slots, lr, 0.0, step, settings)


@optimizer("sgd")
class Sgd(UpdateRule):
    """Gradient descent with coupled decay (added to the gradient) and momentum, as
    ``torch.optim.SGD``: the velocity begins with the first gradient."""

    slots = ("momentum_buffer",)

    def update(self, parameter, gradient, slots, lr, decay, step, settings):
        gradient = gradient + decay * parameter
        if not settings.momentum:  # then torch, too, remembers nothing
            return parameter - lr * gradient, slots
        velocity = settings.momentum * slots[0] + gradient
        return parameter - lr * velocity, (velocity,)
