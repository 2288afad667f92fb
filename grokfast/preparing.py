"""Everything a run needs, made ready and checked against the file that it would go on from."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from grokfast.bucket import Bucket
from grokfast.bucketing import make_buckets
from grokfast.engines import Engine, choose_engine, facts, resolve_device
from grokfast.errors import EnvironmentProblem, UsageError, counted
from grokfast.fields import short_name
from grokfast.grid import Grid
from grokfast.hardware import MAX_THREADS, cores, memory_bytes
from grokfast.machines import engine_and_device
from grokfast.observing import Observer
from grokfast.presets import preset
from grokfast.provenance import data_digests
from grokfast.results import Results


def as_grid(grid: Grid | str) -> Grid:
    """The grid itself, or that of the preset of this name.

    Raises:
        UsageError: no such preset, or something that is neither.
    """
    if isinstance(grid, str):
        return preset(grid)
    if not isinstance(grid, Grid):
        raise UsageError(
            f"{type(grid).__name__} is neither a grid nor the name of a preset",
            hint="one experiment alone is gf.Grid(experiment=...)",
        )
    return grid


def checked_cells(
    grid: Grid,
    device: str,
    threads: int | None,
    shard: tuple[int, int] | None,
) -> list[int]:
    """Indices of the cells to train; what can be wrong without data or files is found here.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads is {threads}; give 1 to {MAX_THREADS}")
    if threads is not None and threads > cores():
        warnings.warn(
            f"threads is {threads}, but this process has {counted(cores(), 'core')}: more threads "
            "than cores make it no faster",
            stacklevel=3,
        )
    resolve_device(device)
    return grid.shard(*shard) if shard else list(range(grid.size))


@dataclass(frozen=True)
class Ready:
    """Everything a run needs, checked against the file that it would go on from.

    Attributes:
        grid: what was asked for, with the file's own values where they are the same numbers.
        old: what that file holds; None for a new run.
        complete: whether it holds all that was asked for.
        why: which engine, and why, for people.
    """

    grid: Grid
    buckets: list[Bucket]
    engine: Engine
    why: str
    old: Results | None
    complete: bool


def prepare(
    grid: Grid,
    indices: list[int],
    path: Path | None,
    engine: str,
    device: str,
    threads: int | None,
    overwrite: bool,
) -> Ready:
    """What :func:`run` and :func:`plan` have in common; writes nothing.

    Raises:
        UsageError, EnvironmentProblem: as :func:`run`.
    """
    old = existing(path, overwrite)
    if old is not None:
        grid = grid.aligned(old.grid)
        same_run(old, grid, indices, path)
    goes_on = old is not None and engine == "auto"
    if old is not None and goes_on:
        engine = engine_and_device(old.provenance)["engine"][0] or engine
    buckets = _buckets(grid, indices)
    chosen, why = choose_engine(engine, buckets, device, threads)
    if goes_on:
        why = f"{chosen.name} on {chosen.device} (as in {path})"
    complete = False
    if old is not None:
        same_cells = old.grid.to_json() == grid.to_json() and len(old) == len(indices)
        complete = old.complete and same_cells
        unknown = _same_machinery(old, chosen, path, to_the_bit=not complete)
        if unknown:
            why += f"; {path} does not tell its {', '.join(unknown)}"
        if not complete:
            _same_data(old, grid, buckets, path)
    return Ready(grid, buckets, chosen, why, old, complete)


def _buckets(grid: Grid, indices: list[int]) -> list[Bucket]:
    """What the listed cells need, made ready.

    Raises:
        UsageError: an experiment that cannot be.
        EnvironmentProblem: missing data, or a state that this machine cannot hold.
    """
    cells = [grid.cells[i] for i in indices]
    # Of the hidden layers alone: data, which say what the others are, are not there yet.
    least = sum((24 if c.dtype == "float64" else 12) * c.model.least_parameters() for c in cells)
    memory = memory_bytes()
    if memory and least > memory:
        raise EnvironmentProblem(
            f"the state of {len(cells):,} cells takes {least / 2**30:,.0f} GiB at least; this "
            f"machine has {memory / 2**30:,.0f}",
            hint="--shard=i/n trains every n-th cell" if len(cells) > 1 else None,
        )
    buckets = make_buckets(cells, indices)
    for bucket in buckets:
        Observer(bucket).check()
    return buckets


