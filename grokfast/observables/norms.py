"""Norms of parameters, layers and neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grokfast.errors import UsageError
from grokfast.models.base import Shape
from grokfast.observables.base import Snapshot, observable

if TYPE_CHECKING:
    from torch import Tensor

    from grokfast.experiment import Experiment


def parameters_of(cell: Experiment) -> tuple[str, ...]:
    """Names of the parameters in their order; none of a model that cannot tell. Needs neither data
    nor torch."""
    inputs = getattr(cell.model, "context", 1)
    for vocabulary in (0, 1):  # the names depend on whether inputs are tokens, not on the sizes
        shape = Shape(inputs=inputs, outputs=1, vocabulary=vocabulary)
        try:
            cell.model.fits(shape, cell.task.name)
        except UsageError:
            continue
        return cell.model.parameter_names(shape)
    return ()


@observable(
    "norms",
    dims=("parameter",),
    label="Frobenius norm of a parameter tensor",
    entries=parameters_of,
)
def norms(cells: Snapshot) -> Tensor:
    """Frobenius norms ``[K, G]``, of the parameters in their order."""
    import torch

    return torch.stack(
        [p.double().reshape(len(p), -1).norm(dim=1) for p in cells.params.values()], 1
    )


def layers_of(cell: Experiment) -> tuple[str, ...]:
    """Names of the layers that :func:`layer_norms` tells apart, of a model that can name its
    parameters."""
    return tuple(dict.fromkeys(map(_layer, parameters_of(cell))))


def _layer(parameter: str) -> str:
    """``layers.1`` of ``layers.1.linear1.weight``, ``embedding`` of ``embedding.weight``."""
    parts = parameter.split(".")
    return ".".join(parts[: 1 + (len(parts) > 2 and parts[1].isdecimal())])


@observable(
    "layer_norms",
    dims=("layer",),
    label="Frobenius norm of a layer's parameters",
    entries=layers_of,
)
def layer_norms(cells: Snapshot) -> Tensor:
    """Frobenius norms ``[K, layers]`` of all parameters of a layer together, in their order. With
    slingshots that of the last layer rises in steps (Thilak et al. 2022, arXiv 2206.04817)."""
    import torch

    squares: dict[str, Tensor] = {}
    for name, p in cells.params.items():
        own = p.double().reshape(len(p), -1).square().sum(1)
        squares[_layer(name)] = squares[_layer(name)] + own if _layer(name) in squares else own
    return torch.stack(list(squares.values()), 1).sqrt()


@observable("spectral_norm", label="spectral norm of the first layer")
def spectral_norm(cells: Snapshot) -> Tensor:
    """Largest singular value ``[K]`` of the weights of the first layer."""
    return largest_singular_value(_first_layer(cells, "spectral_norm"))


@observable(
    "neuron_norms", dims=("neuron",), label="norm of the incoming weights of a first-layer neuron"
)
def neuron_norms(cells: Snapshot) -> Tensor:
    """Euclidean norms ``[K, H]`` of what each neuron of the first hidden layer reads: of the rows
    of its weights, without the biases (Merrill et al. 2023, arXiv 2303.11873)."""
    weights = _first_layer(cells, "neuron_norms")
    if not {"embedding.weight", "layers.1.weight"} & set(cells.params):
        raise UsageError("neuron_norms: this experiment has no hidden layer")
    return weights.double().norm(dim=2)


def _first_layer(cells: Snapshot, observable: str) -> Tensor:
    """Weights ``[K, H, I]`` of the first layer of a chain; of one-hot tokens those of the
    embedding, which stands for it."""
    if getattr(cells.experiment.model, "one_hot", False):
        return cells.params["embedding.weight"].mT
    if "layers.0.weight" not in cells.params:
        raise UsageError(f"{observable}: this experiment has no layer that every input enters")
    return cells.params["layers.0.weight"]


def largest_singular_value(matrices: Tensor) -> Tensor:
    """Of each matrix ``[K, R, C]``, float64 ``[K]``; NaN where it is not finite.

    The root of the largest eigenvalue of the float64 Gram matrix of the smaller side. Squaring
    costs small singular values their digits, not the largest: its relative error is a few
    roundings of float64.
    """
    import torch

    wide = matrices.double()
    if wide.shape[1] < wide.shape[2]:
        wide = wide.mT
    gram = wide.mT @ wide  # [K, n, n]
    finite = gram.isfinite().flatten(1).all(1)  # LAPACK raises on NaN
    largest = torch.linalg.eigvalsh(gram.where(finite[:, None, None], 0.0))[:, -1]
    return largest.clamp(min=0.0).sqrt().where(finite, torch.nan)
