"""Signals at every stage of a command, each in a child that would never end by itself.

    python tests/campaigns/signals.py [--out=FILE]

A child says when it has come to where it is to be hit; then it is hit, and must end with 128 + n,
all its steps saved. Nothing is timed: a child that does not end hangs the campaign, which is said.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from children import begin, end, report

import grokfast as gf
from grokfast.checkpoint import load_checkpoint
from grokfast.cli import main as grokfast
from grokfast.cli import script
from grokfast.engines import lockstep_compile, native
from grokfast.engines.compiled import CompiledEngine
from grokfast.signals import STOPPING
from grokfast.storage.files import checkpoint_path

ENDLESS = (
    "run", "addition-classification", "--lr=1e-5", "--weight-decay=20", "--steps=10000000",
    "--stop=never", "--threads=1", "--set=model.width=16", "--device=cpu", "--out=r.h5",
)  # fmt: skip

Say = Callable[[], None]


def training(say: Say, engine: str = "native") -> None:
    """Speaks in the second chunk, so that there is something to save."""
    kind = native.NativeEngine if engine == "native" else CompiledEngine
    advance, calls = kind.advance, []

    def speaking(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            say()
        advance(self, *arguments)

    kind.advance = speaking  # type: ignore[method-assign]


def importing(say: Say) -> None:
    """A module whose loading never ends and that lets no exception out."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "grokfast.trainer":
                say()
                while True:
                    try:
                        time.sleep(3600)
                    except BaseException:
                        continue

    sys.modules.pop("grokfast.trainer", None)
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]


def compiling(say: Say) -> None:
    """The compiler, in a thread, never comes back."""

    def never(*arguments, **options):
        say()
        threading.Event().wait()

    lockstep_compile.compiled = never
    lockstep_compile.compiled_arithmetic = lambda device: "some"
    import grokfast.engines.compiled as engine

    engine.compiled_arithmetic = lambda device: "some"


def in_a_pass(say: Say) -> None:
    """The third pass of a chunk takes for ever."""
    CompiledEngine.eager, calls = True, []
    replay = lockstep_compile.Graph.__call__

    def slow(self):
        calls.append(1)
        if len(calls) == 3:
            say()
            threading.Event().wait()
        replay(self)

    lockstep_compile.Graph.__call__ = slow  # type: ignore[method-assign]


def ignoring_hangups(say: Say) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    training(say)


STAGES: dict[str, tuple[Callable[[Say], None], str, list[list[int]]]] = {
    "training": (training, "native", [[int(s)] for s in STOPPING]),
    "twice": (
        training,
        "native",
        [[signal.SIGTERM] * 2, [signal.SIGINT, signal.SIGTERM], [signal.SIGUSR1] * 20],
    ),
    "nohup": (ignoring_hangups, "native", [[signal.SIGHUP, signal.SIGTERM]]),
    "import": (importing, "native", [[signal.SIGTERM], [signal.SIGINT] * 2, [signal.SIGHUP]]),
    "compilation": (compiling, "compiled", [[signal.SIGTERM], [signal.SIGINT] * 2]),
    "pass": (in_a_pass, "compiled", [[signal.SIGTERM], [signal.SIGXCPU]]),
}


def hit(folder: Path, stage: str, signals: list[int]) -> str:
    """What is wrong with how one child ends; nothing where all is as it should be."""
    prepare, engine, _ = STAGES[stage]
    read, write = os.pipe()

    def work() -> int:
        os.chdir(folder)
        prepare(lambda: os.write(write, b"!") and None)
        sys.argv[1:] = [*ENDLESS, f"--engine={engine}"]
        return grokfast()

    pid = begin(work, folder / "told")
    os.close(write)
    there = os.read(read, 1)
    os.close(read)
    if there != b"!":
        return f"it ended before: {end(pid)} {(folder / 'told').read_text()}"
    begun = time.monotonic()
    for signum in signals:
        os.kill(pid, signum)
        time.sleep(0.005)
    code = end(pid)
    SECONDS.append(time.monotonic() - begun)
    told = (folder / "told").read_text()
    expected = 128 + (signal.SIGTERM if stage == "nohup" else signals[0])
    if code != expected or "Traceback" in told or "error" in told:
        return f"ended with {code}, not {expected}: {told}"
    if stage == "import":
        return "" if not list(folder.glob("*.h5*")) else "files were left"
    if any(p.name.startswith(".") or p.suffix == ".lock" for p in folder.iterdir()):
        return f"left {sorted(p.name for p in folder.iterdir())}"
    results = gf.Results.load(folder / "r.h5")
    if stage in ("compilation", "pass"):  # within the first chunk: a call counts whole or not
        return "" if results["steps_done"].tolist() == [0] else "half a chunk was saved"
    rows = load_checkpoint(checkpoint_path(folder / "r.h5"))
    steps = [int(row["step"]) for row in rows.values()]
    return "" if steps == results["steps_done"].tolist() and steps[0] > 0 else f"saved {steps}"


SECONDS: list[float] = []


def main(only: str | None = None, out: str | None = None) -> int | None:
    """Sends every signal at every stage and counts what went wrong."""
    torch.set_num_threads(1)
    counts, bad = {}, []
    with tempfile.TemporaryDirectory() as root:
        for stage, (_, _, sent) in STAGES.items():
            if only is not None and stage != only:
                continue
            counts[stage] = len(sent)
            for signals in sent:
                wrong = hit(Path(tempfile.mkdtemp(dir=root)), stage, signals)
                if wrong:
                    bad.append(f"{stage} {[signal.Signals(s).name for s in signals]}: {wrong}")
    print("\n".join(bad), file=sys.stderr)
    found = {"children": sum(counts.values()), "by_stage": counts, "wrong": len(bad)}
    report("signals", 0, found | {"longest_seconds": round(max(SECONDS, default=0), 2)}, out)
    return 1 if bad else None


if __name__ == "__main__":
    sys.exit(script(main))
