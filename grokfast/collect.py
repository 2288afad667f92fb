"""States -> Results and back: what goes into the file, and how a run takes it up again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.grid import Grid
from grokfast.observables import OBSERVABLES
from grokfast.observing import Observer
from grokfast.outcomes import ACCURACIES, CROSSINGS, CURVES, PROGRESS
from grokfast.phases import classify, late_medians
from grokfast.results import (
    DIVERGED,
    OK,
    PENDING,
    RUNNING,
    Results,
    hyperparameter_columns,
)
from grokfast.state import State


def collect(
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    provenance: dict[str, Any],
    known: Results | None = None,
) -> Results:
    """The results of all buckets, cells in flat order.

    Args:
        known: what a file said when the run was taken up again. A cell that has not yet come as
            far as it had come there keeps what was found then: nothing is lost where a cell must
            train again because its state is gone.
    """
    run = np.array([i for b in buckets for i in b.cells], np.int64)
    order = np.argsort(run)
    cells = run[order].tolist()
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"run": (("run",), run[order])}
    for name, column in hyperparameter_columns(grid, cells).items():
        variables[name] = (("run",), column)

    def joined(name: str) -> np.ndarray:
        return torch.cat([getattr(s, name).cpu() for s in states]).numpy()[order]

    pairs = list(zip(buckets, states, strict=True))
    for outcome in PROGRESS:
        variables[outcome.in_file] = (("run",), joined(outcome.name))
    _add_curves(variables, pairs, order)
    _add_crossings(variables, pairs, order)
    _add_observed(variables, pairs, order)
    weights = [_weights(p, s) for p, s in pairs if p.cell.record.weights]
    if known is not None:
        _keep_known(variables, weights, known, [grid.keys[i] for i in cells])
    _add_accuracies(variables, pairs, order)

    done = torch.cat([s.done(p).cpu() for p, s in pairs]).numpy()[order]
    diverged, steps = variables["diverged_at"][1] >= 0, variables["steps_done"][1]
    status = np.select([diverged, done, steps > 0], [DIVERGED, OK, RUNNING], PENDING)
    variables["status"] = (("run",), status.astype(np.uint8))
    results = Results(
        grid=grid,
        variables=variables,
        weights=weights,
        provenance=provenance,
        complete=bool(done.all()),
    )
    variables["phase"] = (("run",), results.phases())
    return results


def _add_curves(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """Curves ``[run, step]`` on the union of the buckets' steps, NaN where not measured."""
    step = np.unique(np.concatenate([p.curve_steps.numpy() for p, _ in pairs]))
    if not len(step):
        return
    variables["step"] = (("step",), step)
    for name in CURVES:
        blocks = []
        for bucket, state in pairs:
            block = np.full((bucket.num_cells, len(step)), np.nan, np.float32)
            at = np.searchsorted(step, bucket.curve_steps.numpy())
            block[:, at] = getattr(state, name).cpu().numpy()
            blocks.append(block)
        variables[name] = (("run", "step"), np.concatenate(blocks)[order])


