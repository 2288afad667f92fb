"""Opening and saving a results file, against another version of grokfast.

    python bench/files.py --against=FOLDER [--repeats=7] [--cells=441] [--out=FILE]

FOLDER holds the other version's ``grokfast``, built. A toy grid is trained for a few steps by each,
with curves of 60 points and with weights; processes take turns at opening and saving what their own
version wrote. Times are CPU seconds, the least of a process and the median of processes (a busy
machine moves these least); the peak is what a save adds to the memory of a process that has opened
the file, and ``file`` what it then weighs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rows import append_rows

import grokfast as gf
from grokfast.bench import describe
from grokfast.cli import script

RECORDS = {"curves": "curves:60", "weights": "curves:60,weights"}

#: A child: opens and saves a file, and prints what each took.
_CHILD = """
import json, sys, time
from pathlib import Path
from grokfast.results import Results

def seconds(work):
    begun = time.process_time()
    work()
    return time.process_time() - begun

def memory():  # that the kernel has counted, at this moment and at most
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]

path, again = Path(sys.argv[1]), Path(sys.argv[1] + ".again.h5")
opened = Results.load(path)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = memory()[0]
opened.save(again)
print(json.dumps({
    "peak": memory()[1] - before,
    "open": min(seconds(lambda: Results.load(path)) for _ in range(5)),
    "save": min(seconds(lambda: opened.save(again)) for _ in range(5)),
    "file": again.stat().st_size / 2**20,
}))
"""


def _run(*command: str, version: str) -> str:
    """What a process of that version prints."""
    environment = os.environ | {"PYTHONPATH": version, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", *command]  # -P: not the checkout in which this is called
    return subprocess.run(
        words, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main(against: str, repeats: int = 7, cells: int = 441, out: str | None = None) -> None:
    """Compares two versions of grokfast at opening and saving results files."""
    versions = {"ours": str(Path(gf.__file__).parents[1]), "theirs": str(Path(against).resolve())}
    found: dict[str, Any] = {"cells": cells, "repeats": repeats}
    with tempfile.TemporaryDirectory() as folder:
        for content, record in RECORDS.items():
            files = {name: f"{folder}/{content}.{name}.h5" for name in versions}
            for name, version in versions.items():
                _run(
                    "-m", "grokfast", "run", "addition-classification", "--steps=5",
                    "--lr=1e-3", f"--weight-decay=linspace:0:20:{cells}", f"--record={record}",
                    "--engine=reference", "--device=cpu", f"--out={files[name]}", version=version,
                )  # fmt: skip
            took: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
            for _ in range(repeats):
                for name, version in versions.items():
                    took[name].append(json.loads(_run("-c", _CHILD, files[name], version=version)))
            for what in ("open", "save", "peak", "file"):
                ours, theirs = (
                    statistics.median(one[what] for one in took[name]) for name in versions
                )
                found[f"{content} {what}"] = {
                    "ours": round(ours, 3), "theirs": round(theirs, 3),
                    "ratio": round(ours / theirs, 2) if theirs else None,
                }  # fmt: skip
                print(f"{content} {what}: {ours:.3f}, theirs {theirs:.3f}", file=sys.stderr)
    row = {"measured": "files", **found, **describe(torch.device("cpu"))}
    print(json.dumps(row))
    if out is not None:
        append_rows(Path(out), [row])


if __name__ == "__main__":
    sys.exit(script(main))
