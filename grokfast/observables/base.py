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
