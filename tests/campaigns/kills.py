"""Kills at random moments of everything that writes, and on again: ``make campaign-kills``.

    python tests/campaigns/kills.py [--number=1000] [--seed=1] [--only=run,...] [--out=FILE]

A history is one command, killed at a random moment again and again until it has come to its end;
then its files must hold the very values of one that nobody disturbed. After each kill whatever lies
there must be readable.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "data")]
from children import begin, beside, end, killed, listed, report  # noqa: E402

import grokfast as gf  # noqa: E402
from grokfast import trainer  # noqa: E402
from grokfast.checkpoint import load_checkpoint  # noqa: E402
from grokfast.cli import main as grokfast  # noqa: E402
from grokfast.cli import script  # noqa: E402
from grokfast.storage.files import checkpoint_path  # noqa: E402

SMALL = ("addition-classification", "--set=model.width=16", "--record=weights,embeddings:50")
CELLS = ("--lr=1e-3,1e-2", "--weight-decay=0,3", "--device=cpu", "--threads=1")


@dataclass(frozen=True)
class Kind:
    """What is killed: the command lines that make its folder ready, and the one in question."""

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    output: str = "r.h5"
    share: float = 1.0  # of the kills


def runs(engine: str, steps: int) -> tuple[str, ...]:
    return ("run", *SMALL, *CELLS, f"--engine={engine}", f"--steps={steps}", "--out=r.h5")


FINISHED = runs("native", 200)
SHARDS = tuple(
    (*FINISHED[:-1], f"--shard={i}/2", f"--out=s{i}.h5") for i in (1, 2)
)  # fmt: skip
MORE = ("--lr=1e-3,1e-2", "--weight-decay=0,1,3", *CELLS[2:], *runs("native", 2000)[-3:])
TABLE = ("export", "r.h5", "--overwrite")
KINDS = {
    "native": Kind(runs("native", 3000), share=5),
    "reference": Kind(runs("reference", 250), share=2),
    "compiled": Kind(runs("compiled", 250), share=0.5),
    "more steps": Kind(runs("native", 3000), (FINISHED,), share=2),
    "more cells": Kind(("run", *SMALL, *MORE), (runs("native", 2000),), share=2),
    "link": Kind(runs("native", 3000), share=1),
    "merge": Kind(("merge", "s1.h5", "s2.h5", "--out=m.h5", "--overwrite"), SHARDS, "m.h5"),
    "export csv": Kind((*TABLE, "--out=x.csv", "--long"), (FINISHED,), "x.csv"),
    "export nc": Kind((*TABLE, "--out=x.nc"), (FINISHED,), "x.nc", 0.3),
    "plot": Kind(("plot", "r.h5", "--kind=curves", "--out=x.png"), (FINISHED,), "x.png", 0.5),
    "fetch": Kind(("data", "fetch", "--data-dir=mnist"), output="mnist"),
}  # fmt: skip


#: Names of what a checkpoint holds begin so.
CHECKPOINT = "checkpoint"


class Campaign:
    """Counts of one run of it."""

    def __init__(self, seed: int, root: Path) -> None:
        self.random, self.root = random.Random(seed), root
        self.kills: dict[str, int] = {}
        self.truths: dict[str, tuple[dict[str, bytes], float]] = {}
        self.bad: dict[str, list[str]] = {
            what: [] for what in ("unreadable", "differing", "failed", "older_checkpoints")
        }
        self.leftovers = 0

    def begin(self, name: str, kind: Kind) -> None:
        """One life without a kill: what it makes, and how long it takes."""
        whole = self._folder(kind, name)
        if name == "compiled":  # its children find the code in their memory
            os.chdir(whole)
            grokfast(list(kind.command))
            shutil.rmtree(whole)
            whole = self._folder(kind, name)
        begun = time.monotonic()
        if self._do(kind, whole, None) != 0:
            raise SystemExit(f"{name}: {(whole / 'told').read_text()}")
        took = time.monotonic() - begun
        self.truths[name] = contents(whole, kind.output), took
        self.kills[name] = 0
        shutil.rmtree(whole)

    def history(self, name: str, kind: Kind) -> None:
        """Kills until it has come to its end."""
        truth, took = self.truths[name]
        folder = self._folder(kind, name)
        while not self._do(kind, folder, self.random.random() * took, name):
            self._readable(kind, folder, name)
        if self._do(kind, folder, None) != 0:  # also what is complete already
            self.bad["failed"].append(f"{name}: {(folder / 'told').read_text()[-500:]}")
        found = contents(folder, kind.output)
        different = {n for n in found.keys() | truth.keys() if found.get(n) != truth.get(n)}
        results = {n for n in different if not n.startswith(CHECKPOINT)}
        # Killed before the last write of all it holds cells more, whose end the results hold, too.
        older = (different - results) & truth.keys()
        for what, names in (("differing", results), ("older_checkpoints", older)):
            if names:
                self.bad[what].append(f"{name}: {', '.join(sorted(names))}")
        self.leftovers += sum(1 for p in folder.rglob(".*") if p.is_file())
        shutil.rmtree(folder)

    def _folder(self, kind: Kind, name: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.root))
        if name == "link":
            (folder / "far").mkdir()
            (folder / "r.h5").symlink_to("far/real.h5")
        if name == "fetch":
            (folder / "mnist").mkdir()
        for command in kind.before:
            if end(begin(lambda c=command: _in(folder, c), folder / "told")) != 0:
                raise SystemExit(f"{name}: {(folder / 'told').read_text()}")
        return folder

    def _do(self, kind: Kind, folder: Path, after: float | None, name: str = "") -> int | bool:
        """One life: its exit code; with a time to live, whether it came to its end."""
        pid = begin(lambda: _in(folder, kind.command), folder / "told")
        if after is None:
            return end(pid)
        if not killed(pid, after):
            return True
        self.kills[name] += 1
        return False

    def _readable(self, kind: Kind, folder: Path, name: str) -> None:
        path = folder / kind.output
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a damaged checkpoint is one
                if path.suffix == ".h5" and path.exists():
                    gf.Results.load(path)
                load_checkpoint(checkpoint_path(path.resolve()))
        except (gf.GrokfastError, UserWarning) as error:
            self.bad["unreadable"].append(f"{name}: {error}")


def _in(folder: Path, command: tuple[str, ...]) -> int:
    os.chdir(folder)
    trainer.SAVE_EVERY, trainer.SAVE_SHARE = 0.0, 0.3  # a third of the time within a save
    if command[:2] == ("data", "fetch"):
        from look_alike import FILES

        from grokfast.data import fetch_mnist

        fetch_mnist(folder / "mnist", files=FILES)
        return 0
    return grokfast(list(command))


def contents(folder: Path, output: str) -> dict[str, bytes]:
    """What was made, without the times of its making."""
    path = folder / output
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.name[0] != "."}
    if not path.exists():
        return {}
    if path.suffix == ".h5":
        results = gf.Results.load(path)
        found = {name: results[name].tobytes() for name in results.variables}
        for k, weights in enumerate(results.weights):
            found |= {f"weights {k} {name}": own.tobytes() for name, own in weights.items()}
        rows = load_checkpoint(checkpoint_path(path.resolve()))
        return found | {
            f"{CHECKPOINT} {key} {name}": own.tobytes()
            for key, row in rows.items()
            for name, own in row.items()
        }
    if path.suffix == ".nc":
        import h5py

        with h5py.File(path) as file:
            return {n: d[...].tobytes() for n, d in file.items() if isinstance(d, h5py.Dataset)}
    return {output: path.read_bytes()}


def _serve(pipe) -> None:
    from look_alike import Server

    server = Server()
    server.http.handle_error = lambda *about: None  # type: ignore[method-assign]  # of the killed
    print(server.mirror("good"), file=pipe, flush=True)
    server.thread.join()


def main(
    number: int = 1000,
    seed: int = 1,
    only: str | None = None,
    out: str | None = None,
    minutes: float = 1e9,
) -> int | None:
    """Kills so many processes, or as many as there is time for, and counts what was lost."""
    kinds = KINDS
    if only is not None:
        kinds = {name: KINDS[name] for name in listed(only)}
    torch.set_num_threads(1)
    begun, before = time.monotonic(), Path.cwd()
    out = None if out is None else str(Path(out).resolve())
    work: Callable = _serve
    with beside(work) as mirror, tempfile.TemporaryDirectory() as root:
        os.environ |= {"GROKFAST_MNIST_MIRROR": mirror, "GROKFAST_DATA": ""}
        campaign = Campaign(seed, Path(root))
        shares = sum(kind.share for kind in kinds.values())
        wanted = {n: max(1, round(number * k.share / shares)) for n, k in kinds.items()}
        for name, kind in kinds.items():
            campaign.begin(name, kind)
        # Of each kind the same part is done at any time.
        while (left := {n for n in kinds if campaign.kills[n] < wanted[n]}) and (
            time.monotonic() - begun < 60 * minutes
        ):
            name = min(left, key=lambda n: campaign.kills[n] / wanted[n])
            campaign.history(name, kinds[name])
            done = sum(campaign.kills.values())
            print(f"\r{done} kills", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        os.chdir(before)  # whose commit is reported
    for what, lines in campaign.bad.items():
        for line in lines[:10]:
            print(f"{what}: {line}", file=sys.stderr)
    report(
        "kills",
        seed,
        {
            "kills": sum(campaign.kills.values()),
            "by_kind": campaign.kills,
            **{what: len(lines) for what, lines in campaign.bad.items()},
            "leftovers": campaign.leftovers,
            "seconds": round(time.monotonic() - begun, 1),
        },
        out,
    )
    return 1 if any(campaign.bad.values()) or campaign.leftovers else None


if __name__ == "__main__":
    sys.exit(script(main))
