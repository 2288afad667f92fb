"""What Ray takes: a toy grid on 1, 2 and 3 local nodes of one core each.

    python bench/cluster.py [--nodes=1,2,3] [--steps=1500] [--side=21] [--out=FILE]

Times begin when the first worker trains, and end with the last task: what a node takes to load
torch is told on its own. ``trains`` is the share of that time in which workers train, ``a_task_s``
what is left of it for each task; ``driver`` and ``ray`` are CPU seconds of this process and of
Ray's own as shares of the time, ``tail`` the share from when the first worker had nothing more to
do. Checks first that the file is that of a single process, on a smaller grid.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import append_rows

import grokfast as gf
from grokfast import cluster
from grokfast.bench import describe
from grokfast.cli import script
from grokfast.cluster import driver
from grokfast.cluster.parts import read_json
from grokfast.errors import GrokfastError

_TICKS = os.sysconf("SC_CLK_TCK")


class Watched(driver.Driver):
    """A driver that keeps times."""

    last: Watched

    def run(self) -> gf.Results:
        Watched.last = self
        self.begun, self.first, self.idle = time.monotonic(), 0.0, 0.0
        return super().run()

    def _hand_out(self) -> None:
        super()._hand_out()
        if not self.first and any(self.parts.diary(b).exists() for b in self.parts.blocks):
            self.first, self.used = time.monotonic(), usage()
        slots = sum(m.slots for m in self.cluster.machines())
        if not self.idle and not self.waiting and len(self.running) < slots:
            self.idle = time.monotonic()

    def _end(self) -> gf.Results:
        self.ended, self.used_then = time.monotonic(), usage()
        diaries = [read_json(self.parts.diary(b)) for b in self.parts.blocks]
        self.hosts = [host for diary in diaries for host in diary["hosts"].values()]
        return super()._end()


def usage() -> dict[str, float]:
    """CPU seconds so far: of this process, of Ray's own, of its workers."""
    spent = {"driver": time.process_time(), "ray": 0.0, "workers": 0.0}
    parents, told = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            told[int(path.name)] = sum(map(int, fields[11:13])) / _TICKS
            parents[int(path.name)] = int(fields[1])
            if b"ray::" in (path / "cmdline").read_bytes():
                told[int(path.name)] *= -1
        except (OSError, IndexError):
            continue
    for pid, seconds in told.items():
        at = pid
        while at in parents and at != os.getpid():
            at = parents[at]
        if at == os.getpid() != pid:
            spent["workers" if seconds < 0 else "ray"] += abs(seconds)
    return spent


def measured(nodes: int, grid: gf.Grid, folder: Path) -> dict[str, Any]:
    """A row of one run."""
    os.environ["RAY_TMPDIR"] = str(folder)
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    head = own | {"include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes - 1):
        made.add_node(**own)
    try:
        r = cluster.run(grid, out=folder / "r.h5", address=made.address, overwrite=True)
    finally:
        made.shutdown()
    d = Watched.last
    wall = d.ended - d.first
    trains = sum(float(host["seconds"]) for host in d.hosts)
    tasks = len(d.parts.blocks)
    share = {name: (d.used_then[name] - d.used[name]) / wall for name in d.used}
    steps = int(r["steps_done"].sum())
    return {
        "bench": "ray",
        "nodes": nodes,
        "cells": len(r),
        "budget": grid.experiment.steps,
        "tasks": tasks,
        "model_steps": steps,
        "start_s": round(d.first - d.begun, 2),
        "wall_s": round(wall, 2),
        "model_steps_per_second": round(steps / wall, 1),
        "trains": round(trains / wall / nodes, 4),
        "a_task_s": round((wall * nodes - trains) / tasks, 4),
        "driver": round(share["driver"], 4),
        "ray": round(share["ray"], 4),
        "tail": round((d.ended - (d.idle or d.ended)) / wall, 4),
        "load": round(os.getloadavg()[0], 1),
        "machine": describe(torch.device("cpu")),
    }


def check(folder: Path) -> None:
    """Raises where the file is not that of one process."""
    grid = gf.preset("addition-classification").grid(lr=[1e-3, 1e-2], weight_decay=[0.0, 5.0])
    grid = grid.grid(steps=100)
    ours = cluster.run(grid, out=folder / "a.h5", progress=False)
    one = gf.run(grid, out=folder / "b.h5", threads=1, device="cpu", progress=False)
    for name in one.variables:
        if not np.array_equal(ours[name], one[name], equal_nan=one[name].dtype.kind == "f"):
            raise GrokfastError(f"{name} differs from that of a single process")


def main(
    nodes: str = "1,2,3", steps: int = 1500, side: int = 21, out: str = "bench/results/ray.jsonl"
) -> None:
    driver.Driver = Watched  # type: ignore[misc]
    axis = {"lr": np.logspace(-5, -2, side).tolist()}
    axis["weight_decay"] = np.linspace(0, 20, side).tolist()
    grid = gf.preset("addition-classification").grid(**axis, steps=steps)
    rows = []
    for number in str(nodes).strip("()").split(","):
        folder = Path(tempfile.mkdtemp(prefix="gf-", dir="/tmp"))
        try:
            if not rows:
                check(folder)
            rows.append(measured(int(number), grid, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "machine"}), flush=True)
        append_rows(Path(out), rows[-1:])


if __name__ == "__main__":
    sys.exit(script(main))
