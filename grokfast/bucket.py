"""A Bucket: experiments made ready to train together.

A bucket holds the cells that share shapes and operations; they differ in per-cell numbers
(learning rates, decays, seeds, init scale) only, and so may train together in stacked tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from grokfast.errors import UsageError
from grokfast.experiment import Evaluation, Experiment, Recording
from grokfast.grid import static_key
from grokfast.model import initial_model, torch_dtype
from grokfast.spacing import log10, logspace
from grokfast.tasks import Task, TaskData


@dataclass(frozen=True, eq=False)
class Bucket:
    """The constant parts, the data and the per-cell hyperparameters of one bucket (CPU tensors).

    M cells, D data sets, R shuffle orders, G parameter tensors. Parameter tensors are in the
    order of ``MLP.parameters()``: the embedding if there is one, then weight and bias a layer.
    """

    cell: Experiment  # any one of the cells: the source of every field that they share
    cells: tuple[int, ...]  # flat grid index of each cell, [M]
    names: tuple[str, ...]  # parameter names, [G]
    shapes: tuple[tuple[int, ...], ...]  # of one cell's parameters, [G]
    sizes: tuple[int, ...]  # (I, H, ..., O)
    vocabulary: int  # P, 0 for dense inputs
    num_classes: int  # C
    x_train: Tensor  # [D, N, I] in the run's dtype, or int64 tokens [D, N, K]
    y_train: Tensor  # [D, N] int64
    x_val: Tensor  # [D, V, I] or [D, V, K]
    y_val: Tensor  # [D, V]
    targets: Tensor | None  # [D, C, O] in the run's dtype
    data_index: Tensor  # [M] int64: the data set of each cell
    lr: Tensor  # [G, M] float64
    weight_decay: Tensor  # [G, M] float64
    init: tuple[tuple[Tensor, ...], ...]  # distinct initial models, each G tensors
    init_index: Tensor  # [M] int64: into init; also the shuffle order of each cell
    shuffles: Shuffles | None  # None for the full batch
    eval_steps: Tensor | None  # sorted int64; None: the end of every epoch
    curve_steps: Tensor  # [T] int64, a subset of the evaluated steps
    extra: dict[str, object] = field(default_factory=dict)  # an engine's own prepared data

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.cell.dtype)

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
        return self.cell.batch_size or self.num_train

    @property
    def steps_per_epoch(self) -> int:
        return self.num_train // self.batch_size

    @cached_property
    def need_train(self) -> int:
        """Correct predictions of an epoch's N that reach the threshold."""
        return self.cell.phase.needed(self.num_train)

    @cached_property
    def need_val(self) -> int:
        return self.cell.phase.needed(self.num_val)

    @property
    def stop_at_both(self) -> bool:
        return self.cell.stop == "both"

    @cached_property
    def _eval_set(self) -> frozenset[int] | None:
        return None if self.eval_steps is None else frozenset(self.eval_steps.tolist())

    def evaluates(self, step: int) -> bool:
        """Whether accuracy is looked at after this step."""
        if self.eval_steps is None:
            return step % self.steps_per_epoch == 0
        return step in self._eval_set  # type: ignore[operator]

    @cached_property
    def curve_index(self) -> dict[int, int]:
        """Step -> index on the curve axis."""
        return {step: j for j, step in enumerate(self.curve_steps.tolist())}

    @property
    def snapshot_steps(self) -> np.ndarray:
        """Steps after which the embedding is kept, the initial one included: int64 ``[S]``."""
        every = self.cell.record.embeddings
        count = self.cell.steps // every + 1 if every else 0
        return np.arange(count, dtype=np.int64) * every

    @property
    def num_snapshots(self) -> int:
        return len(self.snapshot_steps)

    def flops_per_step(self) -> float:
        """Floating-point operations of the products of one step: forward, dX, dW and validation.

        The first layer needs no input gradient where inputs are dense.
        """
        pairs = [i * o for i, o in zip(self.sizes, self.sizes[1:], strict=False)]
        total = sum(pairs)
        backward = 2 * total - (0 if self.vocabulary else pairs[0])
        evals = 1.0 / self.steps_per_epoch
        if self.eval_steps is not None:
            evals = len(self.eval_steps) / self.cell.steps
        return 2.0 * (self.batch_size * (total + backward) + evals * self.num_val * total)


