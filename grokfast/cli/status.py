"""``grokfast status``: how far the shards of a run are, who works on them, and what is missing."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grokfast.cli.boundary import ENVIRONMENT, INCOMPLETE, one_line
from grokfast.cli.show import progress, summary
from grokfast.errors import GrokfastError
from grokfast.grid import Grid
from grokfast.phases import UNKNOWN, counts
from grokfast.results import Results
from grokfast.storage.files import check_file, real_path, user_path
from grokfast.storage.guarded import Reader
from grokfast.storage.locks import Holder, holder

#: Cells named in a line, at most.
_SHOWN = 5


@dataclass
class Run:
    """What files of one grid hold together.

    Attributes:
        parts: cells of each file.
        cells: each cell of these -> share of its steps that is done, and code of its phase; of
            files that share a cell the one that is further.
    """

    grid: Grid
    parts: list[list[int]] = field(default_factory=list)
    cells: dict[int, tuple[float, int]] = field(default_factory=dict)

    def add(self, results: Results) -> None:
        self.parts.append(results["run"].tolist())
        now = zip(progress(results).tolist(), results.phases().tolist(), strict=True)
        for cell, found in zip(self.parts[-1], now, strict=True):
            self.cells[cell] = max(found, self.cells.get(cell, found))

    def to_dict(self) -> dict[str, Any]:
        missing = [cell for cell in range(self.grid.size) if cell not in self.cells]
        done, phases = zip(*self.cells.values(), strict=True) if self.cells else ((), ())
        return {
            "name": self.grid.name,
            "files": len(self.parts),
            "grid_cells": self.grid.size,
            "cells": len(self.cells),
            "progress": sum(done) / self.grid.size,
            "phases": counts(np.array(phases, np.int8), self.grid.experiment.phase.phases),
            "unknown": phases.count(UNKNOWN),
            "shards": self.shards(),
            "missing_shards": self.missing_shards(),
            "missing_cells": missing,
            "repeated_cells": sum(map(len, self.parts)) - len(self.cells),
            "complete": not missing and all(share == 1 for share in done),
        }

    def shards(self) -> int | None:
        """Of how many shards these are, where they are ``i/n`` of one n."""
        strides = {part[1] - part[0] for part in self.parts if len(part) > 1}
        n = strides.pop() if len(strides) == 1 else 0
        if n < 1 or any(p[0] >= n or p != self._shard(p[0], n) for p in self.parts):
            return None
        return n

    def missing_shards(self) -> list[int]:
        n = self.shards() or 0
        firsts = {part[0] for part in self.parts}
        return [i for i in range(1, n + 1) if self._shard(i % n, n) and i % n not in firsts]

    def _shard(self, first: int, n: int) -> list[int]:
        return list(range(first, self.grid.size, n))


def act(files: list[str], as_json: bool) -> int | None:
    """Prints a line a file and the sums; code 3 where a file could not be read, else 4 where
    anything is missing or left to train."""
    rows: list[dict[str, Any]] = []
    runs: list[Run] = []
    with Reader() as reader:
        for file in dict.fromkeys(files):
            rows.append(_look(file, runs, reader))
    totals = [run.to_dict() for run in runs]
    if as_json:
        print(json.dumps({"files": rows, "runs": totals}, indent=2))
    else:
        for line in (*_lines(rows), *(text for run in totals for text in _sums(run))):
            print(one_line(line))
    if any(row["state"] == "unreadable" for row in rows):
        return ENVIRONMENT
    all_there = all(run["complete"] for run in totals) and all("cells" in row for row in rows)
    return None if all_there else INCOMPLETE


def _look(file: str, runs: list[Run], reader: Reader) -> dict[str, Any]:
    """What there is to say of a file; its cells are added to its run."""
    row: dict[str, Any] = {"file": file}
    try:
        path = real_path(user_path(file))
        there = path.exists()
        if there:
            check_file(path)
        row |= _writer(holder(path))
        if not there:
            return row if "pid" in row else row | {"state": "no such file"}
        results = Results.load(path, reader)
    except GrokfastError as error:
        return row | {"state": "unreadable", "why": str(error)}
    except OSError as error:  # no permission
        return row | {"state": "unreadable", "why": f"{file}: {error.strerror}"}
    run = next((r for r in runs if _same(results.aligned(r.grid).grid, r.grid)), None)
    if run is None:
        runs.append(run := Run(results.grid))
    told = summary(file, results)
    names = ("name", "cells", "grid_cells", "progress", "phases", "unknown", "machines")
    row |= {name: told[name] for name in names}
    run.add(results)
    if results.complete:
        row["state"] = "complete"
    row["saved_utc"] = str(results.provenance.get("updated_utc", ""))
    return row


def _same(one: Grid, other: Grid) -> bool:
    return one.to_json() == other.to_json()


def _writer(found: Holder | None) -> dict[str, Any]:
    """Whether a run works on a file, by its lock: of another machine's nobody knows that it has
    died."""
    if found is None:
        return {"state": "stopped"}
    state = "died" if found.gone else "running"
    return {"state": state, "pid": found.pid, "host": found.host.partition("~")[0]}


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    wide = max(len(row["file"]) for row in rows)
    for row in rows:
        name = f"{row['file']:{wide}}  "
        if "cells" not in row:
            why = row.get("why", f"{'-':>6}  {_state(row)}")
            yield why if row["file"] in why else name + why
            continue
        yield f"{name}{row['progress']:6.1%}  {_state(row)}; {_phases(row)}"


def _phases(told: dict[str, Any]) -> str:
    """``grokking 3, confusion 2, not known yet 5``."""
    every = told["phases"] | {"not known yet": told["unknown"]}
    return ", ".join(f"{name} {number}" for name, number in every.items() if number)


def _state(row: dict[str, Any]) -> str:
    """``running on node7 (pid 812, saved 00:12 ago)``."""
    hosts = [host for kind in row.get("machines", ()) for host in kind["hosts"]]
    host = row.get("host") if row["state"] in ("running", "died") else ", ".join(hosts[-1:])
    told = row["state"] + (f" on {host}" if host else "")
    if row["state"] == "running":
        age = _age(row.get("saved_utc", ""))
        return f"{told} (pid {row['pid']}, {age or 'nothing saved yet'})"
    return told


def _age(saved: str) -> str:
    from tqdm import tqdm  # it takes a moment to import

    try:
        then = calendar.timegm(time.strptime(saved, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return ""
    return f"saved {tqdm.format_interval(max(0, time.time() - then))} ago"


def _sums(run: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{run['name']}: {run['cells']} of {run['grid_cells']} cells have a file, "
        f"{run['progress']:.1%} of the cell-steps are done; {_phases(run)}"
    )
    if run["repeated_cells"]:
        yield f"cells in several files, which grokfast merge refuses: {run['repeated_cells']}"
    missing = run["missing_cells"]
    if run["missing_shards"]:
        shards = ", ".join(f"{i}/{run['shards']}" for i in run["missing_shards"])
        yield f"shards without a file: {shards}"
    elif missing:
        some = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        yield f"cells without a file: {len(missing)} ({some})"
    elif run["complete"] and run["files"] > 1 and not run["repeated_cells"]:
        yield "complete: grokfast merge joins them"
