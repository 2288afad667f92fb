"""M networks of one kind in stacked tensors: what the ``compiled`` engine trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
#: Seeds ``[M]`` and the step (a scalar), int64, in training; None in evaluation.
Noise = tuple[Tensor, Tensor] | None
#: Mean loss of each model ``[M]`` of outputs ``[M, B, O]``.
Loss = Callable[[Tensor], Tensor]


class Differentiated(NamedTuple):
    """A training batch's forward and backward pass."""

    gradients: Tensors  # of each model's mean loss, by parameter
    output: Tensor  # [M, B, O]
    losses: Tensor  # [M]
    buffers: Tensors  # after this batch


class Stacked:
    """Base of all stacked forms, which must be hashable: equal ones share one compilation.

    A user's own model gives one to be trained by ``compiled``, too.
    """

    #: Whether the network computes in training what it computes in evaluation.
    same_in_evaluation: bool = True
    #: Sequence positions that a sample takes through the network.
    positions: int = 1
    #: Whether a step is so large that it is judged by a pass of its own, and that blocks take turns
    #: (:mod:`grokfast.engines.compiled`).
    large: bool = False

    def on(self, *samples: Tensor) -> Stacked:
        """The form for just these samples ``[D, N, I]`` or tokens ``[D, N, K]``: it may make use of
        what they have in common."""
        return self

    def multiply_adds(self, samples: int, training: bool) -> int | None:
        """Of the products of one model's forward pass over so many samples, where that is less
        than the model's own; else None."""
        return None

    def forward(
        self, params: Tensors, buffers: Tensors, x: Tensor, noise: Noise = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """M networks on their samples, differentiable.

        Args:
            params, buffers: by the module's names, each ``[M, ...]``.
            x: ``[U, B, I]``, or tokens ``[U, B, K]``; U is 1 where all networks see the same
                samples, else M.
            noise: in training.

        Returns:
            Outputs ``[M, B, O]``, and the buffers after this batch.
        """
        raise NotImplementedError

    def differentiated(
        self, loss: Loss, params: Tensors, buffers: Tensors, x: Tensor, noise: Noise
    ) -> Differentiated:
        """The same with gradients, by autograd: the sum of the losses of independent models has
        each one's own."""

        def total(learned: Tensors):
            output, new = self.forward(learned, buffers, x, noise)
            losses = loss(output)
            return losses.sum(), (output, losses, new)

        found, (output, losses, new) = torch.func.grad(total, has_aux=True)(dict(params))
        return Differentiated(found, output, losses, new)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` ``[U, B]`` of ``table`` ``[M, P, E]``: ``[M, B, E]``.

    Its gradient is a product: autograd's would add to one place in another order every time on a
    GPU, and one number at a time on a CPU.
    """
    return _Pick.apply(table, index)


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(table: Tensor, index: Tensor) -> Tensor:
        models = torch.arange(len(table), device=table.device)[:, None]
        return table[models, index]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        table, index = inputs
        ctx.save_for_backward(index)
        ctx.rows = table.shape[1]

    @staticmethod
    def backward(ctx, d: Tensor):
        (index,) = ctx.saved_tensors
        values = torch.arange(ctx.rows, device=d.device)
        shows = (index[:, None] == values[:, None]).to(d.dtype)  # [U, P, B]
        return torch.bmm(shows.expand(len(d), -1, -1), d), None