def _add_crossings(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """First crossings ``[run, threshold]`` on the union of the buckets' thresholds, -1 where never
    or not asked for."""
    threshold = np.unique([t for b, _ in pairs for t in b.thresholds])
    if not len(threshold):
        return
    variables["threshold"] = (("threshold",), threshold)
    for name in CROSSINGS:
        blocks = []
        for bucket, state in pairs:
            block = np.full((bucket.num_cells, len(threshold)), -1, np.int64)
            at = np.searchsorted(threshold, np.array(bucket.thresholds))
            block[:, at] = getattr(state, name).cpu().numpy()
            blocks.append(block)
        variables[name] = (("run", "threshold"), np.concatenate(blocks)[order])


def _add_observed(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """Observables ``[run, observed, ...]`` on the union of all their steps (embeddings on steps of
    their own, ``snapshot``), NaN where not measured."""
    steps = [Observer(bucket).steps for bucket, _ in pairs]
    for name in dict.fromkeys(n for own in steps for n in own):
        dim = _observed_dim(name)
        together = [v for own in steps for n, v in own.items() if _observed_dim(n) == dim]
        axis = np.unique(np.concatenate(together))
        rest = [s.observed[name].shape[2:] for _, s in pairs if name in s.observed]
        largest: tuple[int, ...] = tuple(max(sizes) for sizes in zip(*rest, strict=True))
        blocks = []
        for (bucket, state), own in zip(pairs, steps, strict=True):
            block = np.full((bucket.num_cells, len(axis), *largest), np.nan, np.float32)
            if name in own:
                values = state.observed[name].cpu().numpy()
                inner: list[Any] = [slice(n) for n in values.shape[2:]]
                block[:, np.searchsorted(axis, own[name]), *inner] = values
            blocks.append(block)
        variables[dim] = ((dim,), axis)
        dims = ("run", dim, *OBSERVABLES[name].dims)
        variables[name] = (dims, np.concatenate(blocks)[order])


def _observed_dim(name: str) -> str:
    return "snapshot" if name == "embeddings" else "observed"


def _add_accuracies(
    variables: dict[str, Any], pairs: list[tuple[Bucket, State]], order: np.ndarray
) -> None:
    """Last and best accuracies ``[run]``, NaN where a cell has not been evaluated."""
    for name, (count, _) in ACCURACIES.items():
        samples = np.concatenate([np.full(b.num_cells, _samples(b, count)) for b, _ in pairs])
        variables[name] = (("run",), _accuracy(variables[count][1], samples[order]))


def _samples(bucket: Bucket, count: str) -> int:
    """Of which a count of right predictions is a part."""
    return bucket.counted if "train" in count else bucket.num_val


def _accuracy(right: np.ndarray, samples: np.ndarray | int) -> np.ndarray:
    return np.where(right < 0, np.nan, right / samples).astype(np.float32)


def phases_now(grid: Grid, bucket: Bucket, state: State) -> np.ndarray:
    """Phase code of each cell of a bucket, int8 ``[M]``."""
    accuracies = {
        name: _accuracy(getattr(state, count).cpu().numpy(), _samples(bucket, count))
        for name, (count, _) in ACCURACIES.items()
    }
    if window := bucket.cell.phase.window:
        windows = [window] * bucket.num_cells
        curve, reached, done = (
            t.cpu().numpy() for t in (state.train_acc, state.t_train, state.step)
        )
        accuracies["late_train_acc"] = late_medians(
            bucket.curve_steps.numpy(), curve, reached, done, windows
        )
    return classify(
        state.t_train.cpu().numpy(),
        state.t_val.cpu().numpy(),
        bucket.cell.phase,
        finished=state.done(bucket).cpu().numpy(),
        steps_done=state.step.cpu().numpy(),
        cells=[grid.cells[i] for i in bucket.cells],
        **accuracies,
    )


def _weights(bucket: Bucket, state: State) -> dict[str, np.ndarray]:
    return {
        "run": np.array(bucket.cells, np.int64),
        **{name: tensor.cpu().numpy() for name, tensor in _module_tensors(bucket, state)},
    }


def _module_tensors(bucket: Bucket, state: State) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by the module's names."""
    yield from zip(bucket.names, state.params, strict=True)
    yield from state.buffers.items()


def _keep_known(
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]],
    weights: list[dict[str, np.ndarray]],
    known: Results,
    keys: list[str],
) -> None:
    """Puts back, in place, the rows of cells that are behind what is known of them."""
    at = {known.grid.keys[run]: k for k, run in enumerate(known["run"].tolist())}
    before = np.array([at.get(key, -1) for key in keys])
    behind = np.flatnonzero(
        (before >= 0) & (variables["steps_done"][1] < known["steps_done"][before])
    )
    if not len(behind):
        return
    outcomes = [x.in_file for x in PROGRESS]
    for name in (*outcomes, *CROSSINGS, *CURVES, *OBSERVABLES):
        if name not in variables or name not in known:
            continue
        dims, values = variables[name]
        values = values.copy()  # it may be the memory of the state itself
        old = known[name][before[behind]]
        if len(dims) == 1:
            values[behind] = old
        else:
            axis = variables[dims[1]][1], known[dims[1]]
            _, here, there = np.intersect1d(*axis, return_indices=True)
            nothing = -1 if values.dtype.kind == "i" else np.nan
            block = np.full((len(behind), *values.shape[1:]), nothing, values.dtype)
            rest: list[Any] = [slice(n) for n in old.shape[2:]]
            block[:, here, *rest] = old[:, there]
            values[behind] = block
        variables[name] = dims, values
    rows = _weight_rows(known)
    runs = {int(variables["run"][1][k]): int(known["run"][before[k]]) for k in behind}
    for bucket in weights:
        mine = [(m, *rows[runs[r]]) for m, r in enumerate(bucket["run"].tolist()) if r in runs]
        for name in set(bucket) - {"run"} if mine else ():
            bucket[name] = bucket[name].copy()
            for m, its_bucket, k in mine:
                bucket[name][m] = its_bucket[name][k]


