"""Observables: what is measured of the parameters of a cell at chosen steps.

The trainer stops every engine at those steps and computes them from the State, cell by cell, so no
engine knows of them. A user's own is a function of the parameters of K cells, by name::

    @gf.observable("largest", label="largest weight")
    def largest(cells):
        return torch.stack([p.flatten(1).abs().amax(1) for p in cells.params.values()]).amax(0)

What needs the network itself, or data, has both from ``cells.module(k)`` and ``cells.samples(k)``.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grokfast.errors import UsageError
from grokfast.models.base import Shape
from grokfast.registry import Registry
from grokfast.tasks.modular import Modular, discrete_log_order

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grokfast.experiment import Experiment
    from grokfast.tasks import Task


@dataclass(frozen=True)
class Samples:
    """The data of one cell: inputs ``[N, I]`` or tokens ``[N, K]``, and labels ``[N]``; ``x_val``
    and ``y_val`` of the V validation samples."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor


def _not_known(position: int) -> Any:
    raise UsageError("this snapshot holds parameters alone")


@dataclass(frozen=True)
class Snapshot:
    """K cells of a bucket at one step: what an observable is a function of.

    Attributes:
        params: parameter name -> ``[K, ...]``.
        experiment: one of them; they share all that is no number and no data.
        tasks: of each.
        shape: of the data.
        module: position -> its network, in evaluation mode; valid until the next is asked for.
        samples: position -> its data.
    """

    params: dict[str, Tensor]
    experiment: Experiment
    tasks: Sequence[Task]
    shape: Shape | None = None
    module: Callable[[int], nn.Module] = _not_known
    samples: Callable[[int], Samples] = _not_known


Function = Callable[[Snapshot], "Tensor"]


@dataclass(frozen=True)
class Observable:
    """A measurement.

    Attributes:
        compute: values of K cells, ``[K, *dims]``, kept as float32.
        dims: names of its dimensions beyond cell and step.
        label: what it is, for figures and files.
        units: of the values.
        entries: names along its one dimension beyond cell and step, of an experiment; empty where
            it cannot tell.
    """

    compute: Function
    dims: tuple[str, ...] = ()
    label: str = ""
    units: str = ""
    entries: Callable[[Experiment], Sequence[str]] | None = None


OBSERVABLES: Registry[Observable] = Registry("observable")

#: Dimensions whose entries do not correspond in two networks.
UNORDERED = frozenset({"neuron"})


def observable(
    name: str,
    *,
    dims: tuple[str, ...] = (),
    label: str = "",
    units: str = "",
    entries: Callable[[Experiment], Sequence[str]] | None = None,
) -> Callable[[Function], Function]:
    """Function decorator: registers an observable under ``name``, which is its name in files. The
    arguments are the attributes of :class:`Observable`."""

    def register(compute: Function) -> Function:
        OBSERVABLES.add(name, Observable(compute, dims, label or name, units, entries))
        return compute

    return register


@observable("embeddings", dims=("token", "component"), label="embedding")
def embeddings(cells: Snapshot) -> Tensor:
    """The embedding ``[K, P, E]``; of a transformer with ``positions=learned-rows`` the last rows
    are the positions."""
    if "embedding.weight" not in cells.params:
        raise UsageError("record=embeddings: this experiment has no embedding to record")
    return cells.params["embedding.weight"]


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


@observable("output_rows", dims=("class", "component"), label="output row")
def output_rows(cells: Snapshot) -> Tensor:
    """Rows of the output matrix ``[K, O, H]``, one a class: of the last layer, or of the embedding
    where a transformer has its head tied to it."""
    model, shape = cells.experiment.model, cells.shape
    assert shape is not None
    for name, p in reversed(cells.params.items()):
        if p.ndim == 3 and model.group(name, shape) == "output":
            return p
    if getattr(model, "tied", False):
        return cells.params["embedding.weight"][:, : shape.outputs]
    raise UsageError("output_rows: this experiment has no output matrix")


def _heads(cell: Experiment) -> tuple[str, ...]:
    depth, heads = getattr(cell.model, "depth", 0), getattr(cell.model, "heads", 0)
    return tuple(f"layer {n}, head {h}" for n in range(depth) for h in range(heads))


def _blocks(cell: Experiment) -> tuple[str, ...]:
    return tuple(f"layer {n}" for n in range(getattr(cell.model, "depth", 0)))


@observable("attention_entropy", dims=("head",), label="entropy of attention", entries=_heads)
def attention_entropy(cells: Snapshot) -> Tensor:
    """Mean entropy ``[K, layers x heads]``, in nats, of what the last position attends to, over all
    inputs; at most the logarithm of the number of tokens."""
    return _over_inputs(cells, "attention_entropy", _entropy, training_alone=False)


