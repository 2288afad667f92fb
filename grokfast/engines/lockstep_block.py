"""A block of cells on its way: gathered from the State, trained in lockstep, scattered back."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines.lockstep import Data, Models, Spec, Tables
from grokfast.engines.lockstep_compile import Layout
from grokfast.outcomes import CURVES
from grokfast.state import State


class Samples:
    """A bucket's data sets on a device, in the form that a pass reads."""

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        x = torch.cat([bucket.x_train, bucket.x_val], dim=1).to(device)
        if bucket.vocabulary and Spec.of(bucket).explicit:
            # How often each token occurs: the embedding sum and its gradient become products,
            # without the atomic additions that make a scatter differ from run to run on a GPU.
            x = torch.stack(
                [torch.nn.functional.one_hot(own, bucket.vocabulary).sum(1) for own in x]
            ).to(bucket.dtype)
        self.x = x  # [D, N + V, I or P]
        self.y = torch.cat([bucket.y_train, bucket.y_val], dim=1).to(device)  # [D, N + V]
        self.targets = None if bucket.targets is None else bucket.targets.to(device)

    @classmethod
    def of(cls, bucket: Bucket, device: torch.device) -> Samples:
        """Prepared once a bucket and device."""
        key = f"samples on {device}"
        if key not in bucket.extra:
            bucket.extra[key] = cls(bucket, device)
        return bucket.extra[key]  # type: ignore[return-value]


#: Passes whose tables are on the device at a time: a fixed number, because compiled code knows it.
WINDOW = 512


