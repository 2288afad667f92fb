"""How sharp the minimum is that a network has been trained to; imports torch and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.losses import LOSSES
from grokfast.results import Results

#: Of the box, relative, and of L-BFGS-B: as Keskar et al. have them.
EPSILON, ITERATIONS = 1e-3, 10


def sharpness(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None = None,
    loss: str = "cross_entropy",
    epsilon: float = EPSILON,
    iterations: int = ITERATIONS,
    dimensions: int | None = None,
    seed: int = 0,
) -> float:
    """phi = 100 (max L(w + A z) - L(w)) / (1 + L(w)), in percent, over the box
    |z_i| <= epsilon (|(A+ w)_i| + 1): the sharpness of Keskar et al. 2016 (arXiv 1609.04836, Metric
    2.1, Eqs. 3 and 4), which Power's code measures of trained networks (github.com/openai/grok,
    scripts/compute_sharpness.py).

    L is the mean loss over the samples given, in float64; w are all parameters. The maximum is
    sought from z = 0 by some iterations of L-BFGS-B, and is the largest loss that these have seen,
    so a lower bound. A is the identity, or of ``dimensions`` random columns, N(0, 1), with its
    pseudo-inverse A+.

    Args:
        net: left as it is.
        x, y: inputs ``[N, I]`` or tokens ``[N, K]``, and labels ``[N]``.
        targets: dense targets ``[C, O]``, where the loss is of those.
        epsilon: half of the box, relative to 1 + |w|.
        iterations: of L-BFGS-B.
        dimensions: of a random subspace; None for all parameters.
        seed: of the subspace.

    Raises:
        UsageError: an epsilon, iterations or dimensions out of range.
        EnvironmentProblem: scipy is missing.
    """
    given = {"epsilon": epsilon, "iterations": iterations, "dimensions": dimensions}
    for name, value in given.items():
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value!r}; give more than 0")
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise EnvironmentProblem(
            f"sharpness needs scipy ({error})", hint="pip install 'grokfast[analysis]'"
        ) from error
    landscape = _Landscape(net, x, y, targets, loss)
    start = landscape.start
    if dimensions is None:
        matrix = None
        inner: NDArray[np.float64] = start
    else:
        matrix = np.random.default_rng(seed).standard_normal((len(start), dimensions))
        inner = np.asarray(np.linalg.lstsq(matrix, start, rcond=None)[0], np.float64)
    seen: list[float] = []

    def lower(z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = landscape(start + (z if matrix is None else matrix @ z))
        seen.append(value)
        return -value, -(gradient if matrix is None else matrix.T @ gradient)

    first = lower(np.zeros(len(inner)))[0]
    edge = epsilon * (np.abs(inner) + 1)
    minimize(
        lower,
        np.zeros(len(inner)),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack((-edge, edge), axis=1),
        # At the end of training gradients are tiny, and no reason to stop.
        options={"maxiter": iterations, "ftol": 0.0, "gtol": 0.0},
    )
    return 100 * (max(seen) + first) / (1 - first)


def sharpness_of_cell(results: Results, cell: int, **options: Any) -> float:
    """:func:`sharpness` of the trained network of the cell at a position, over its training set.

    Raises:
        UsageError: as there, or a run without weights.
    """
    experiment = results.grid.cells[int(results["run"][cell])]
    net = results.module(**{name: results[name][cell] for name in results.axes})
    data = experiment.task.build()
    return sharpness(
        net,
        data.x_train,
        data.y_train,
        targets=data.targets,
        loss=experiment.loss,
        **options,
    )


class _Landscape:
    """Loss and gradient as functions of all parameters, float64 ``[n]``."""

    def __init__(
        self, net: nn.Module, x: Tensor, y: Tensor, targets: Tensor | None, loss: str
    ) -> None:
        self.net = net
        self.named = {k: p.detach().double() for k, p in net.named_parameters()}
        self.buffers = {
            k: b.double() if b.is_floating_point() else b for k, b in net.named_buffers()
        }
        self.x = x.double() if x.is_floating_point() else x
        self.y, self.loss = y, LOSSES[loss]
        self.targets = None if targets is None else targets.double()[y]
        self.start: NDArray[np.float64] = torch.cat(
            [p.flatten() for p in self.named.values()]
        ).numpy()

    def __call__(self, at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        flat = torch.from_numpy(at).requires_grad_()
        pieces = flat.split([p.numel() for p in self.named.values()])
        params = {
            k: piece.view_as(p) for (k, p), piece in zip(self.named.items(), pieces, strict=True)
        }
        training = self.net.training
        self.net.eval()
        output = torch.func.functional_call(self.net, params | self.buffers, (self.x,))
        self.net.train(training)
        value = self.loss.mean(output, self.y, self.targets)
        (gradient,) = torch.autograd.grad(value, flat)
        return float(value.detach()), gradient.numpy()
