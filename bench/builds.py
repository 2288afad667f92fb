"""Builds of the native module against each other: ``python bench/builds.py FOLDER FOLDER ...``

Each folder holds a ``_native*.so`` (``python csrc/build.py FOLDER``). Every build lives in a
process of its own, for the loader would share symbols between two of them in one; the processes
are called in turn, because the machine's speed drifts. They must end with the same bits.
"""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from grokfast.bench import Work
from grokfast.cli import script
from grokfast.engines.native import NativeEngine
from grokfast.state import State


def main(
    *folders: str,
    task: str = "addition-classification",
    models: int = 24,
    steps: int = 100,
    threads: int = 2,
    repetitions: int = 20,
    dtype: str = "float32",
    evaluation_points: int = 0,
) -> None:
    """Prints microseconds a model-step of each build, and its ratio to the first.

    Args:
        folders: of the builds.
        task, models, steps, threads, dtype, evaluation_points: of one repetition.
        repetitions: of every build, in turn; one more comes first and is not counted.
    """
    work = [str(x) for x in (task, models, steps, threads, dtype, evaluation_points)]
    builds = [
        subprocess.Popen(
            [sys.executable, __file__, "serve", folder, *work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for folder in folders
    ]

    def ask(build: subprocess.Popen[str], what: str) -> str:
        assert build.stdin is not None and build.stdout is not None
        build.stdin.write(f"{what}\n")
        return build.stdout.readline().strip()

    times: list[list[float]] = [[] for _ in builds]
    for r in range(repetitions + 1):
        order = range(len(builds)) if r % 2 else range(len(builds) - 1, -1, -1)
        for k in order:
            took = float(ask(builds[k], "train"))
            if r:
                times[k].append(took)
    digests = [ask(build, "digest") for build in builds]
    for folder, own, digest in zip(folders, times, digests, strict=True):
        ratio = statistics.median(a / b for a, b in zip(own, times[0], strict=True))
        same = "same bits" if digest == digests[0] else "OTHER BITS"
        print(
            f"{folder}: {statistics.median(own):.1f} us, {min(own):.1f} to {max(own):.1f}; "
            f"{ratio:.3f} of the first; {same}"
        )
    for build in builds:
        assert build.stdin is not None
        build.stdin.close()
        build.wait()


def serve(
    folder: str, task: str, models: str, steps: str, threads: str, dtype: str, points: str
) -> None:
    """Trains further whenever it is told to, and says how long it took."""
    torch.set_num_threads(1)
    (path,) = Path(folder).glob("_native*.so")
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    engine = NativeEngine(torch.device("cpu"), int(threads))
    engine._native = module
    bucket = Work(task, evaluation_points=int(points)).bucket(int(models), dtype)
    state, cells, done = State.initial(bucket), torch.arange(int(models)), 0
    for line in sys.stdin:
        if line.strip() == "digest":
            digest = hashlib.sha256()
            for tensor in state.params:
                digest.update(tensor.numpy().tobytes())
            print(digest.hexdigest(), flush=True)
            continue
        done += int(steps)
        start = time.perf_counter()
        engine.advance(bucket, state, cells, done)
        print((time.perf_counter() - start) / int(steps) / len(cells) * 1e6, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(script(main))