def _weight_rows(results: Results) -> dict[int, tuple[dict[str, np.ndarray], int]]:
    """Flat cell index -> its bucket of weights and its row there."""
    return {
        int(run): (bucket, k)
        for bucket in results.weights
        for k, run in enumerate(bucket["run"].tolist())
    }


def restore_finished(
    old: Results,
    grid: Grid,
    buckets: list[Bucket],
    states: list[State],
    in_checkpoint: set[str],
) -> list[Tensor]:
    """Takes over the cells that the results file holds as stopped, diverged or at the budget.

    Cells of the checkpoint are left as they are; the rest (begun, but lost) start again.

    Returns:
        For each bucket the cells whose outcome is known but whose parameters are not, bool
        ``[M]``: nothing can be trained on from them.
    """
    position = {old.grid.keys[i]: k for k, i in enumerate(old["run"].tolist())}
    weights = _weight_rows(old)
    outcome_only = [torch.zeros(b.num_cells, dtype=torch.bool) for b in buckets]
    for bucket, state, hollow in zip(buckets, states, outcome_only, strict=True):
        for m, index in enumerate(bucket.cells):
            key = grid.keys[index]
            k = position.get(key)
            if k is None or key in in_checkpoint:
                continue
            stopped = (old["t_train"][k] >= 0) and (old["t_val"][k] >= 0) and bucket.stop_at_both
            spent = old["steps_done"][k] >= bucket.cell.steps
            if not stopped and not spent and old["diverged_at"][k] < 0:
                continue
            _take_over(old, k, bucket, state, m)
            hollow[m] = True
            if bucket.cell.record.weights:
                kept, row = weights[int(old["run"][k])]
                for name, tensor in _module_tensors(bucket, state):
                    tensor[m] = torch.tensor(kept[name][row])
    return outcome_only


def _take_over(old: Results, k: int, bucket: Bucket, state: State, m: int) -> None:
    """Counters and records of position k of the file become those of cell m."""
    for outcome in PROGRESS:
        if outcome.in_file in old:  # older files have fewer
            state.progress[outcome.name][m] = old[outcome.in_file][k].item()
    axes = {"step": bucket.curve_steps.numpy(), "threshold": np.array(bucket.thresholds)}
    for name, tensor in (*state.curves.items(), *state.crossings.items()):
        if name in old:
            dim = old.variables[name][0][1]
            _, here, there = np.intersect1d(axes[dim], old[dim], return_indices=True)
            tensor[m, here] = torch.from_numpy(old[name][k, there])
    for name, steps in Observer(bucket).steps.items():
        if name in old:
            dim = _observed_dim(name)
            _, here, there = np.intersect1d(steps, old[dim], return_indices=True)
            inner = [slice(n) for n in state.observed[name].shape[2:]]
            state.observed[name][m, here] = torch.from_numpy(old[name][k, there][:, *inner])