def existing(path: Path | None, overwrite: bool) -> Results | None:
    """The results to go on from."""
    if path is None or overwrite or not path.exists():
        return None
    return Results.load(path)


def same_run(old: Results, grid: Grid, indices: list[int], path: Path | None) -> None:
    """Refuses to go on with a file that holds other cells, or a larger budget.

    Raises:
        UsageError: the message shows what differs.
    """
    new_cells = {grid.keys[i] for i in indices}
    budgets = old.grid.budget_counts or grid.budget_counts
    if any(old.grid.keys[i] not in new_cells for i in old["run"].tolist()):
        allowed = {short_name(p) for p in old.grid.axes if _holds(grid, old.grid, p)}
        allowed |= set() if budgets else {"steps"}
        changes = [f"{k}: {v}" for k, v in old.grid.difference(grid).items() if k not in allowed]
        raise UsageError(
            f"{path} belongs to another run: {'; '.join(changes) or _other_cells(old, grid)}",
            hint="choose another --out, or --overwrite to start anew",
        )
    now = {grid.keys[i]: grid.cells[i].steps for i in indices}
    for i in old["run"].tolist():
        was = old.grid.cells[i].steps
        if was > now[old.grid.keys[i]]:
            raise UsageError(
                f"{path} was run with steps={was}, more than {now[old.grid.keys[i]]}",
                hint="budgets can be raised, not lowered",
            )


def _other_cells(old: Results, grid: Grid) -> str:
    """Why a file has cells that a run does not have, where no field differs."""
    if not {old.grid.keys[i] for i in old["run"].tolist()} <= set(grid.keys):
        return "it holds cells that this run does not have"
    if len(old) == old.grid.size:
        return "it holds the whole grid, and this run is of one shard"
    return "it holds cells of another shard"


def _holds(grid: Grid, old: Grid, path: str) -> bool:
    """Whether a grid's axis has all the values that it has in another."""
    return set(old.described(path)) <= set(grid.described(path))


def _same_machinery(
    old: Results, engine: Engine, path: Path | None, *, to_the_bit: bool
) -> list[str]:
    """Refuses to go on with an engine that would not give the same bits.

    Returns:
        Names of facts that the file does not tell, as older ones do not.
    """
    was = engine_and_device(old.provenance)
    now: facts.Facts = {"engine": (engine.name,), "device": (engine.device.type,)}
    if not to_the_bit:  # of a merged file one of several will do
        was = {n: now[n] if now[n][0] in values else values for n, values in was.items()}
    if was == now and to_the_bit:
        was |= facts.read(str(old.provenance.get("engine_detail", "")))
        now |= facts.read(engine.detail)
    changed = facts.broken(was, now)
    if not changed:
        return [name for name in now if name not in was]

    def told(known: facts.Facts) -> str:
        rest = [
            f"{name} {' and '.join(known.get(name, ('unknown',)))}"
            for name in changed
            if name not in ("engine", "device")
        ]
        where = f"{' and '.join(known['engine'])} on {' and '.join(known['device'])}"
        return f"{where} ({', '.join(rest)})" if rest else where

    give = facts.remedies(was, changed)
    hint = f"give {', '.join(give)}, or another --out" if give else "choose another --out"
    if any(len(was[name]) > 1 for name in changed):
        hint = "it was merged from several machines: extend its shards and merge them again"
    raise UsageError(
        f"{path} was trained by {told(was)}, not {told(now)}: the bits would differ", hint=hint
    )


def _same_data(old: Results, grid: Grid, buckets: list[Bucket], path: Path | None) -> None:
    """Refuses to go on with other data than the run began with."""
    was, now = old.data_digests(), data_digests(grid, buckets)
    for identity, digest in was.items():
        if now.get(identity, digest) != digest:
            raise UsageError(
                f"{path} was trained on other data than task "
                f"{json.loads(identity)['task']['name']!r} gives now",
                hint="choose another --out, or --overwrite to start anew",
            )
