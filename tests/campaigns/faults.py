"""Disks that fail at every call of every writer: ``make campaign-faults``.

    python tests/campaigns/faults.py [--number=1000] [--seed=1] [--only=run,...] [--out=FILE]

A library in front of the C library's makes one call go wrong: no space from there on, an error of
the device, a read-only file system from there on, a write that takes half, a folder that goes away.
The command must end in 0 or 3; what was there must be there still, or the new one whole; and the
same command without a fault must then give what an undisturbed one does.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from children import begin, end, listed, report
from kills import CHECKPOINT, FINISHED, SHARDS, contents, runs

from grokfast import trainer
from grokfast.cli import main as grokfast
from grokfast.cli import script

SHORT, VANISH = 1000, 1001  # as in faults.c
#: Name -> what goes wrong, and whether all later calls do, too.
FAULTS = {
    "no space": (errno.ENOSPC, True),
    "quota": (errno.EDQUOT, False),
    "device": (errno.EIO, False),
    "dead device": (errno.EIO, True),
    "read-only": (errno.EROFS, True),
    "short write": (SHORT, False),
    "vanished": (VANISH, False),
}


@dataclass(frozen=True)
class Writer:
    """A command that writes, and those that make its folder ready."""

    command: tuple[str, ...]
    output: str
    before: tuple[tuple[str, ...], ...] = ()


#: What commands import late, once for all children rather than once in each.
LATE = (
    "grokfast.figures",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "h5netcdf",
    "pandas",
    "pyarrow.parquet",
    "xarray",
)

TABLE = ("export", "r.h5", "--overwrite")
WRITERS = {
    "run": Writer(runs("native", 200), "r.h5"),
    "more steps": Writer(runs("native", 400), "r.h5", (FINISHED,)),
    "reference": Writer(runs("reference", 30), "r.h5"),
    "merge": Writer(("merge", "s1.h5", "s2.h5", "--out=m.h5", "--overwrite"), "m.h5", SHARDS),
    "csv": Writer((*TABLE, "--out=x.csv", "--long"), "x.csv", (FINISHED,)),
    "json": Writer((*TABLE, "--out=x.json"), "x.json", (FINISHED,)),
    "nc": Writer((*TABLE, "--out=x.nc"), "x.nc", (FINISHED,)),
    "parquet": Writer((*TABLE, "--out=x.parquet"), "x.parquet", (FINISHED,)),
    "png": Writer(("plot", "r.h5", "--out=x.png"), "x.png", (FINISHED,)),
    "svg": Writer(("plot", "r.h5", "--out=x.svg"), "x.svg", (FINISHED,)),
    "data": Writer(
        ("data", "export", "addition-regression", "--out=d.npz", "--overwrite"), "d.npz"
    ),
}


def preloaded() -> None:
    """Starts this program anew with the library in front."""
    if "GROKFAST_FAULTS" in os.environ:
        return
    folder = Path(tempfile.mkdtemp())
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    os.environ |= {"LD_PRELOAD": str(library), "GROKFAST_FAULTS": str(folder)}
    os.execv(sys.executable, [sys.executable, *sys.argv])


class Campaign:
    """Counts of one run of it."""

    def __init__(self, seed: int, root: Path) -> None:
        self.random, self.root = random.Random(seed), root
        self.library = ctypes.CDLL(None)
        self.ends: dict[str, Counter[int]] = {}
        self.points: dict[str, int] = {}
        self.bad: list[str] = []

    def prepare(self, name: str) -> None:
        """Makes the folder of a writer, its truth, and counts its calls."""
        writer, folder = WRITERS[name], self.root / name
        folder.mkdir()
        for command in writer.before:
            self._must(folder, command)
        if writer.before and writer.output not in ("r.h5",):  # one to be replaced
            (folder / writer.output).write_bytes(b"an older file")
        self.folder = folder
        trial = self._copy(folder)
        pid = begin(lambda: self._count(trial, writer.command), trial / "told")
        if end(pid) != 0:
            raise SystemExit(f"{name}: {(trial / 'told').read_text()}")
        self.points[name] = int((trial / "calls").read_text())
        self.truth = contents(trial, writer.output)
        shutil.rmtree(trial)

    def trial(self, name: str) -> None:
        """One fault."""
        writer, folder = WRITERS[name], self._copy(self.folder)
        fault = self.random.choice(list(FAULTS))
        point = self.random.randint(1, self.points[name])
        old = state(folder, writer.output)
        kind, lasting = FAULTS[fault]
        told = self.root / "told"
        code = end(begin(lambda: self._in(folder, writer.command, point, kind, lasting), told))
        gone = folder.with_name(folder.name + ".away")
        if gone.exists():
            shutil.rmtree(folder, ignore_errors=True)
            gone.rename(folder)
        self.ends.setdefault(name, Counter())[code] += 1
        where = f"{name}, {fault} at call {point} of {self.points[name]}: exit {code}"
        message = told.read_text()
        if code not in (0, 3) or "Traceback" in message:
            self.bad.append(f"{where}: {message[-600:]}")
        try:
            kept = state(folder, writer.output) == old  # of which some hold no table
            now = None if kept else contents(folder, writer.output)
            if code == 0 and now != self.truth:
                self.bad.append(f"{where}: it says that all is well, and it is not")
            if not kept and now != self.truth and writer.output != "r.h5":
                self.bad.append(f"{where}: neither the old nor the new one")
        except Exception as error:
            self.bad.append(f"{where}: not readable: {error}")
        cleans = fault in ("device", "quota", "short write", "no space")
        if cleans and code == 3 and self._temporaries(folder):
            self.bad.append(f"{where}: left {self._temporaries(folder)}")
        self._must(folder, writer.command)
        if self._found(folder, writer) != self._of_results(self.truth):
            self.bad.append(f"{where}: afterwards it gives something else")
        shutil.rmtree(folder)

    def _found(self, folder: Path, writer: Writer) -> dict[str, bytes]:
        return self._of_results(contents(folder, writer.output))

    def _of_results(self, found: dict[str, bytes]) -> dict[str, bytes]:
        """Without the checkpoint: where the last one could not be written, which is said, there is
        an older one or none beside complete results."""
        return {name: own for name, own in found.items() if not name.startswith(CHECKPOINT)}

    def _temporaries(self, folder: Path) -> list[str]:
        return [p.name for p in folder.iterdir() if p.name.startswith(".")]

    def _copy(self, folder: Path) -> Path:
        new = Path(tempfile.mkdtemp(dir=self.root))
        shutil.copytree(folder, new, dirs_exist_ok=True)
        return new

    def _in(self, folder: Path, command, point: int, kind: int, lasting: bool) -> int:
        os.chdir(folder)
        trainer.SAVE_EVERY, trainer.SAVE_SHARE = 0.0, 0.3
        self.library.fault_arm(
            str(folder).encode(), ctypes.c_long(point), kind, ctypes.c_int(lasting)
        )
        return grokfast(list(command))

    def _count(self, folder: Path, command) -> int:
        code = self._in(folder, command, 0, 0, False)
        calls = self.library.fault_count()
        (folder / "calls").write_text(str(calls))
        return code

    def _must(self, folder: Path, command) -> None:
        told = self.root / "told"
        if end(begin(lambda: self._in(folder, command, 0, 0, False), told)) != 0:
            self.bad.append(f"{' '.join(command)} without a fault: {told.read_text()[-600:]}")


def state(folder: Path, output: str) -> bytes | None:
    path = folder / output
    return path.read_bytes() if path.exists() else None


def main(
    number: int = 1000,
    seed: int = 1,
    only: str | None = None,
    out: str | None = None,
    minutes: float = 1e9,
) -> int | None:
    """Injects so many faults, or as many as there is time for, and counts what was lost."""
    names = list(WRITERS) if only is None else listed(only)
    torch.set_num_threads(1)
    for module in LATE:
        importlib.import_module(module)
    begun, before = time.monotonic(), Path.cwd()
    out = None if out is None else str(Path(out).resolve())
    with tempfile.TemporaryDirectory() as root:
        campaign = Campaign(seed, Path(root))
        for name in names:
            campaign.prepare(name)
            for _ in range(max(1, number // len(names))):
                campaign.trial(name)
                if time.monotonic() - begun > 60 * minutes * (1 + names.index(name)) / len(names):
                    break  # each writer has its part of the time
            print(f"{name}: {dict(campaign.ends[name])}", file=sys.stderr, flush=True)
        os.chdir(before)  # whose commit is reported
    shutil.rmtree(os.environ["GROKFAST_FAULTS"], ignore_errors=True)
    for line in campaign.bad[:40]:
        print(line, file=sys.stderr)
    found = {
        "faults": sum(c.total() for c in campaign.ends.values()),
        "points": campaign.points,
        "ends": {name: dict(sorted(own.items())) for name, own in campaign.ends.items()},
        "wrong": len(campaign.bad),
        "seconds": round(time.monotonic() - begun, 1),
    }
    report("faults", seed, found, out)
    return 1 if campaign.bad else None


if __name__ == "__main__":
    preloaded()
    sys.exit(script(main))
