"""A Bucket: experiments made ready to train together.

A bucket holds the cells that share shapes and operations; they differ in numbers and data only
(learning rates, decays, seeds, initial values, data sets of equal size), and so may train together
in stacked tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from grokfast.batches import Orders, samples_of_batch
from grokfast.experiment import Experiment
from grokfast.models import Shape
from grokfast.models.chain import torch_dtype
from grokfast.models.layers import Layer, Linear, Plain, plain
from grokfast.models.stacked import Stacked
from grokfast.optimizers import OPTIMIZERS
from grokfast.schedule import Schedule
from grokfast.tasks import Task


@dataclass(frozen=True)
class Parameter:
    """One parameter tensor of a cell: its name in the module, its shape and its group."""

    name: str
    shape: tuple[int, ...]
    group: str  # "embedding", "hidden" or "output"


@dataclass(frozen=True, eq=False)
class Bucket:
    """The constant parts, the data and the per-cell hyperparameters of one bucket (CPU tensors).

    M cells, D data sets, R orders of the training rows, G parameter tensors, H further thresholds.
    """

    cell: Experiment  # any one of the cells: the source of every field that they share
    cells: tuple[int, ...]  # flat grid index of each cell, [M]
    shape: Shape  # of the data, as the model sees them
    layers: tuple[Layer, ...] | None  # None: a model that is no chain of layers
    stacked: Stacked | None  # None: a model that is not to be had in stacked tensors
    parameters: tuple[Parameter, ...]  # [G], in the order of the module's parameters()
    tasks: tuple[Task, ...]  # of the data sets, [D]
    num_classes: int  # C
    x_train: Tensor  # [D, N, I] in the run's dtype, or int64 tokens [D, N, K]
    y_train: Tensor  # [D, N] int64
    x_val: Tensor  # [D, V, I] or [D, V, K]
    y_val: Tensor  # [D, V]
    targets: Tensor | None  # [D, C, O] in the run's dtype
    data_index: Tensor  # [M] int64: the data set of each cell
    lr: Tensor  # [G, M] float64
    weight_decay: Tensor  # [G, M] float64
    weight_decay_memorised: Tensor | None  # [G, M] float64: once T_train is there; None: the same
    warmup: Tensor  # [M] int64: steps
    init: tuple[tuple[Tensor, ...], ...]  # distinct initial models, each G tensors
    init_buffers: tuple[dict[str, Tensor], ...]  # their buffers, by name
    init_index: Tensor  # [M] int64: into both
    noise_seeds: Tensor  # [M] int64: of dropout
    orders: Orders | None  # None for the full batch
    order_index: Tensor  # [M] int64: the order of each cell
    schedule: Schedule
    values: dict[str, tuple[object, ...]]  # distinct ones of each optimizer field that may differ
    extra: dict[str, object] = field(default_factory=dict)  # an engine's own prepared data

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.cell.dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, [G]."""
        return tuple(p.name for p in self.parameters)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of one cell's parameters, [G]."""
        return tuple(p.shape for p in self.parameters)

    @cached_property
    def plain(self) -> Plain | None:
        """The network in the terms of ``csrc`` and ``kernels``; None where it is no such one."""
        return None if self.layers is None else plain(self.layers)

    @property
    def vocabulary(self) -> int:
        """P; 0 for dense inputs."""
        return self.shape.vocabulary

    def module(self) -> nn.Module:
        """The network in the run's dtype, with any initial values: they are to be replaced."""
        with torch.random.fork_rng(devices=[]):
            return self.cell.model.build(self.shape).to(self.dtype)

    @property
    def slots(self) -> tuple[str, ...]:
        """What the optimizer remembers of each parameter."""
        return OPTIMIZERS[self.cell.optimizer.kind].slots

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    @property
    def num_train(self) -> int:
        return self.x_train.shape[1]

    @property
    def num_val(self) -> int:
        return self.x_val.shape[1]

    @property
    def batch_size(self) -> int:
        return samples_of_batch(self.cell, self.num_train)

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps_per_epoch

    def batch_rows(self, step: int) -> tuple[int, int]:
        """First and last (excluded) row of the epoch's order in the batch of step 0, 1, ..."""
        k = step % self.steps_per_epoch
        return k * self.batch_size, min((k + 1) * self.batch_size, self.num_train)

    @property
    def counted(self) -> int:
        """Training samples that an accuracy is counted over."""
        if self.cell.evaluation.train == "after":
            return self.num_train
        return min(self.steps_per_epoch * self.batch_size, self.num_train)

    @cached_property
    def need_train(self) -> int:
        """Right predictions of ``counted`` that reach the threshold."""
        return self.cell.phase.needed(self.counted)

    @cached_property
    def need_val(self) -> int:
        return self.cell.phase.needed(self.num_val)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The further ones, [H]."""
        return self.cell.evaluation.thresholds

    @cached_property
    def need_train_more(self) -> list[int]:
        return [self._needed(t, self.counted) for t in self.thresholds]

    @cached_property
    def need_val_more(self) -> list[int]:
        return [self._needed(t, self.num_val) for t in self.thresholds]

    def _needed(self, threshold: float, samples: int) -> int:
        return replace(self.cell.phase, threshold=threshold).needed(samples)

    @property
    def stop_at_both(self) -> bool:
        match self.cell.stop:
            case "both":
                return True
            case "never":
                return False
        raise ValueError(f"unknown stop rule {self.cell.stop!r}")

    def lr_factor(self, step: Tensor | int) -> Tensor:
        """What every learning rate is multiplied with in a step (from 1), or in several
        ``[S, 1]``: float64 ``[M]`` or ``[S, M]``."""
        done = (torch.as_tensor(step) - 1).double()
        return torch.where(self.warmup > 0, (done / self.warmup.clamp(min=1)).clamp(max=1.0), 1.0)

    def evaluates(self, step: int) -> bool:
        """Whether accuracy is looked at after this step."""
        return self.schedule.evaluates(step)

    @cached_property
    def eval_steps(self) -> Tensor | None:
        """Sorted int64; None: the end of every epoch."""
        steps = self.schedule.eval_steps
        return None if steps is None else torch.from_numpy(steps)

    @cached_property
    def curve_steps(self) -> Tensor:
        """[T] int64, a subset of the evaluated steps."""
        return torch.from_numpy(self.schedule.curve_steps)

    @property
    def curve_index(self) -> dict[int, int]:
        """Step -> index on the curve axis."""
        return self.schedule.curve_index

    def flops_per_step(self) -> float:
        """Floating-point operations of the products of one step: forward, dX, dW and validation;
        0 where the model cannot tell.

        The first linear layer needs no input gradient where inputs are dense.
        """
        first = next((x for x in self.layers or () if isinstance(x, Linear)), None)
        no_input = 0 if self.vocabulary or first is None else first.inputs * first.outputs
        evals = self.schedule.evaluations / self.cell.steps
        judged = self.num_val
        if self.cell.evaluation.train == "after" and self.orders is not None:
            judged += self.num_train
        forward = self._multiply_adds(self.batch_size, True)
        evaluation = evals * self._multiply_adds(judged, False)
        return 2.0 * (3 * forward - self.batch_size * no_input + evaluation)

    def _multiply_adds(self, samples: int, training: bool) -> int:
        """Of the products of a forward pass."""
        least = self.stacked and self.stacked.multiply_adds(samples, training)
        return least or samples * self.cell.model.multiply_adds(self.shape)
