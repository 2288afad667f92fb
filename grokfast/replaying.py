"""Replay: a cell trained a second time, for what the first run did not keep.

Training is deterministic, so parameters at any step can be had afterwards: the cell is trained
again, with the engine, device and facts that its file names, and compared with the file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grokfast.bucket import Bucket
from grokfast.bucketing import make_buckets
from grokfast.engines import Engine, choose_engine, facts
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.models.chain import Chain
from grokfast.observing import Observer
from grokfast.provenance import data_digests
from grokfast.reproduced import check_reproduced
from grokfast.results import Results
from grokfast.spacing import linspace
from grokfast.state import State
from grokfast.trainer import next_call

#: Relative epochs: memorised, generalised and three between.
FIVE = 5

Until = Literal["generalised", "end"]


@dataclass(frozen=True, eq=False)
class Replay:
    """One cell at S steps of its training.

    Attributes:
        experiment: of the cell.
        steps: int64 ``[S]``; 0 is the initial state.
        steps_per_epoch: optimizer steps an epoch.
        tensors: parameters and buffers by their names in the module, ``[S, ...]``.
        x_train, y_train: the training set, ``[N, I]`` or tokens ``[N, K]``, and labels ``[N]``.
        compared: how many numbers of the file were compared with it, all equal to the bit.
    """

    experiment: Experiment
    steps: NDArray[np.int64]
    steps_per_epoch: int
    tensors: dict[str, Tensor]
    x_train: Tensor
    y_train: Tensor
    compared: int
    _module: nn.Module

    @property
    def epochs(self) -> NDArray[np.float64]:
        """Epochs done at each step, ``[S]``."""
        return self.steps / self.steps_per_epoch

    def module(self, k: int) -> nn.Module:
        """The network at the k-th of the steps, in evaluation mode; one object for all of them,
        whose parameters the next call replaces."""
        self._module.load_state_dict({name: t[k] for name, t in self.tensors.items()})
        return self._module.eval()

    def hidden(self, k: int) -> NDArray[np.floating[Any]]:
        """Hidden representations of the training set at the k-th of the steps, ``[N, H]``: what
        enters the last linear layer.

        Raises:
            UsageError: a model that is no chain of layers, or without a hidden one.
        """
        module, seen = self.module(k), []
        if not isinstance(module, Chain) or len(module.layers) + (module.embedding is not None) < 2:
            name = self.experiment.model.name
            raise UsageError(f"this model {name!r} has no hidden layer before a last linear one")
        handle = module.layers[-1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        with torch.no_grad():
            module(self.x_train)
        handle.remove()
        return seen[0].numpy()


def relative_epochs(first: int, last: int, count: int = FIVE) -> list[int]:
    """Evenly spaced epochs from ``first`` to ``last``, as the parity blog's titles have them: with
    epochs counted from 0, round(linspace(first, last, count)), halves to the even one."""
    spaced = linspace(first - 1, last - 1, count)
    return sorted({round(epoch) + 1 for epoch in spaced})


def replay(
    results: Results,
    cell: int | Mapping[str, Any] | None = None,
    *,
    steps: Sequence[int] | None = None,
    epochs: Sequence[int] | None = None,
    until: Until = "generalised",
) -> Replay:
    """Trains one cell of a run again, to the steps asked for.

    With neither ``steps`` nor ``epochs``, the five of :func:`relative_epochs` from the epoch in
    which the cell memorised (the first one where it never did).

    Args:
        results: of the run; of a file, :meth:`Results.load`.
        cell: its position in the file, or axis values as for :meth:`Results.find`; may be left out
            where there is only one.
        steps, epochs: where to look, one of the two, counted from 1; 0 is the initial state.
        until: the last of the relative epochs: that in which the cell ``generalised`` (the last one
            where it never did), or the ``end`` of its training.

    Raises:
        UsageError: no such cell or step; other data or other numbers than the file has, with what
            differs: then this is not the run of the file.
        EnvironmentProblem: the engine or the data of the run are missing here.
    """
    position = _position(results, cell)
    run = int(results["run"][position])
    with _level(results):
        engine, bucket, member = _made_ready(results, run)
        wanted = _wanted(results, position, bucket, steps, epochs, until)
        snapshots, state = _train(engine, bucket, member, wanted)
        compared = check_reproduced(
            results, position, engine.detail, bucket, state, member, wanted[-1]
        )
    names = list(snapshots[0])
    data = int(bucket.data_index[member])
    return Replay(
        experiment=results.grid.cells[run],
        steps=np.array(wanted, np.int64),
        steps_per_epoch=bucket.steps_per_epoch,
        tensors={name: torch.stack([s[name] for s in snapshots]) for name in names},
        x_train=bucket.x_train[data],
        y_train=bucket.y_train[data],
        compared=compared,
        _module=bucket.module(),
    )


def _position(results: Results, cell: int | Mapping[str, Any] | None) -> int:
    if isinstance(cell, int):
        if not 0 <= cell < len(results):
            raise UsageError(f"no cell {cell}; there are {len(results)}, counted from 0")
        return cell
    return results.find(**(cell or {}))


@contextlib.contextmanager
def _level(results: Results) -> Iterator[None]:
    """The instruction set that the native engine had, where this processor has it."""
    name = "GROKFAST_NATIVE_LEVEL"
    before = os.environ.get(name)
    levels = facts.read(str(results.provenance.get("engine_detail", ""))).get("level", ())
    if len(levels) == 1 and levels[0] in _runnable():
        os.environ[name] = levels[0]
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _runnable() -> Sequence[str]:
    """Levels of the native engine here; none where it was not built."""
    try:
        from grokfast import _native
    except ImportError:
        return ()
    levels: Sequence[str] = _native.levels()["runnable"]
    return levels


def _made_ready(results: Results, run: int) -> tuple[Engine, Bucket, int]:
    """The file's engine, the bucket to train, and the cell's place in it: alone, unless an engine's
    bits depend on the cells that train together.

    Raises:
        UsageError, EnvironmentProblem: as :func:`replay`.
    """
    known = results.provenance
    threads = facts.read(str(known.get("engine_detail", ""))).get("threads", ())
    cells = results.grid.cells

    def buckets(runs: list[int]) -> list[Bucket]:
        return make_buckets([cells[i] for i in runs], runs)

    (bucket,) = buckets([run])
    engine, _ = choose_engine(
        str(known.get("engine", "auto")),
        [bucket],
        str(known.get("device", "auto")).partition(":")[0],
        int(threads[0]) if len(threads) == 1 else None,
    )
    if not engine.invariant:
        bucket = next(b for b in buckets(results["run"].tolist()) if run in b.cells)
    was, now = results.data_digests(), data_digests(results.grid, [bucket])
    identity = cells[run].data_identity()
    if was.get(identity, now[identity]) != now[identity]:
        raise UsageError(
            f"{results.grid.name} was trained on other data than task {cells[run].task.name!r} "
            "gives now: it cannot be replayed"
        )
    return engine, bucket, bucket.cells.index(run)


def _wanted(
    results: Results,
    position: int,
    bucket: Bucket,
    steps: Sequence[int] | None,
    epochs: Sequence[int] | None,
    until: Until,
) -> list[int]:
    """Ascending steps.

    Raises:
        UsageError: steps and epochs at once, none, or one beyond what was trained.
    """
    if steps is not None and epochs is not None:
        raise UsageError("both steps and epochs are given; give one of the two")
    per_epoch, done = bucket.steps_per_epoch, int(results["steps_done"][position])
    if done < 1:
        raise UsageError("this cell was not trained yet, so there is nothing to replay")
    if steps is None:
        if epochs is None:
            epochs = _relative(results, position, per_epoch, until)
        steps = [epoch * per_epoch for epoch in epochs]
    wanted = sorted(set(steps))
    if not wanted or wanted[0] < 0 or wanted[-1] > done:
        raise UsageError(
            f"steps {wanted} of a cell that was trained for {done} ({done // per_epoch} epochs); "
            f"give one or more of 0 to {done}"
        )
    return wanted


def _relative(results: Results, position: int, per_epoch: int, until: Until) -> list[int]:
    first, generalised = (
        -(-int(results[name][position]) // per_epoch) for name in ("t_train", "t_val")
    )
    last = int(results["steps_done"][position]) // per_epoch
    match until:
        case "generalised":
            last = generalised if generalised > 0 else last
        case "end":
            pass
        case _:
            raise UsageError(f"until is {until!r}; give generalised or end")
    first = max(first, 1)
    if last < first:
        raise UsageError(
            f"this cell generalised in epoch {last}, before it memorised in epoch {first}",
            hint="until='end' goes on to the end, epochs=[...] names epochs",
        )
    return relative_epochs(first, last)


def _train(
    engine: Engine, bucket: Bucket, member: int, wanted: Sequence[int]
) -> tuple[list[dict[str, Tensor]], State]:
    """The cell's parameters and buffers at each of the ascending steps, and the state at the last
    one. Calls are those of the run; what is looked at between two of them is a copy's."""
    observer = Observer(bucket, engine.measures(bucket))
    state = now = State.initial(bucket).to(engine.device)
    snapshots = []
    for step in wanted:
        while (call := next_call(engine, observer, state)) is not None and call[1] <= step:
            engine.advance(bucket, state, *call)
        now = state
        if call is not None and int(state.step[member]) < step:
            now = state if engine.invariant else state.clone()
            engine.advance(bucket, now, call[0], step)
        tensors = dict(zip(bucket.names, now.params, strict=True)) | now.buffers
        snapshots.append({name: t[member].cpu().clone() for name, t in tensors.items()})
    return snapshots, now