class BatchRows:
    """The rows of every step of a call, drawn once for all blocks."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._lock = threading.Lock()
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def of_steps(self, first: int, last: int) -> Tensor:
        """Rows of the batches of steps ``first`` to ``last``: int64 [R, S, B]; a short batch is
        filled up with row 0, which nobody reads."""
        with self._lock:
            if (first, last) not in self._drawn:
                self._drawn[first, last] = self._draw(first - 1, last)
            return self._drawn[first, last]

    def _draw(self, start: int, until: int) -> Tensor:
        assert self.bucket.orders is not None
        per_epoch, size = self.bucket.steps_per_epoch, self.bucket.batch_size
        epoch = start // per_epoch
        epochs = self.bucket.orders.order(epoch, -(-until // per_epoch))  # [R, epochs, N]
        missing = per_epoch * size - epochs.shape[2]  # below 0 where a remainder is dropped
        epochs = torch.nn.functional.pad(epochs, (0, missing))
        batches = epochs.reshape(len(epochs), -1, size)
        return batches[:, start - epoch * per_epoch : until - epoch * per_epoch]


def split(bucket: Bucket, cells: Tensor, size: int | None) -> list[Tensor]:
    """Blocks of cells.

    With a ``size``, blocks of just that many cells that share their data and orders, and the
    rest in blocks of one: two layouts to compile. Without, one block for all, or one for each
    kind of data where that leaves large ones: a block of mixed data copies it for every model.
    """
    kind = bucket.data_index[cells] * (1 + int(bucket.order_index.max()))
    if bucket.orders is not None:
        kind = kind + bucket.order_index[cells]
    kinds = [cells[kind == k] for k in kind.unique().tolist()]
    if size is None:
        large = all(len(own) >= _LARGE for own in kinds)
        return kinds if large else [cells]
    blocks = []
    for own in kinds:
        whole = len(own) // size * size
        blocks += [*own[:whole].split(size), *own[whole:].split(1)]
    return sorted(filter(len, blocks), key=len, reverse=True)


#: Models enough to fill a GPU.
_LARGE = 64


def room(bucket: Bucket, cells: Tensor) -> int:
    """Models to compile a block of these cells for, on a GPU: as many as trained together at the
    start, halved as long as the cells fit. So a run compiles a few times, not for every number of
    cells that are left.
    """
    blocks = split(bucket, torch.arange(bucket.num_cells), None)
    models = next(len(block) for block in blocks if bool((block == cells[0]).any()))
    if models < len(cells):  # of several kinds, once few are left of each
        models = bucket.num_cells
    while models > 1 and -(-models // 2) >= len(cells):
        models = -(-models // 2)
    return models


class Records:
    """Values of a block's models at some steps of a call, in one piece of memory.

    Many small pieces, made between the temporaries of the passes, would keep the allocator from
    giving those back: 2.1 GB instead of 1.0 for 441 toy cells.
    """

    def __init__(self, steps: list[int], shape: tuple[int, ...], live: Tensor) -> None:
        self.row = {step: k for k, step in enumerate(steps)}
        self.did = live.new_zeros(len(steps), *live.shape)  # [S, M]
        self.values = torch.zeros(len(steps), *shape, device=live.device)  # [S, ...] float32

    def keep(self, step: int, did: Tensor, values: Tensor) -> None:
        """Keeps ``values`` if the step is one of those; ``did``: which models were at it, [M]."""
        k = self.row.get(step)
        if k is not None:
            self.did[k] = did
            self.values[k] = values


class Block:
    """Cells at the same step, with their data and tables for the steps up to ``until``.

    Tensors have room for ``models`` M; those beyond the cells are copies of the first, never live.
    """

    def __init__(
        self,
        bucket: Bucket,
        state: State,
        cells: Tensor,
        until: int,
        rows: BatchRows,
        models: int,
    ) -> None:
        self.bucket = bucket
        self.start, self.until = int(state.step[cells[0]]), until
        self.size = len(cells)
        cells = torch.cat([cells, cells[:1].expand(models - self.size)])
        device = state.step.device
        self.index = cells.to(device)  # [M] int64
        self.rows = rows
        d, r = bucket.data_index[cells], bucket.order_index[cells]
        if (d == d[0]).all() and (bucket.orders is None or bool((r == r[0]).all())):
            d, r = d[:1], r[:1]  # all models read one copy
        self.orders = r
        self.models = self._gather(state)
        self.data = self._data(Samples.of(bucket, device), d)
        self.tables = self._tables(cells)
        steps, live = range(self.start + 1, until + 1), self.models.live
        points = [step for step in steps if step in bucket.curve_index]
        self.curves = Records(points, tuple(self.models.judged.shape), live)

    def _gather(self, state: State) -> Models:
        i = self.index
        m = len(i)
        return Models(
            params=[p[i] for p in state.params],
            slots=[[t[i] for t in own] for own in state.slots.values()],
            buffers={name: t[i] for name, t in state.buffers.items()},
            live=torch.arange(m, device=i.device) < self.size,
            progress={name: t[i] for name, t in state.progress.items()},
            crossings={name: t[i] for name, t in state.crossings.items()},
            batch_loss=torch.zeros(m, dtype=torch.float64, device=i.device),
            judged=torch.full((len(CURVES), m), torch.nan, device=i.device),
        )

    def _data(self, samples: Samples, d: Tensor) -> Data:
        order = None
        if self.bucket.orders is not None:
            shape = len(self.orders), WINDOW, self.bucket.batch_size
            order = torch.zeros(shape, dtype=torch.int64, device=samples.x.device)
        targets = None if samples.targets is None else samples.targets[d]
        seeds = self.bucket.noise_seeds[self.index.cpu()].to(self.index.device)
        return Data(samples.x[d], samples.y[d], targets, order, seeds, self._initial())

    def _initial(self) -> tuple[Tensor, ...]:
        """Initial values of every parameter, by model, where the decay is towards them."""
        bucket, device = self.bucket, self.index.device
        if bucket.cell.optimizer.decay_towards != "initial":
            return ()
        models = bucket.init_index[self.index.cpu()]
        return tuple(
            torch.stack([own[g] for own in bucket.init])[models].to(device)
            for g in range(len(bucket.parameters))
        )

    def _tables(self, cells: Tensor) -> Tables:
        bucket, device, dtype = self.bucket, self.index.device, self.bucket.dtype
        lr, decay = bucket.lr[:, cells], bucket.weight_decay[:, cells]
        later = bucket.weight_decay_memorised
        memorised = decay if later is None else later[:, cells]
        return Tables(
            next=torch.zeros(1, dtype=torch.int64, device=device),
            flags=torch.zeros(WINDOW, 4, dtype=torch.int64, device=device),
            bias=torch.zeros(WINDOW, 2, dtype=dtype, device=device),
            factor=torch.ones(WINDOW, len(self.index), dtype=dtype, device=device),
            lr=lr.to(device, dtype),
            keep=(1 - lr * decay).to(device, dtype),
            decay=decay.to(device, dtype),
            keep_memorised=(1 - lr * memorised).to(device, dtype),
            decay_memorised=memorised.to(device, dtype),
        )

    def load(self, k: int) -> None:
        """Writes the tables of passes k to k + WINDOW - 1."""
        bucket = self.bucket
        numbers = range(self.start + k + 1, min(self.start + k + WINDOW, self.until + 1) + 1)
        flags = [
            (
                i,
                i > self.start + 1 and bucket.evaluates(i - 1),
                i <= self.until,
                (i - 1) % bucket.steps_per_epoch == 0,
            )
            for i in numbers
        ]
        beta1, beta2 = bucket.cell.optimizer.beta1, bucket.cell.optimizer.beta2
        bias = [(1 / (1 - beta1**i), (1 - beta2**i) ** -0.5) for i in numbers]
        tables, n = self.tables, len(numbers)
        tables.flags[:n] = torch.tensor(flags, dtype=torch.int64)
        tables.bias[:n] = torch.tensor(bias, dtype=torch.float64)
        if bool(bucket.warmup.any()):
            steps = torch.tensor(numbers)[:, None]
            tables.factor[:n] = bucket.lr_factor(steps)[:, self.index.cpu()].to(self.index.device)
        tables.next.zero_()
        if self.data.order is not None and numbers[0] <= self.until:
            rows = self.rows.of_steps(numbers[0], min(numbers[-1], self.until))
            # A pass that only judges has no rows of its own: it reads what the table holds.
            self.data.order[:, : rows.shape[1]] = rows[self.orders].to(self.index.device)

    @property
    def tensors(self) -> tuple[Models, Data, Tables]:
        return self.models, self.data, self.tables

    def layout(self, eager: bool = False) -> Layout:
        return Layout(
            models=len(self.index),
            shared=len(self.data.x) == 1,
            dtype=self.bucket.dtype,
            device=self.index.device,
            precision=self.bucket.cell.precision,
            eager=eager,
            threads=1,
        )

    @property
    def passes(self) -> int:
        """One a step, and one more where the last step remains to be judged."""
        return self.until - self.start + self.bucket.evaluates(self.until)

    def kinds_of(self, k: int) -> list[tuple[bool, int]]:
        """Pass k (from 0) by kind: whether it judges, and the rows of its batch.

        A large network's is two, one that judges, without a batch, and one that trains.
        """
        first, last = self.bucket.batch_rows(min(self.start + k, self.until - 1))
        judges = self._judges(k)
        if not self.apart:
            return [(judges, last - first)]
        trains = self.start + k < self.until
        return [(True, 0)] * judges + [(False, last - first)] * trains

    def kinds(self) -> set[tuple[bool, int]]:
        """All kinds of passes that there may be."""
        bucket = self.bucket
        ranges = [bucket.batch_rows(step) for step in (0, bucket.steps_per_epoch - 1)]
        sizes = {last - first for first, last in ranges}
        if self.apart:
            return {(True, 0), *((False, size) for size in sizes)}
        return {(judges, size) for judges in (False, True) for size in sizes}

    @property
    def apart(self) -> bool:
        """Whether judging is a pass of its own."""
        assert self.bucket.stacked is not None
        return self.bucket.stacked.large

    def _judges(self, k: int) -> bool:
        """Whether pass k (from 0) judges the step before it.

        With a full batch evaluated at every step all passes do, the first one to no effect: it
        is not worth a compilation of its own.
        """
        bucket = self.bucket
        every_step = bucket.steps_per_epoch == 1 and bucket.eval_steps is None and not self.apart
        return every_step or (k > 0 and bucket.evaluates(self.start + k))

    def record(self, k: int) -> None:
        """Keeps what pass k has judged or done, where the experiment asks for it."""
        judged, models = self.start + k, self.models
        if k > 0:
            # Who did that step: models that froze before have a smaller count.
            self.curves.keep(judged, models.progress["step"] >= judged, models.judged)

    def scatter(self, state: State) -> None:
        """Writes everything back."""
        cells = self.index[: self.size]
        models, bucket, curves = self.models, self.bucket, self.curves
        lists = [state.params, *state.slots.values()], [models.params, *models.slots]
        for theirs, ours in zip(*lists, strict=True):
            for whole, own in zip(theirs, ours, strict=True):
                whole[cells] = own[: self.size]
        for table, now in (
            (state.buffers, models.buffers),
            (state.progress, models.progress),
            (state.crossings, models.crossings),
        ):
            for name, own in now.items():
                table[name][cells] = own[: self.size]
        for step, k in curves.row.items():
            j, did = bucket.curve_index[step], curves.did[k]
            for name, own in zip(CURVES, curves.values[k], strict=True):
                state.curves[name][self.index[did], j] = own[did]
