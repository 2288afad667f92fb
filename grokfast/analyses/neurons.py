"""The two-layer net of modular arithmetic as a sum over neurons; its outputs on all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.errors import UsageError
from grokfast.results import Results

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "square": np.square,
    "relu": lambda h: np.maximum(h, 0.0),
}

#: ``nn.BatchNorm1d``'s own, which a state dict does not hold.
NORM_EPS = 1e-5

#: Neurons whose terms are held at a time: 256 x 97^2 doubles are 19 MB.
_BLOCK = 256

_WANTED = "the analyses want an embedding sum, square or relu, and one linear layer without bias"


@dataclass(frozen=True, eq=False)
class Norm:
    """What a normalisation after the activation holds; without running statistics it is a
    LayerNorm.

    Attributes:
        gamma, beta: scale and shift of each neuron, ``[N]``.
        mean, var: BatchNorm's running statistics, ``[N]``.
    """

    gamma: Floats
    beta: Floats
    mean: Floats | None = None
    var: Floats | None = None
    eps: float = NORM_EPS


@dataclass(frozen=True, eq=False)
class Neurons:
    """The net f(m, n) = sum over k of W[:, k] act(U[k, m] + V[k, n]), in float64.

    Attributes:
        u, v: what each neuron reads of the first and the second symbol, ``[N, p]``.
        w: what each neuron writes, ``[p, N]``.
        activation: ``square`` or ``relu``.
        norm: the normalisation between the activation and W, in evaluation mode.
    """

    u: Floats
    v: Floats
    w: Floats
    activation: str = "square"
    norm: Norm | None = None

    @property
    def p(self) -> int:
        return self.u.shape[1]

    @property
    def width(self) -> int:
        return self.u.shape[0]

    @classmethod
    def of(cls, module: nn.Module) -> Neurons:
        """The neurons of a trained module, e.g. of ``Results.module(...)``.

        Raises:
            UsageError: it is not an embedding sum, square or relu, and a linear layer without
                bias; the message says what it is.
        """
        tensors = {k: t.detach().cpu().numpy() for k, t in module.state_dict().items()}
        eps = [m.eps for name, m in module.named_modules() if name == "norms.0"]
        return cls.from_weights(tensors, str(getattr(module, "activation", "unknown")), *eps)

    @classmethod
    def of_cell(cls, results: Results, cell: int) -> Neurons:
        """The neurons of the cell at a position of a results file.

        Raises:
            UsageError: the file holds no weights of this cell, or those of another kind of net.
        """
        run = int(results["run"][cell])
        for bucket in results.weights:
            at = np.flatnonzero(bucket["run"] == run)
            if len(at):
                weights = {name: v[at[0]] for name, v in bucket.items() if name != "run"}
                return cls.from_weights(weights, results.grid.cells[run].model.activation)
        raise UsageError(
            "this run kept no weights", hint="train with record.weights=True (--record=weights)"
        )

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, ArrayLike], activation: str, eps: float = NORM_EPS
    ) -> Neurons:
        """From parameters and buffers by their names in the module: ``embedding.weight``
        ``[2p, N]``, ``layers.0.weight`` ``[p, N]``, and ``norms.0.*`` ``[N]``.

        Raises:
            UsageError: as :meth:`of`.
        """
        tensors = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        _check(tensors, activation)
        embedding, w = tensors["embedding.weight"], tensors["layers.0.weight"]
        p = len(w)
        norm = None
        if "norms.0.weight" in tensors:
            norm = Norm(
                tensors["norms.0.weight"],
                tensors["norms.0.bias"],
                tensors.get("norms.0.running_mean"),
                tensors.get("norms.0.running_var"),
                eps,
            )
        return cls(embedding[:p].T.copy(), embedding[p:].T.copy(), w, activation, norm)

    def weights(self) -> dict[str, Floats]:
        """Parameters by their names in the module: the inverse of :meth:`from_weights` for a net
        without normalisation."""
        return {
            "embedding.weight": np.concatenate((self.u, self.v), axis=1).T.copy(),
            "layers.0.weight": self.w,
        }

    def features(self, neurons: Ints | slice) -> Floats:
        """What the last layer sees of some neurons on all pairs, ``[p, p, neurons]``: at
        ``[m, n]`` that of the pair (m, n).

        Raises:
            UsageError: a LayerNorm, through which each neuron depends on all others.
        """
        u, v = self.u[neurons].T, self.v[neurons].T
        a = ACTIVATIONS[self.activation](u[:, None] + v[None, :])
        if self.norm is None:
            return a
        if self.norm.mean is None or self.norm.var is None:
            raise UsageError(
                "a net with LayerNorm is no sum over neurons",
                hint="its IPR and norms can be had; for outputs and pruning give a net with "
                "BatchNorm or without a norm",
            )
        scale = self.norm.gamma / np.sqrt(self.norm.var + self.norm.eps)
        return (a - self.norm.mean[neurons]) * scale[neurons] + self.norm.beta[neurons]

    def blocks(self, order: Ints, ends: Ints) -> Iterator[Floats]:
        """Outputs on all pairs ``[p * p, p]`` of the first 0, ..., ``ends[i]`` neurons of an
        order; one array, updated in place."""
        total = np.zeros((self.p**2, self.p))
        done = 0
        for end in ends.tolist():
            for start in range(done, end, _BLOCK):
                some = order[start : min(start + _BLOCK, end)]
                total += self.features(some).reshape(self.p**2, -1) @ self.w[:, some].T
            done = end
            yield total


def outputs(net: Neurons) -> Floats:
    """Outputs on all pairs, ``[p * p, p]``: row m p + n is that of the pair (m, n)."""
    (total,) = net.blocks(np.arange(net.width), np.array([net.width]))
    return total


def evaluate(net: Neurons, answers: ArrayLike) -> tuple[float, float]:
    """Accuracy and mean squared error (over pairs and classes, against one-hot targets) on all
    pairs, whose right answers are an integer table ``[p, p]``."""
    labels = np.asarray(answers).reshape(-1)
    accuracy, loss = score(outputs(net), {"all": (np.arange(len(labels)), labels)})
    return accuracy["all"], loss["all"]


def score(
    total: Floats, parts: Mapping[str, tuple[Ints, Ints]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy and mean squared error by part, a part being rows of the table of outputs
    ``[p * p, p]`` and the labels of these rows."""
    predicted = total.argmax(axis=1)
    energy = np.einsum("ij,ij->i", total, total)
    accuracy, loss = {}, {}
    for name, (rows, labels) in parts.items():
        accuracy[name] = float((predicted[rows] == labels).mean())
        # |f - e_y|^2 = |f|^2 - 2 f_y + 1
        squares = energy[rows] - 2 * total[rows, labels] + 1
        loss[name] = float(squares.mean() / total.shape[1])
    return accuracy, loss


def _check(tensors: Mapping[str, Any], activation: str) -> None:
    """Says what a net is that is not one of ours."""

    def refuse(what: str) -> UsageError:
        return UsageError(f"this net has {what}", hint=_WANTED)

    if activation not in ACTIVATIONS:
        raise refuse(f"the activation {activation}")
    if "embedding.weight" not in tensors:
        raise refuse("no embedding, so its inputs are dense")
    layers = [name for name in tensors if name.startswith("layers.") and name.endswith(".weight")]
    if layers != ["layers.0.weight"]:
        raise refuse(f"{len(layers)} linear layers behind the embedding")
    if "layers.0.bias" in tensors:
        raise refuse("a bias in its linear layer")
    (vocabulary, width), w = tensors["embedding.weight"].shape, tensors["layers.0.weight"]
    if w.shape[1] != width or vocabulary != 2 * len(w):
        raise refuse(
            f"{vocabulary} tokens and {len(w)} outputs, not two tokens (m and p + n) for each of "
            "p outputs"
        )
