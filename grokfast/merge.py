"""Shard files -> one results file, the same arrays as of a run in one piece."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.fields import short_name, value_text
from grokfast.grid import Grid, static_key
from grokfast.machines import differing, machines, together, told
from grokfast.results import DIVERGED, OK, Results, listed_digests
from grokfast.storage.files import real_path, results_path, user_path
from grokfast.storage.guarded import Reader
from grokfast.storage.locks import locked

#: Cells named in a message, at most.
_SHOWN = 5
#: Characters of a joined provenance value, at most.
_LONGEST = 10_000
#: Characters of the list of machines, at most: HDF5 takes 64 kB an attribute.
_LONGEST_LIST = 60_000


def merge(files: Iterable[str | Path], out: str | Path, *, overwrite: bool = False) -> Results:
    """Joins shards of one grid (``grokfast run --shard=i/n``) into one file.

    Args:
        files: the shards, in any order; together they hold every cell of the grid once.
        out: the file to write, whole or not at all.
        overwrite: replace an existing ``out``.

    Returns:
        The merged results. A warning tells where shards are of machines that give other bits.

    Raises:
        UsageError: shards of different runs or data (with the difference), a cell that is missing,
            unfinished or in two shards, or an ``out`` that exists or is a shard itself.
        EnvironmentProblem: ``out`` cannot be written.
    """
    paths, target = [user_path(f) for f in files], real_path(results_path(out))
    if not paths:
        raise UsageError("nothing to merge; name the shard files")
    if any(p.exists() and target.exists() and p.samefile(target) for p in paths):
        raise UsageError(f"{target} is itself one of the shards; choose another --out")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists", hint="choose another --out, or --overwrite")
    for path in paths:
        if path.suffix == ".ckpt":
            raise UsageError(f"{path} is a checkpoint", hint=f"name {path.with_suffix('')}")
    with Reader() as reader:
        first, *others = (Results.load(p, reader) for p in dict.fromkeys(paths))
    aligned = [first, *(shard.aligned(first.grid) for shard in others)]
    shards = {str(p): shard for p, shard in zip(dict.fromkeys(paths), aligned, strict=True)}
    if len(shards) < len(paths):
        twice = next(p for p in paths if paths.count(p) > 1)
        raise UsageError(f"{twice} is given twice")
    _same_grid(shards)
    _each_cell_once(shards)
    merged = joined(list(shards.values()), same_data(shards))
    mixed = differing(machines(merged.provenance))
    if mixed:
        warnings.warn(
            f"the shards differ in what decides the bits ({told(mixed)}): no run can go on with "
            f"{target}; to extend it, extend the shards and merge again",
            stacklevel=2,
        )
    with locked(target):
        merged.save(target)
    return merged


def _same_grid(shards: Mapping[str, Results]) -> None:
    (first_name, first), *others = shards.items()
    for name, shard in others:
        changes = [f"{k}: {v}" for k, v in first.grid.difference(shard.grid).items()]
        if not changes and list(first.grid.axes) != list(shard.grid.axes):
            changes = ["the order of the axes"]
        if changes:
            raise UsageError(
                f"{first_name} and {name} are of different runs: {'; '.join(changes[:_SHOWN])}"
            )


def same_data(shards: Mapping[str, Results]) -> dict[str, str]:
    """Identity of each data set -> its digest, the same in all shards that tell it."""
    found: dict[str, tuple[str, str]] = {}
    for name, shard in shards.items():
        for identity, digest in shard.data_digests().items():
            first_name, first = found.setdefault(identity, (name, digest))
            if digest != first:
                raise UsageError(
                    f"{first_name} and {name} were trained on different data: task "
                    f"{json.loads(identity)['task']['name']!r} gave other tensors on each machine"
                )
    return {identity: digest for identity, (_, digest) in found.items()}


def _each_cell_once(shards: Mapping[str, Results]) -> None:
    grid = next(iter(shards.values())).grid
    holder: dict[int, str] = {}
    for name, shard in shards.items():
        runs = shard["run"].tolist()
        if not shard.complete or not np.isin(shard["status"], (OK, DIVERGED)).all():
            left = int((~np.isin(shard["status"], (OK, DIVERGED))).sum())
            raise UsageError(
                f"{name} is not finished: {left} of its {len(runs)} cells are still to train",
                hint="the same grokfast run goes on with it",
            )
        for run in runs:
            if run in holder:
                raise UsageError(f"{_cell(grid, run)} is in both {holder[run]} and {name}")
            holder[run] = name
    missing = [run for run in range(grid.size) if run not in holder]
    if missing:
        some = "; ".join(_cell(grid, run) for run in missing[:_SHOWN])
        dots = "; ..." if len(missing) > _SHOWN else ""
        raise UsageError(f"{len(missing)} of {grid.size} cells are missing: {some}{dots}")


def _cell(grid: Grid, run: int) -> str:
    own = {short_name(path): value_text(*grid.column(path, [run])) for path in grid.axes}
    values = ", ".join(f"{name}={text}" for name, text in own.items())
    return f"cell {run} ({values})"


def joined(shards: list[Results], digests: dict[str, str]) -> Results:
    """Results of one grid, each of other cells, as one; its provenance as of :func:`merge`."""
    grid = shards[0].grid
    run = np.concatenate([s["run"] for s in shards])
    order = np.argsort(run)
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {"run": (("run",), run[order])}
    dims_of = {name: dims for s in shards for name, (dims, _) in s.variables.items()}
    # Coordinates of other dimensions, such as step: the union of what the shards have.
    for name, dims in dims_of.items():
        if dims == (name,) and name != "run":
            parts = [s[name] for s in shards if name in s]
            variables[name] = (dims, np.unique(np.concatenate(parts)))
    for name, dims in dims_of.items():
        if dims[0] == "run" and name != "run":
            variables[name] = (dims, _stacked(shards, name, dims, variables)[order])
    return Results(
        grid=grid,
        variables=variables,
        weights=_joined_weights(grid, shards),
        provenance=_joined_provenance([s.provenance for s in shards], digests),
        complete=True,
    )


def _stacked(
    shards: list[Results],
    name: str,
    dims: tuple[str, ...],
    coordinates: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]],
) -> NDArray[Any]:
    """A variable of all shards, ``[cells, ...]``; NaN, of whole numbers -1, where a shard did not
    measure."""
    holders = [s[name] for s in shards if name in s]
    shape = tuple(
        len(coordinates[dim][1]) if dim in coordinates else max(v.shape[k] for v in holders)
        for k, dim in enumerate(dims)
    )[1:]
    nothing = -1 if holders[0].dtype.kind == "i" else np.nan
    blocks = []
    for shard in shards:
        if name in shard and shard[name].shape[1:] == shape:
            blocks.append(shard[name])
            continue
        block = np.full((len(shard), *shape), nothing, holders[0].dtype)
        if name in shard:
            values = shard[name]
            # Where each axis' entries go: by coordinate where there is one, else at the front.
            at = [
                np.searchsorted(coordinates[dim][1], shard[dim])
                if dim in coordinates
                else np.arange(values.shape[k])
                for k, dim in enumerate(dims[1:], start=1)
            ]
            block[np.ix_(np.arange(len(shard)), *at)] = values
        blocks.append(block)
    return np.concatenate(blocks)


def _joined_weights(grid: Grid, shards: list[Results]) -> list[dict[str, NDArray[Any]]]:
    """Buckets of the whole grid, in order of their first cell, cells in flat order."""
    rows: dict[int, tuple[dict[str, NDArray[Any]], int]] = {
        int(run): (bucket, k)
        for shard in shards
        for bucket in shard.weights
        for k, run in enumerate(bucket["run"])
    }
    buckets: dict[object, list[int]] = {}
    for run in sorted(rows):
        bucket, _ = rows[run]
        shapes = tuple((n, v.shape[1:]) for n, v in sorted(bucket.items()) if n != "run")
        buckets.setdefault((static_key(grid.cells[run]), shapes), []).append(run)
    joined = []
    for runs in buckets.values():
        names = [n for n in rows[runs[0]][0] if n != "run"]
        stacks = {n: np.stack([rows[r][0][n][rows[r][1]] for r in runs]) for n in names}
        joined.append({"run": np.array(runs, np.int64), **stacks})
    return joined


def _joined_provenance(parts: list[dict[str, Any]], digests: dict[str, str]) -> dict[str, Any]:
    """What all shards share, once; what differs, joined by a comma; times added up. Each shard's
    own is kept whole under ``shard_<n>``, one attribute each: HDF5 takes 64 kB an attribute."""
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(n for p in parts for n in p):
        values = list(dict.fromkeys(p[name] for p in parts if name in p))
        joined[name] = values[0] if len(values) == 1 else ", ".join(map(str, values))
        if len(str(joined[name])) > _LONGEST:
            joined[name] = f"{len(values)} values: see shard_1 and so on"
    every = [p.get("wall_seconds", 0.0) for p in parts]
    joined["wall_seconds"] = round(float(sum(every)), 3)
    joined["resumed"] = int(sum(p.get("resumed", 0) for p in parts))
    for name, pick in (("created_utc", min), ("updated_utc", max)):
        dates = [str(p[name]) for p in parts if name in p]
        if dates:
            joined[name] = pick(dates)
    joined["data_sha256"] = listed_digests(digests)
    joined.pop("model_steps_per_second", None)  # of no one machine
    joined["machines"] = together(map(machines, parts))
    if len(json.dumps(joined["machines"])) > _LONGEST_LIST:
        del joined["machines"]  # the shards' own tell
    joined["merged_from"] = len(parts)
    return joined | {f"shard_{n}": json.dumps(p) for n, p in enumerate(parts, start=1)}
