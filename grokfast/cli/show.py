"""What commands print on stdout, as text or JSON."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.aggregate import quantile
from grokfast.agree import Agreement, MeasuredAgreement, Share
from grokfast.agree.measured import MISSING
from grokfast.cli.boundary import ENVIRONMENT
from grokfast.cli.wrapping import width, wrapped
from grokfast.errors import counted
from grokfast.fields import scalar_fields, value_text
from grokfast.grid import Grid
from grokfast.machines import differing, machines, told
from grokfast.phases import UNKNOWN
from grokfast.results import DIVERGED, OK, STATUS, Results
from grokfast.retyping import as_option
from grokfast.storage.files import checkpoint_path, real_path, user_path
from grokfast.storage.locks import writer


def presets(as_json: bool) -> None:
    """Every preset with its size and source."""
    from grokfast.presets import PRESETS

    rows: list[dict[str, Any]] = []
    for name, preset in PRESETS.items():
        grid = preset.build()
        rows.append(
            {
                "name": name,
                "cells": grid.size,
                "steps": max(grid.budgets),
                "model_steps": grid.size * sum(grid.budgets) // len(grid.budgets),
                "title": preset.title,
                "source": preset.source,
            }
        )
    if as_json:
        _print_json(rows)
        return
    names = max(len(r["name"]) for r in rows)
    wide = names + 26
    # What it is, beside the numbers where there is room, else below them.
    beside = width(most=140) >= wide + 50
    print(f"{'preset':{names}}  cells    steps    cost{'  what' * beside}")
    for row in rows:
        millions = row["model_steps"] / 1e6
        cost = f"{millions:.3g} M" if millions >= 1 else f"{millions * 1e3:.3g} k"
        head = f"{row['name']:{names}} {row['cells']:6d} {row['steps']:8d} {cost:>7}  "
        told = [
            line
            for text in (row["title"], row["source"])
            for line in wrapped(text, indent=wide if beside else 4, hanging=2, most=140)
        ]
        print(head + told.pop(0)[wide:] if beside else head.rstrip())
        print("\n".join(told))
    cost = "cost: model-steps at most; grokfast run PRESET --dry-run measures the time"
    print("\n".join(wrapped(cost, hanging=2)))


def info(file: str, results: Results, as_json: bool) -> None:
    """Progress, phases, axes, experiment and provenance of a file."""
    data = summary(file, results)
    if as_json:
        _print_json(data)
        return
    state = "complete" if results.complete else "incomplete: the same grokfast run goes on with it"
    if data["writer"]:
        state = f"being written by a run ({data['writer']})"
    print(f"{file}: {results.grid.name}, {state}")
    part = "" if len(results) == results.grid.size else f" of the grid's {results.grid.size}"
    # A cell that has begun is running as long as somebody trains it.
    words = {} if data["writer"] else {"running": "unfinished"}
    status = ", ".join(f"{words.get(name, name)} {n}" for name, n in data["status"].items() if n)
    print(f"cells     {len(results)}{part}: {status}")
    print(f"progress  {data['progress']:.1%} of the cell-steps")
    print(f"state     {_state(data)}")
    unknown = f", not known yet {data['unknown']}" if data["unknown"] else ""
    print("phases    " + ", ".join(f"{k} {n}" for k, n in data["phases"].items()) + unknown)
    for name, step in data["crossings"].items():
        median = "never" if step["median"] is None else f"{step['median']:,.0f}"
        of = counted(step["cells"], "cell")
        print(f"crossing  {name}: {step['reached']} of {of}, median {median}")
    for path in results.grid.axes:
        print(f"axis      {shlex.quote(as_option(results.grid, path))}")
    experiment(results.grid)
    print("machines")
    for kind in data["machines"]:
        hosts = ", ".join(kind["hosts"]) or "hosts not known"
        print(f"  {hosts}: {kind['device_name']}")
        detail = kind["engine_detail"] and f" ({kind['engine_detail']})"
        print(f"    {kind['engine']} on {kind['device']}{detail}")
    mixed = differing(data["machines"])
    if mixed:
        print(f"  other bits each ({told(mixed)}): no run can go on with this file")
    print("provenance")
    for name, value in data["provenance"].items():
        if name != "machines" and not name.startswith("shard_"):
            print(f"  {name} = {json.dumps(value) if isinstance(value, dict | list) else value}")


def experiment(grid: Grid) -> None:
    """The fields that are the same in all cells, each as it can be typed."""
    print("experiment")
    print(f"  task.name = {grid.experiment.task.name}")
    print(f"  phase.name = {grid.experiment.phase.name}")
    for path in scalar_fields(grid.experiment):
        if not grid.varies(path):
            print(f"  {path} = {value_text(grid.experiment.get(path))}")


def summary(file: str, results: Results) -> dict[str, Any]:
    """What ``info --json`` prints."""
    path = real_path(user_path(file))
    checkpoint = checkpoint_path(path)
    return {
        "file": file,
        "name": results.grid.name,
        "complete": results.complete,
        "writer": writer(path),
        "checkpoint": str(checkpoint) if checkpoint.exists() else None,
        "cells": len(results),
        "grid_cells": results.grid.size,
        "progress": float(progress(results).mean()) if len(results) else 0.0,
        "status": {n: int((results["status"] == k).sum()) for k, n in enumerate(STATUS)},
        "phases": results.counts(),
        "unknown": int((results.phases() == UNKNOWN).sum()),
        "crossings": {name: _crossing(results.moments(name)) for name in results.crossings},
        "axes": {name: list(values) for name, values in results.axes.items()},
        "experiment": results.grid.experiment.to_dict(),
        "machines": machines(results.provenance),
        "provenance": {k: _decoded(v) for k, v in results.provenance.items()},
    }


def progress(results: Results) -> NDArray[np.float64]:
    """The share of each cell that is done, ``[run]``: 1 where it has stopped."""
    done = np.isin(results["status"], (OK, DIVERGED))
    steps = [results.grid.cells[run].steps for run in results["run"].tolist()]
    return np.where(done, 1.0, results["steps_done"] / steps)


def _state(data: dict[str, Any]) -> str:
    """Whether there is a checkpoint, and what it is for."""
    if data["checkpoint"] is None:
        what = "a larger budget" if data["complete"] else "what is unfinished"
        return f"no checkpoint: {what} is trained from the first step"
    if data["complete"]:
        return f"{data['checkpoint']}: for a larger budget; else it may be deleted"
    return f"{data['checkpoint']}: unfinished cells go on from it; keep it until they are done"


def _crossing(steps: NDArray[np.float64]) -> dict[str, Any]:
    """How many of the cells whose crossing is known or ruled out have it, and their median, null
    where most of them never do."""
    known = steps[~np.isnan(steps)]
    median = float(quantile(known, 0.5)) if len(known) else np.inf
    return {
        "cells": len(known),
        "reached": int(np.isfinite(known).sum()),
        "median": median if np.isfinite(median) else None,
    }


def agreement(found: list[Agreement | MeasuredAgreement], as_json: bool) -> None:
    """The comparisons with published tables."""
    if as_json:
        _print_json([a.to_dict() for a in found])
        return
    for number, one in enumerate(found):
        if number:
            print()
        is_published = isinstance(one, MeasuredAgreement) or one.is_published
        print(f"{'published' if is_published else 'compared with'}: {one.table}")
        if one.source:
            print("\n".join(wrapped(f"source: {one.source}", hanging=2)))
        if isinstance(one, MeasuredAgreement):
            _measured(one)
        else:
            _phases(one)


def _phases(one: Agreement) -> None:
    left_out = f"; {one.unfinished} unfinished left out" if one.unfinished else ""
    print(f"cells in common: {one.cells} of {one.published}{left_out}")
    for note in one.notes:
        print(f"note: {note}")
    shares = {f"same phase, {k}": s for k, s in one.phases.items()} | one.steps
    width = max(map(len, shares))
    for name, share in shares.items():
        print(f"{name:{width}}  {_share(share)}")
    wide = max(15, *(len(name) + 2 for name in one.confusion))
    head = "published / ours" if one.is_published else "there / here"
    print(f"{head:>18}" + "".join(f"{p:>{wide}}" for p in one.confusion))
    for name, row in one.confusion.items():
        print(f"{name:>18}" + "".join(f"{n:{wide}d}" for n in row.values()))


def _measured(one: MeasuredAgreement) -> None:
    """Each published number beside ours."""
    print(f"cells: {one.cells}" + (", of which the mean is compared" if one.cells > 1 else ""))
    wide = max(12, *(len(row.column) for row in one.rows))
    head = ("published", "ours", "difference", "tolerance")
    print(f"{'step':>7}  {'column':{wide}}" + "".join(f"{h:>17}" for h in head) + "  verdict")
    for row in one.rows:
        numbers = f"{row.published:17.10g}{row.ours:17.10g}{row.difference:17.1e}"
        if row.verdict == MISSING:
            numbers = f"{row.published:17.10g}{'-':>17}{'-':>17}"
        step = "" if row.step is None else row.step
        print(f"{step:>7}  {row.column:{wide}}{numbers}{row.tolerance:17.0e}  {row.verdict}")
    print("verdicts: " + ", ".join(f"{name} {n}" for name, n in one.verdicts.items()))


def doctor(as_json: bool) -> int | None:
    """What this installation has and lacks; code 3 where nothing can be trained."""
    from grokfast.doctor import examine, usable

    findings = examine()
    if as_json:
        _print_json(findings)
    else:
        for section, rows in findings.items():
            print(section)
            for name, value in rows.items():
                print(f"  {name}: {value}")
    return None if usable(findings) else ENVIRONMENT


def _share(share: Share) -> str:
    if not share.of:
        return "no such cells"
    return f"{share.agree:5d} of {share.of:<5d} {share.fraction:7.1%}"


def _decoded(value: Any) -> Any:
    """Lists and dicts are JSON text in the file's attributes."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))
