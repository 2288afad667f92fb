"""Whether a cell that was trained again is the one that a results file tells of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.errors import UsageError
from grokfast.outcomes import CROSSINGS, CURVES
from grokfast.results import Results
from grokfast.state import State

#: Differences in a message, at most.
_SHOWN = 3

#: Name, where it was looked at, the file's number and the new one.
_Pair = tuple[str, str, NDArray[Any], NDArray[Any]]


def check_reproduced(
    results: Results,
    position: int,
    detail: str,
    bucket: Bucket,
    state: State,
    member: int,
    last: int,
) -> int:
    """Compares what a file tells of a cell up to a step, bit by bit: T_train, T_val, divergence,
    crossings, and losses and accuracies.

    Args:
        position: of the cell in the file.
        detail: of the engine that trained it again.
        bucket, state, member: where the cell was trained again, up to step ``last``.

    Returns:
        How many numbers were compared, not counting what had not happened or was not measured.

    Raises:
        UsageError: one of them is another, or there is none and the engine is not known to give
            the bits of the file.
    """
    compared, different = 0, []
    for name, where, was, now in _pairs(results, position, bucket, state, member, last):
        compared += int((np.isfinite(was) & (was >= 0)).sum())
        if was.tobytes() != now.tobytes():
            different.append(f"{name}{where} is {was} in the file and {now} now")
    changed = _changed(results, detail)
    if different or (changed and not compared):
        what = "; ".join(different[:_SHOWN]) or "it tells of nothing up to there"
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise UsageError(
            f"this is not the run of {results.grid.name}: {what}{more}",
            hint=f"it was trained with {', '.join(changed)}" if changed else None,
        )
    return compared


def _pairs(
    results: Results, position: int, bucket: Bucket, state: State, member: int, last: int
) -> Iterator[_Pair]:
    """What both tell of, one number at a time; moments after the last step did not happen."""

    def happened(step: NDArray[Any]) -> NDArray[Any]:
        return np.where(step <= last, step, -1)

    for name in ("t_train", "t_val", "diverged_at"):
        if name in results:
            now = getattr(state, name)[member].cpu().numpy()
            yield name, "", happened(results[name][position]), now
    for dim, names, axis in (
        ("threshold", CROSSINGS, np.array(bucket.thresholds)),
        ("step", CURVES, bucket.curve_steps.numpy()),
    ):
        for name in names:
            if name not in results:
                continue
            new = getattr(state, name)[member].cpu().numpy()
            _, here, there = np.intersect1d(axis, results[dim], return_indices=True)
            for j, k in zip(here.tolist(), there.tolist(), strict=True):
                old = results[name][position, k]
                if dim == "threshold":
                    yield name, f" at {axis[j]:g}", happened(old), new[j]
                elif 1 <= axis[j] <= last:  # step 0 is measured before any training
                    yield name, f" at step {axis[j]}", old, new[j]


def _changed(results: Results, detail: str) -> list[str]:
    """Facts that decide the bits and are not those of the file, in words."""
    was = facts.read(str(results.provenance.get("engine_detail", "")))
    now = facts.read(detail)
    return [
        f"{name} {' and '.join(was[name])} (here {' and '.join(now.get(name, ('unknown',)))})"
        for name in facts.broken(was, now)
    ]