class Shuffles:
    """The minibatch order of each distinct model seed, one permutation an epoch.

    The order is that of torch's DataLoader in the authors' loop: from the generator as the
    model's initial draws left it, every iteration over a loader draws an int64 base seed, and a
    shuffling sampler a second one that seeds its permutation; an evaluated epoch so consumes one
    more draw, for the pass over the validation loader.

    Args:
        states: torch generator state after each model's init, R of them.
        samples: N.
        epochs: budget in epochs.
        evaluated: for each epoch, whether it ends in an evaluation, bool ``[epochs]``.
    """

    def __init__(
        self, states: Sequence[Tensor], samples: int, epochs: int, evaluated: np.ndarray
    ) -> None:
        self.samples = samples
        self._seeds = [self._draw_seeds(state, epochs, evaluated) for state in states]

    @staticmethod
    def _draw_seeds(state: Tensor, epochs: int, evaluated: np.ndarray) -> list[int]:
        generator = torch.Generator()
        generator.set_state(state)
        cell = torch.empty((), dtype=torch.int64)
        seeds = []
        for epoch in range(epochs):
            cell.random_(generator=generator)  # base seed of the training loader's workers
            seeds.append(int(cell.random_(generator=generator)))
            if evaluated[epoch]:
                cell.random_(generator=generator)  # base seed of the validation loader's
        return seeds

    def order(self, first: int, last: int) -> Tensor:
        """Permutations of epochs ``first`` to ``last - 1``: int64 ``[R, last - first, N]``."""
        return torch.stack(
            [
                torch.stack([self._permutation(seed) for seed in seeds[first:last]])
                if last > first
                else torch.empty(0, self.samples, dtype=torch.int64)
                for seeds in self._seeds
            ]
        )

    def _permutation(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.samples, generator=generator)


def evaluated_epochs(evaluation: Evaluation, steps_per_epoch: int, epochs: int) -> np.ndarray:
    """For each epoch (counted from 0) whether it ends in an evaluation: bool ``[epochs]``."""
    if evaluation.schedule == "every-epoch":
        return np.ones(epochs, bool)
    spaced = np.array(logspace(0, log10(evaluation.horizon), evaluation.points))
    listed = np.unique((spaced / steps_per_epoch).astype(np.int64))
    mask = np.zeros(epochs, bool)
    mask[listed[listed < epochs]] = True
    return mask


