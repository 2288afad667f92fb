"""The order in which minibatches see the training set, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from grokfast.experiment import Experiment
from grokfast.schedule import Schedule


def samples_of_batch(experiment: Experiment, samples: int) -> int:
    """Samples of a whole batch, of so many training samples; as the experiment asks for them, which
    may be more than there are."""
    size, share = experiment.batch_size, experiment.batches.share
    if not size or share is None:
        return size or samples
    return min(size, math.ceil(Fraction(repr(share)) * samples))


class Orders:
    """R orders of the N training rows, one permutation an epoch; which cell has which, its bucket
    says. A batch is the next rows of the epoch's permutation.

    Args:
        samples: N.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def order(self, first: int, last: int) -> Tensor:
        """Permutations of epochs ``first`` to ``last - 1``: int64 ``[R, last - first, N]``."""
        raise NotImplementedError


class LoaderOrders(Orders):
    """The order of torch's DataLoader in the authors' loop: from the generator as the model's
    initial draws left it, every iteration over a loader draws an int64 base seed, and a shuffling
    sampler a second one that seeds its permutation; an evaluated epoch so consumes one more draw,
    for the pass over the validation loader.

    Args:
        states: torch generator state after each model's init, R of them.
    """

    def __init__(self, states: Sequence[Tensor], samples: int, schedule: Schedule) -> None:
        super().__init__(samples)
        self._schedule = schedule
        self._generators = [_generator(state) for state in states]
        self._seeds: list[list[int]] = [[] for _ in states]

    def order(self, first: int, last: int) -> Tensor:
        for generator, seeds in zip(self._generators, self._seeds, strict=True):
            cell = torch.empty((), dtype=torch.int64)
            for epoch in range(len(seeds), last):
                cell.random_(generator=generator)  # base seed of the training loader's workers
                seeds.append(int(cell.random_(generator=generator)))
                if self._schedule.evaluates_epoch(epoch):
                    cell.random_(generator=generator)  # base seed of the validation loader's
        return _stacked(
            [
                [
                    torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed))
                    for seed in seeds[first:last]
                ]
                for seeds in self._seeds
            ],
            self.samples,
        )


class ContinuedOrders(Orders):
    """One ``torch.randperm`` an epoch from the generator as the model's initial draws left it."""

    def __init__(self, states: Sequence[Tensor], samples: int) -> None:
        super().__init__(samples)
        self._states = list(states)
        self._begin()

    def _begin(self) -> None:
        self._generators = [_generator(state) for state in self._states]
        self._next = 0
        self._last: list[Tensor] = []  # orders of the epoch before the next

    def order(self, first: int, last: int) -> Tensor:
        # A call that ends within an epoch is followed by one that begins with the same epoch.
        epochs = [self._last] if 0 <= first == self._next - 1 < last else []
        if first + len(epochs) < self._next:  # a generator cannot go back
            self._begin()
        while self._next < first:
            self._draw()
        epochs += [self._draw() for _ in range(self._next, last)]
        return _stacked([list(own) for own in zip(*epochs, strict=True)], self.samples)

    def _draw(self) -> list[Tensor]:
        self._next += 1
        self._last = [torch.randperm(self.samples, generator=g) for g in self._generators]
        return self._last


class ByStepOrders(Orders):
    """``torch.randperm`` after seeding with the number of steps done before the epoch."""

    def __init__(self, samples: int, steps_per_epoch: int) -> None:
        super().__init__(samples)
        self._steps = steps_per_epoch

    def order(self, first: int, last: int) -> Tensor:
        generators = [torch.Generator().manual_seed(e * self._steps) for e in range(first, last)]
        return _stacked(
            [[torch.randperm(self.samples, generator=g) for g in generators]], self.samples
        )


class FixedOrders(Orders):
    """The order of the data."""

    def order(self, first: int, last: int) -> Tensor:
        return torch.arange(self.samples).expand(1, last - first, -1)


def _generator(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _stacked(orders: list[list[Tensor]], samples: int) -> Tensor:
    """``[R, epochs, N]``, with any number of epochs."""
    none = torch.empty(0, samples, dtype=torch.int64)
    if not orders:
        return none[None]
    return torch.stack([torch.stack(epochs) if epochs else none for epochs in orders])