@observable(
    "attention_entropy_train",
    dims=("head",),
    label="entropy of attention, training inputs",
    entries=_heads,
)
def attention_entropy_train(cells: Snapshot) -> Tensor:
    """:func:`attention_entropy` over the training inputs."""
    return _over_inputs(cells, "attention_entropy_train", _entropy, training_alone=True)


@observable(
    "head_similarity",
    dims=("block",),
    label="cosine similarity of attention heads",
    entries=_blocks,
)
def head_similarity(cells: Snapshot) -> Tensor:
    """Mean cosine similarity ``[K, layers]`` of what the last position attends to in two different
    heads of a layer, over all pairs of heads and all inputs."""
    return _over_inputs(cells, "head_similarity", _similarity, training_alone=False)


@observable(
    "head_similarity_train",
    dims=("block",),
    label="cosine similarity of attention heads, training inputs",
    entries=_blocks,
)
def head_similarity_train(cells: Snapshot) -> Tensor:
    """:func:`head_similarity` over the training inputs."""
    return _over_inputs(cells, "head_similarity_train", _similarity, training_alone=True)


def _over_inputs(
    cells: Snapshot, name: str, reduce: Callable[[Tensor], Tensor], *, training_alone: bool
) -> Tensor:
    """``reduce`` of the attention of the last position, ``[layers, B, heads, tokens]``, of each
    cell over its inputs."""
    import torch

    from grokfast.models.attention import attention

    found = []
    for k in range(len(cells.tasks)):
        samples = cells.samples(k)
        inputs = samples.x_train
        if not training_alone:
            inputs = torch.cat([inputs, samples.x_val])
        weights = attention(cells.module(k), inputs, name)  # [layers, B, heads, tokens, tokens]
        found.append(reduce(weights[..., -1, :].double()))
    return torch.stack(found)


def _entropy(last: Tensor) -> Tensor:
    """``[layers, B, heads, tokens]`` -> ``[layers * heads]``."""
    import torch

    return -torch.xlogy(last, last).sum(3).mean(1).flatten()


def _similarity(last: Tensor) -> Tensor:
    """``[layers, B, heads, tokens]`` -> ``[layers]``; NaN for a single head."""
    unit = last / last.norm(dim=3, keepdim=True)
    heads = last.shape[2]
    # All pairs, the heads with themselves among them, from the square of the sum.
    every = unit.sum(2).square().sum(2) - heads  # [layers, B]
    return every.mean(1) / (heads * (heads - 1)) if heads > 1 else every.mean(1) * float("nan")


@observable("ipr", label="mean inverse participation ratio")
def ipr(cells: Snapshot) -> Tensor:
    """Network mean ``[K]`` of the inverse participation ratio; see :func:`neuron_ipr`."""
    return neuron_ipr(cells).mean(1)


@observable("neuron_ipr", dims=("neuron",), label="inverse participation ratio of a neuron")
def neuron_ipr(cells: Snapshot) -> Tensor:
    """Inverse participation ratio of each neuron ``[K, N]`` of a two-layer net on pairs of tokens.

    Of a vector x with F = |rfft(x)| (the constant component included) it is
    sum F^4 / (sum F^2)^2; a neuron's is the mean over its rows of U and V and its column of W
    (Doshi et al. 2024, arXiv 2310.13061, Eq. 3 and their code). Of multiplication it is that of the
    vectors in the order of discrete logarithms, without the symbol 0.
    """
    import torch

    names = set(cells.params)
    if not {"embedding.weight", "layers.0.weight"} <= names or "layers.1.weight" in names:
        raise UsageError("ipr: this experiment is no two-layer net on tokens (model.one_hot)")
    embedding = cells.params["embedding.weight"].double()  # [K, 2p, N]
    p = cells.params["layers.0.weight"].shape[1]
    if embedding.shape[1] != 2 * p:
        raise UsageError(f"ipr: {embedding.shape[1]} tokens are not two for each of {p} outputs")
    rows = torch.stack(
        [embedding[:, :p], embedding[:, p:], cells.params["layers.0.weight"].double()]
    )  # [3, K, p, N]

    def ratio(vectors: Tensor) -> Tensor:
        power = torch.fft.rfft(vectors, dim=2).abs().square()
        return (power.square().sum(2) / power.sum(2).square()).mean(0)

    found = ratio(rows)
    for k, task in enumerate(cells.tasks):
        if isinstance(task, Modular) and task.is_multiplication:
            order = torch.from_numpy(discrete_log_order(p)).to(rows.device)
            found[k] = ratio(rows[:, k : k + 1, order])[0]
    return found
