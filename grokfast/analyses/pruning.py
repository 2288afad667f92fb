"""What a net still knows when neurons are removed from it, in the order of their IPR ([P24] Fig 6).

No training follows a removal. Outputs are sums over neurons, so removing one takes its term away;
here terms are added, from the neuron removed last on, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from grokfast.analyses.neurons import Floats, Ints, Neurons, Parts, score
from grokfast.analyses.spectrum import is_multiplicative, neuron_ipr
from grokfast.errors import UsageError
from grokfast.results import Results
from grokfast.tasks.modular import Modular

if TYPE_CHECKING:
    from grokfast.tasks.base import TaskData

#: Rows on which a pruned net is judged: the training set, its rows with corrupted labels (against
#: these labels) and its others, the validation set, and all p^2 pairs against the right answers.
PARTS: tuple[str, ...] = ("train", "corrupted", "uncorrupted", "val", "all")


@dataclass(frozen=True, eq=False)
class Curve:
    """One order of removal: ``accuracy`` and ``loss`` (mean squared error) by part, each ``[n]``,
    after the first ``removed`` ``[n]`` neurons are gone."""

    removed: Ints
    accuracy: dict[str, Floats]
    loss: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Pruning:
    """The same net pruned from the lowest IPR on, from the highest on, and in random orders."""

    width: int
    ascending: Curve
    descending: Curve
    controls: tuple[Curve, ...]


def parts(data: TaskData) -> Parts:
    """The rows and labels of each part of a data set; a part without a row is left out.

    Args:
        data: tokens (m, p + n) ``[N, 2]`` and labels of p classes, as the task ``modular`` has
            them; training and validation samples together are all pairs.

    Raises:
        UsageError: tokens that are no such pairs.
    """
    p = data.num_classes
    train, val = _rows(data.x_train, p), _rows(data.x_val, p)
    y_train, y_val = np.asarray(data.y_train), np.asarray(data.y_val)
    clean = y_train if data.y_clean is None else np.asarray(data.y_clean)
    redrawn = np.zeros(len(train), bool) if data.corrupted is None else np.asarray(data.corrupted)
    found = {
        "train": (train, y_train),
        "corrupted": (train[redrawn], y_train[redrawn]),
        "uncorrupted": (train[~redrawn], y_train[~redrawn]),
        "val": (val, y_val),
        "all": (np.concatenate((train, val)), np.concatenate((clean, y_val))),
    }
    return {name: found[name] for name in PARTS if len(found[name][0])}


def _rows(x: ArrayLike, p: int) -> Ints:
    tokens = np.asarray(x)
    pairs = tokens.ndim == 2 and tokens.shape[1] == 2
    if not pairs or (tokens // p != (0, 1)).any():
        raise UsageError(f"these inputs are no tokens (m, p + n) with m and n below p = {p}")
    m, n = tokens.T.astype(np.int64)
    return m * p + n - p


def order_by_ipr(net: Neurons, *, multiplicative: bool = False) -> Ints:
    """Neurons from the lowest IPR to the highest, ``[N]``; those with a zero vector first.
    Arguments and errors as :func:`grokfast.analyses.vector_ipr`."""
    values = neuron_ipr(net, multiplicative=multiplicative)
    return np.argsort(np.nan_to_num(values, nan=0.0), kind="stable")


def prune(
    net: Neurons, rows: Parts, order: ArrayLike, removed: Sequence[int] | None = None
) -> Curve:
    """Removes neurons in the given order: rows U[k], V[k] and column W[:, k] become zero.

    BatchNorm (in evaluation mode) would map the zero of such a neuron to a constant, which the zero
    column of W then drops: there, too, its whole term vanishes.

    Args:
        rows: of :func:`parts`.
        order: a permutation of the neurons, ``[N]``.
        removed: numbers of neurons at which to look, ascending; by default 0 .. N - 1.

    Raises:
        UsageError: no permutation, numbers beyond 0 .. N or not ascending, another p, or a net with
            LayerNorm, which is no sum over neurons.
    """
    order = np.asarray(order, np.int64)
    if not np.array_equal(np.sort(order), np.arange(net.width)):
        raise UsageError(f"this order is no permutation of the {net.width} neurons")
    looks = np.arange(net.width) if removed is None else np.asarray(removed, np.int64)
    if len(looks) == 0 or looks[0] < 0 or looks[-1] > net.width or (np.diff(looks) <= 0).any():
        raise UsageError(f"removed is no ascending list of numbers in 0 to {net.width}, the width")
    if len(rows["all"][0]) != net.p**2:
        raise UsageError(f"the data have {len(rows['all'][0])} pairs, the net {net.p**2}")
    found = score(net, rows, order[::-1], net.width - looks[::-1])
    accuracy, loss = ({name: v[::-1] for name, v in values.items()} for values in found)
    return Curve(looks, accuracy, loss)


def pruning(
    net: Neurons,
    rows: Parts,
    *,
    removed: Sequence[int] | None = None,
    controls: int = 5,
    seed: int = 0,
    multiplicative: bool = False,
) -> Pruning:
    """A net pruned in both orders of IPR, and in ``controls`` random ones, whose spread says what
    the order is worth.

    Args:
        seed: of the first random order; the others have the seeds after it.

    Raises:
        UsageError: as :func:`prune` and :func:`order_by_ipr`, or a negative number of controls.
    """
    if controls < 0:
        raise UsageError(f"controls is {controls}; give 0 or more")
    order = order_by_ipr(net, multiplicative=multiplicative)
    shuffled = (np.random.default_rng(seed + i).permutation(net.width) for i in range(controls))
    return Pruning(
        width=net.width,
        ascending=prune(net, rows, order, removed),
        descending=prune(net, rows, order[::-1], removed),
        controls=tuple(prune(net, rows, some, removed) for some in shuffled),
    )


def pruning_of_cell(results: Results, cell: int, *, looks: int, controls: int = 5) -> Pruning:
    """:func:`pruning` of the cell at a position of a results file, on the data of its task, at
    ``looks`` evenly spaced numbers of removed neurons, none and all of them included.

    Raises:
        UsageError: a cell without weights, a net of another kind, or a task other than
            ``modular``.
    """
    net = Neurons.of_cell(results, cell)
    task = results.grid.cells[int(results["run"][cell])].task
    if not isinstance(task, Modular):
        raise UsageError(f"pruning is judged on the task modular; this cell's is {task.name}")
    return pruning(
        net,
        parts(task.build()),
        removed=np.unique(np.linspace(0, net.width, looks).astype(np.int64)).tolist(),
        controls=controls,
        multiplicative=is_multiplicative(results, cell),
    )
