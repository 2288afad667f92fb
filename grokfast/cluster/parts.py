"""The files of a run on many machines: ``<out>.parts``, and how they become one file.

``run.json`` says what is trained in which blocks; of each block there are a results file with its
checkpoint, as of any run, and a diary: how far it is, and which machines had a hand in it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.checkpoint import Rows, load_checkpoint, save_rows
from grokfast.cluster.blocks import Block, blocks
from grokfast.errors import EnvironmentProblem
from grokfast.grid import Grid
from grokfast.merge import joined, same_data
from grokfast.outcomes import PROGRESS
from grokfast.results import (
    DIVERGED,
    OK,
    PENDING,
    RUNNING,
    Results,
    hyperparameter_columns,
    listed_digests,
)
from grokfast.storage.files import checkpoint_path, parts_folder, write_whole


def read_json(path: Path) -> dict[str, Any]:
    """What a small file of ours tells; nothing where it is not there, or not whole."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Replaces a small file; that it outlasts a power cut is not worth the wait."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(told))
    temporary.replace(path)


#: Of a file as it was, or as merge would have it: no longer so.
_OF_BEFORE = ("merged_from", "failed")


class Parts:
    """The parts of one run, and the results file that they become.

    Attributes:
        grid: of the whole run.
        old: what the results file held before this run, None for nothing.
        blocks: all of them.
    """

    def __init__(self, out: Path, grid: Grid, by: Mapping[str, int], old: Results | None) -> None:
        self.out, self.grid, self.old = out, grid, old
        self.by = dict(by)
        self.blocks = blocks(grid, by)
        self.folder = parts_folder(out)
        self._loaded: dict[int, tuple[object, Results]] = {}
        self._before = self._in_new_terms(old) if old is not None else None

    def path(self, block: Block) -> Path:
        """The results file of a block."""
        return self.folder / f"{block.name}.h5"

    def diary(self, block: Block) -> Path:
        return self.folder / f"{block.name}.json"

    # Beginning.

    def same_as(self, told: Mapping[str, Any], workers: int) -> bool:
        """Whether a ``run.json`` tells of these parts, or of such as will do."""
        if told.get("grid") != json.loads(self.grid.to_json()) or "strides" not in told:
            return False
        number = len(blocks(self.grid, told["strides"]))
        return number >= min(len(self.blocks), 2 * workers)

    def begin(self) -> None:
        """Makes the folder, and gives every block what the results file and its checkpoint know of
        its cells.

        Raises:
            EnvironmentProblem: it cannot be written.
        """
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {self.folder}: {error.strerror or error}"
            ) from error
        rows = load_checkpoint(checkpoint_path(self.out)) if self.old is not None else {}
        for block in self.blocks if self.old is not None else ():
            assert self.old is not None
            keys = block.grid.keys
            known = self._known(self.old, set(keys))
            if known is None:
                continue
            save_rows(checkpoint_path(self.path(block)), [{k: rows[k] for k in keys if k in rows}])
            known.save(self.path(block))
        told = {"grid": self.grid.to_dict(), "strides": self.by, "token": secrets.token_hex(8)}
        # Last: without it the folder is of a beginning that was cut short.
        write_whole(self.folder / "run.json", [json.dumps(told).encode()])

    @staticmethod
    def _known(old: Results, keys: set[str]) -> Results | None:
        """What is known of these cells: a file as of a shard."""
        chosen = np.array([old.grid.keys[run] in keys for run in old["run"].tolist()], bool)
        if not chosen.any():
            return None
        return _rows(old, chosen)

    # While it goes on.

    def results(self, block: Block) -> Results | None:
        """What the file of a block holds, in the terms of the whole grid; None where it has not
        been trained."""
        path = self.path(block)
        try:
            told = path.stat()
        except FileNotFoundError:
            return None
        mark = told.st_ino, told.st_mtime_ns, told.st_size
        before = self._loaded.get(block.number)
        if before is not None and before[0] == mark:
            return before[1]
        found = Results.load(path)
        if found.grid != block.grid:  # as it was begun, from the whole file
            return None
        cells = np.array(block.cells, np.int64)
        variables = found.variables | {"run": (("run",), cells[found["run"]])}
        weights = [bucket | {"run": cells[bucket["run"]]} for bucket in found.weights]
        found = replace(found, grid=self.grid, variables=variables, weights=weights)
        self._loaded[block.number] = mark, found
        return found

    def done(self, block: Block) -> bool:
        found = self.results(block)
        return found is not None and found.complete

    def joined(self) -> Results:
        """All that is known, as one run would have it."""
        found = {block.name: self.results(block) for block in self.blocks}
        shards = {name: results for name, results in found.items() if results is not None}
        complete = len(shards) == len(found) and all(r.complete for r in shards.values())
        rest = [c for b in self.blocks if b.name not in shards for c in b.cells]
        if rest and self._before is not None:
            shards["before"] = _rows(self._before, np.isin(self._before["run"], rest))
            rest = sorted(set(rest) - set(shards["before"]["run"].tolist()))
        if rest:
            shards["pending"] = self._pending(rest)
        shards = {name: shard for name, shard in shards.items() if len(shard)}
        trained = {name: shard for name, shard in shards.items() if name != "pending"}
        whole = joined(list(shards.values()), same_data(trained))
        whole.complete = complete
        if not complete:  # of the file as it was they are of another budget
            whole.variables["phase"] = (("run",), whole.phases())
        for name in [n for n in whole.provenance if n.startswith("shard_") or n in _OF_BEFORE]:
            del whole.provenance[name]
        return whole

    def _in_new_terms(self, old: Results) -> Results:
        """What the file held, as cells of this grid with their budgets."""
        at = {key: index for index, key in enumerate(self.grid.keys)}
        runs = np.array([at[old.grid.keys[run]] for run in old["run"].tolist()], np.int64)
        steps = np.array([self.grid.cells[run].steps for run in runs.tolist()])
        both = np.array([self.grid.cells[run].stop == "both" for run in runs.tolist()])
        stopped = (old["t_train"] >= 0) & (old["t_val"] >= 0) & both
        status = old["status"].copy()
        status[(status == OK) & ~stopped & (old["steps_done"] < steps)] = RUNNING
        new_runs = dict(zip(old["run"].tolist(), runs.tolist(), strict=True))
        weights = [
            b | {"run": np.array([new_runs[r] for r in b["run"].tolist()])} for b in old.weights
        ]
        own = {"run": (("run",), runs), "status": (("run",), status)}
        columns = hyperparameter_columns(self.grid, runs.tolist())
        variables = old.variables | {n: (("run",), v) for n, v in columns.items()} | own
        return replace(old, grid=self.grid, variables=variables, weights=weights)

    def _pending(self, cells: list[int]) -> Results:
        """Cells of which nothing is known."""
        variables: dict[str, Any] = {"run": (("run",), np.array(cells, np.int64))}
        for name, column in hyperparameter_columns(self.grid, cells).items():
            variables[name] = (("run",), column)
        for outcome in PROGRESS:
            kind = np.float64 if isinstance(outcome.initial, float) else np.int64
            values = np.full(len(cells), outcome.initial, kind)
            variables[outcome.in_file] = (("run",), values)
        variables["status"] = (("run",), np.full(len(cells), PENDING, np.uint8))
        variables["phase"] = (("run",), np.full(len(cells), -1, np.int8))
        return Results(grid=self.grid, variables=variables)

    def accounted(self, block: Block) -> int:
        """Cell-steps of a block that need no more work, by what its files or the old one hold."""
        found = self.results(block)
        if found is None and self._before is not None:
            found = _rows(self._before, np.isin(self._before["run"], block.cells))
        if found is None:
            return 0
        steps = np.array([self.grid.cells[run].steps for run in found["run"].tolist()])
        ended = np.isin(found["status"], (OK, DIVERGED))
        return int(np.where(ended, steps, found["steps_done"]).sum())

    # The end.

    def finish(self) -> None:
        """Joins the checkpoints, and removes the parts; the results have been saved."""
        save_rows(checkpoint_path(self.out), self._rows_of_parts())
        (self.folder / "run.json").unlink(missing_ok=True)  # from here on the rest is for nothing
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rows_of_parts(self) -> Iterator[Rows]:
        for block in self.blocks:
            new = [self.grid.keys[cell] for cell in block.cells]
            rows = load_checkpoint(checkpoint_path(self.path(block)))
            names = dict(zip(block.grid.keys, new, strict=True))
            yield {names[key]: row for key, row in rows.items() if key in names}


def _rows(results: Results, chosen: NDArray[np.bool_]) -> Results:
    """Some cells of results, bool ``[run]``: as of a shard that has not ended."""
    variables = {
        name: (dims, values[chosen] if dims[0] == "run" else values)
        for name, (dims, values) in results.variables.items()
    }
    weights = []
    for bucket in results.weights:
        at = np.isin(bucket["run"], variables["run"][1])
        if at.any():
            weights.append({name: values[at] for name, values in bucket.items()})
    cells = [results.grid.cells[run] for run in variables["run"][1].tolist()]
    identities = {cell.data_identity() for cell in cells}
    digests = {i: d for i, d in results.data_digests().items() if i in identities}
    plain = {n: v for n, v in results.provenance.items() if not n.startswith("shard_")}
    plain["data_sha256"] = json.dumps(listed_digests(digests))  # as files have it
    return replace(results, variables=variables, weights=weights, provenance=plain, complete=False)
