"""The two-layer net of modular arithmetic as a sum over neurons; its outputs on all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.errors import UsageError
from grokfast.results import Results
from grokfast.retyping import again

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

#: Neurons, and pairs, whose terms are held at a time: 4 MB of doubles.
_BLOCK, _ROWS = 256, 2048

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
                model = results.grid.cells[run].model
                return cls.from_weights(weights, getattr(model, "activation", "unknown"))
        raise no_weights(results)

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

    def features(self, neurons: Ints | slice, first: slice = slice(None)) -> Floats:
        """What the last layer sees of some neurons, ``[m, p, neurons]``: at ``[m, n]`` that of the
        pair (m, n), for the first symbols m of a slice.

        Raises:
            UsageError: a LayerNorm, through which each neuron depends on all others.
        """
        u, v = self.u[neurons, first].T, self.v[neurons].T
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

    def growing(self, order: Ints, ends: Ints, first: slice = slice(None)) -> Iterator[Floats]:
        """Outputs ``[m * p, p]`` of the first ``end`` neurons of an order, for each of the
        ascending ``ends``, on the pairs of a slice of first symbols; one array, updated in place.
        """
        total = np.zeros((len(range(*first.indices(self.p))) * self.p, self.p))
        done = 0
        for end in ends.tolist():
            for start in range(done, end, _BLOCK):
                some = order[start : min(start + _BLOCK, end)]
                total += self.features(some, first).reshape(len(total), -1) @ self.w[:, some].T
            done = end
            yield total


#: Part of the pairs -> rows m p + n of the table of all pairs, and their labels, both ``[n]``.
Parts = Mapping[str, tuple[Ints, Ints]]


def no_weights(results: Results) -> UsageError:
    """What to say of a run that kept none; of one whose nets have no such neurons, that."""
    task = results.grid.experiment.task.name
    if task != "modular":
        return UsageError(f"neurons are analysed of nets on the task modular; this run's is {task}")
    return UsageError(
        "this run kept no weights", hint=again(results.grid, **{"record.weights": True})
    )


def outputs(net: Neurons) -> Floats:
    """Outputs on all pairs, ``[p * p, p]``: row m p + n is that of the pair (m, n)."""
    (total,) = net.growing(np.arange(net.width), np.array([net.width]))
    return total


def evaluate(net: Neurons, answers: ArrayLike) -> tuple[float, float]:
    """Accuracy and mean squared error (over pairs and classes, against one-hot targets) on all
    pairs, whose right answers are an integer table ``[p, p]``.

    Raises:
        UsageError: a table of another size, or a net with LayerNorm.
    """
    labels = np.asarray(answers)
    if labels.shape != (net.p, net.p):
        raise UsageError(f"the answers are {labels.shape}; give those of {net.p} x {net.p} pairs")
    rows = {"all": (np.arange(net.p**2), labels.reshape(-1))}
    accuracy, loss = score(net, rows, np.arange(net.width), np.array([net.width]))
    return float(accuracy["all"][0]), float(loss["all"][0])


def score(
    net: Neurons, parts: Parts, order: Ints, ends: Ints
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Accuracy and mean squared error by part, each ``[ends]``, of the nets that consist of the
    first ``end`` neurons of an order."""
    p = net.p
    correct, squares = ({name: np.zeros(len(ends)) for name in parts} for _ in range(2))
    at_once = max(1, _ROWS // p)
    for start in range(0, p, at_once):
        first = slice(start, min(start + at_once, p))
        inside = {
            name: _between(part, first.start * p, first.stop * p) for name, part in parts.items()
        }
        for look, total in enumerate(net.growing(order, ends, first)):
            predicted = total.argmax(axis=1)
            energy = np.einsum("ij,ij->i", total, total)
            for name, (rows, labels) in inside.items():
                correct[name][look] += (predicted[rows] == labels).sum()
                # |f - e_y|^2 = |f|^2 - 2 f_y + 1
                squares[name][look] += (energy[rows] - 2 * total[rows, labels] + 1).sum()
    size = {name: len(rows) for name, (rows, _) in parts.items()}
    return (
        {name: count / size[name] for name, count in correct.items()},
        {name: total / (size[name] * p) for name, total in squares.items()},
    )


def _between(part: tuple[Ints, Ints], low: int, high: int) -> tuple[Ints, Ints]:
    """The rows of a part in low .. high - 1, counted from low, and their labels."""
    rows, labels = part
    there = (rows >= low) & (rows < high)
    return rows[there] - low, labels[there]


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
    if w.shape[1] != width:
        raise refuse(f"{vocabulary} tokens of {width} numbers and a layer of {w.shape[1]} inputs")
    if vocabulary != 2 * len(w):
        raise refuse(
            f"{vocabulary} tokens and {len(w)} outputs, not two tokens (m and p + n) for each of "
            "p outputs"
        )