def curve_steps(record: Recording, evaluated: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Evaluated steps at which losses and accuracies are kept: log-spaced, int64 ``[T]``.

    The grid of candidates is that of a budget of 10**6 steps, whatever the run's, so that a run
    whose budget is raised keeps the steps that it has.
    """
    candidates = (np.flatnonzero(evaluated) + 1) * steps_per_epoch
    if not record.curve_points or not len(candidates):
        return np.empty(0, np.int64)
    wanted = logspace(0, 6, record.curve_points)
    index = np.searchsorted(candidates, wanted)
    return np.unique(candidates[index[index < len(candidates)]]).astype(np.int64)


def make_buckets(cells: Sequence[Experiment], indices: Sequence[int]) -> list[Bucket]:
    """The buckets of a grid, in order of their first cell.

    Args:
        cells: experiments to train.
        indices: their flat grid indices, same length.

    Raises:
        UsageError: data and experiment do not fit each other.
        EnvironmentProblem: a data set is missing.
    """
    data: dict[Task, TaskData] = {}
    buckets: dict[object, list[int]] = {}
    for position, cell in enumerate(cells):
        if cell.task not in data:
            data[cell.task] = checked_data(cell)
        built = data[cell.task]
        key = (static_key(cell), built.x_train.shape, built.x_val.shape, built.num_classes)
        buckets.setdefault(key, []).append(position)
    return [
        _make_bucket([cells[p] for p in bucket], [indices[p] for p in bucket], data)
        for bucket in buckets.values()
    ]


def checked_data(cell: Experiment) -> TaskData:
    """The task's data, checked against the experiment that uses it."""
    d = cell.task.build()
    name = cell.task.name
    samples = d.x_train.shape[0]
    if samples < 1 or d.x_val.shape[0] < 1:
        raise UsageError(
            f"task {name!r} gives {samples} training and {len(d.x_val)} validation samples; "
            "give at least 1 of each"
        )
    for what, x, y in (("train", d.x_train, d.y_train), ("val", d.x_val, d.y_val)):
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise UsageError(
                f"task {name!r}: x_{what} has shape {tuple(x.shape)} and y_{what} "
                f"{tuple(y.shape)}; give [N, I] and [N]"
            )
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < d.num_classes:
            raise UsageError(f"task {name!r}: labels y_{what} are not in 0..{d.num_classes - 1}")
        if d.vocabulary and not 0 <= int(x.min()) <= int(x.max()) < d.vocabulary:
            raise UsageError(f"task {name!r}: tokens x_{what} are not in 0..{d.vocabulary - 1}")
    if bool(d.vocabulary) != bool(cell.model.embedding_dim):
        raise UsageError(
            f"task {name!r} gives {'tokens' if d.vocabulary else 'dense inputs'}, but "
            f"model.embedding_dim is {cell.model.embedding_dim}"
        )
    if d.targets is None and (cell.loss == "mse" or cell.predict == "nearest"):
        raise UsageError(
            f"task {name!r} gives no dense targets, which loss={cell.loss} with "
            f"predict={cell.predict} needs",
            hint="--set=task.target_dim=30 for the addition task",
        )
    if d.targets is not None and d.targets.shape[0] != d.num_classes:
        raise UsageError(f"task {name!r}: {d.targets.shape[0]} targets for {d.num_classes} classes")
    wide = d.targets is not None and d.targets.shape[1] != d.num_classes
    if wide and cell.loss == "cross_entropy":
        raise UsageError(f"task {name!r} has dense targets, which loss=cross_entropy cannot use")
    batch = cell.batch_size
    if batch and samples % batch:
        raise UsageError(f"batch_size {batch} does not divide the {samples} training samples")
    if cell.steps % (samples // (batch or samples)):
        raise UsageError(
            f"steps {cell.steps} is no multiple of the {samples // batch} steps of an epoch"
        )
    return d


def _make_bucket(
    cells: list[Experiment], indices: list[int], built: dict[Task, TaskData]
) -> Bucket:
    first = cells[0]
    dtype = torch_dtype(first.dtype)
    tasks = list(dict.fromkeys(c.task for c in cells))
    data = [built[t] for t in tasks]
    outputs = data[0].num_classes if data[0].targets is None else data[0].targets.shape[1]
    inputs = first.model.embedding_dim or data[0].x_train.shape[1]
    sizes = (inputs, *[first.model.width] * (first.model.depth - 1), outputs)
    vocabulary = data[0].vocabulary

    models = list(dict.fromkeys(c.model for c in cells))
    made = [initial_model(m, sizes, vocabulary) for m in models]
    names = tuple(name for name, _ in made[0][0].named_parameters())
    init = tuple(tuple(p.detach().to(dtype) for p in mlp.parameters()) for mlp, _ in made)

    samples = data[0].x_train.shape[0]
    per_epoch = samples // (first.batch_size or samples)
    epochs = first.steps // per_epoch
    evaluated = evaluated_epochs(first.evaluation, per_epoch, epochs)
    every = first.evaluation.schedule == "every-epoch"
    steps = torch.from_numpy((np.flatnonzero(evaluated) + 1) * per_epoch)

    def stacked(name: str) -> Tensor:
        x = torch.stack([getattr(d, name) for d in data])
        return x.to(dtype) if x.is_floating_point() else x.long()

    lr, decay = _group_hyperparameters(cells, names)
    return Bucket(
        cell=first,
        cells=tuple(indices),
        names=names,
        shapes=tuple(tuple(p.shape) for p in init[0]),
        sizes=sizes,
        vocabulary=vocabulary,
        num_classes=data[0].num_classes,
        x_train=stacked("x_train"),
        y_train=stacked("y_train"),
        x_val=stacked("x_val"),
        y_val=stacked("y_val"),
        targets=None if data[0].targets is None else stacked("targets"),
        data_index=torch.tensor([tasks.index(c.task) for c in cells]),
        lr=lr,
        weight_decay=decay,
        init=init,
        init_index=torch.tensor([models.index(c.model) for c in cells]),
        shuffles=Shuffles([s for _, s in made], samples, epochs, evaluated)
        if first.batch_size
        else None,
        eval_steps=None if every else steps,
        curve_steps=torch.from_numpy(curve_steps(first.record, evaluated, per_epoch)),
    )


def in_encoder(optimizer_encoder: str, name: str, names: tuple[str, ...]) -> bool:
    """Whether a parameter belongs to the encoder group."""
    if optimizer_encoder == "embedding":
        return name.startswith("embedding.")
    if optimizer_encoder == "all-but-last":
        return name not in names[-2:]  # weight and bias of the last layer
    return False


def _group_hyperparameters(
    cells: list[Experiment], names: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Learning rate and weight decay of every parameter tensor and cell: float64 ``[G, M]``."""
    lr = torch.empty(len(names), len(cells), dtype=torch.float64)
    decay = torch.empty_like(lr)
    for m, cell in enumerate(cells):
        o = cell.optimizer
        own = o.weight_decay if o.encoder_weight_decay is None else o.encoder_weight_decay
        for g, name in enumerate(names):
            encoder = in_encoder(o.encoder, name, names)
            lr[g, m] = o.encoder_lr if encoder else o.lr
            decay[g, m] = own if encoder else o.weight_decay
    return lr, decay
