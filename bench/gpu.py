"""Everything that is to be known on a GPU, in the order of its worth: ``make bench-gpu``.

    python bench/gpu.py [--only=tests,cells,bench] [--device=cuda] [--engine=triton] ...

Compiles first, checks then, measures last: a kernel takes one processor 15 to 40 s, and all parts
together have some 30, so `compile` fills the caches with all processors at once. Each part runs in
processes of its own with a time limit, and what fails or hangs stops nothing else; what a part
prints is kept in FOLDER/PART.txt as it comes, rows of the benchmark in FOLDER/cuda.jsonl, results
files beside them. The last line is JSON: part, seconds, what failed. A rehearsal:
``--device=cpu --engine=native --steps=200 --models=2``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from run import names

from grokfast import hardware
from grokfast.cli import script
from grokfast.errors import UsageError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
TASKS = ("addition-classification", "addition-regression")
#: The 5 x 5 subgrids whose exact steps are known (grokfast agree).
SUBGRID = {
    "addition-classification": "linspace:0:20:5",
    "addition-regression": "linspace:0:10:5",
}
#: What to try beside what kernels/layout.py chooses, by precision: the fields of kernels.Tiles.
TILES = {
    "tf32x3": (
        *("64-64-64-4-2-2-0", "64-64-64-4-1-2-1", "64-64-64-4-3-2-0", "64-32-64-4-2-2-0"),
        *("32-64-64-4-2-2-1", "64-64-64-8-1-1-0"),
    ),
    "ieee": ("32-16-64-4-2-3-1", "64-16-64-4-1-2-1", "32-16-64-8-2-1-1"),
    "tf32": ("64-64-64-4-2-2-0", "64-64-64-4-1-2-0"),
}


def main(
    device: str = "cuda",
    engine: str = "triton",
    only: str | None = None,
    folder: str | None = None,
    steps: int = 100_000,
    models: str = "1,66,132,441,2000",
    limit: int = 540,
    total: int = 5400,
) -> None:
    """Runs the parts one after the other.

    Args:
        device: cuda, or cpu for a rehearsal.
        engine: triton, or another for a rehearsal.
        only: parts; all where not given.
        folder: where everything goes; bench/results/gpu where not given.
        steps: of the whole cells and diagrams (these also without early stopping).
        models: numbers of models of the benchmark.
        limit: seconds a part may take.
        total: seconds all of them may take; parts that would come later are not begun.
    """
    end = time.monotonic() + total
    out = Path(folder).resolve() if folder else HERE / "results" / "gpu"
    plan = parts(device, engine, out, steps, names(models))
    wanted = names(only) if only else list(plan)
    if unknown := set(wanted) - set(plan):
        raise UsageError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(plan)}")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in wanted:
        begun, log = time.monotonic(), out / f"{name}.txt"
        if begun > end:
            found.append({"part": name, "s": 0.0, "status": "not begun"})
            continue
        log.unlink(missing_ok=True)
        at_once = hardware.cores() if name == "compile" else 1
        status = run_part(plan[name], log, min(begun + limit, end), at_once)
        print("\n".join(log.read_text().splitlines()[-40:]) if log.exists() else "", flush=True)
        found.append({"part": name, "s": round(time.monotonic() - begun, 1), "status": status})
        print(json.dumps(found[-1]), flush=True)
    print(json.dumps(found))


def parts(
    device: str, engine: str, out: Path, steps: int, models: list[str]
) -> dict[str, list[list[str]]]:
    """Part -> its command lines."""
    python, where = sys.executable, [f"--engine={engine}", f"--device={device}"]

    def run(task: str, name: str, *options: str) -> list[str]:
        file = f"--out={out / name}.h5"
        return [python, "-m", "grokfast", "run", task, *where, file, "--overwrite", *options]

    def agree(name: str) -> list[str]:
        return [python, "-m", "grokfast", "agree", str(out / f"{name}.h5")]

    rows = out / f"{device}.jsonl"
    one_thread = ["env", "OMP_NUM_THREADS=1", "TORCHINDUCTOR_COMPILE_THREADS=1"]

    def bench(
        numbers_of_models: list[str],
        contenders: list[str],
        tasks: tuple[str, ...] = TASKS,
        repetitions: int = 3,
        rows: Path = rows,
    ) -> list[str]:
        return [
            *(python, str(HERE / "run.py"), f"--device={device}"),
            *(f"--models={','.join(numbers_of_models)}", f"--only={','.join(contenders)}"),
            *(f"--tasks={','.join(tasks)}", f"--repetitions={repetitions}"),
            *("--seconds=0.3", f"--out={rows}"),
        ]

    def build(models: str, contender: str, task: str) -> list[str]:
        return [*one_thread, *bench([models], [contender], (task,), 1, Path(os.devnull))]

    cuda = device == "cuda"
    precisions = ("ieee", "tf32x3") if cuda else ("ieee",)
    own = [engine, *(f"{engine} {p}" for p in ("tf32x3", "tf32") if cuda)]
    tiles = {p: [f"{engine} {p} t{t}" for t in choices] for p, choices in TILES.items()}
    if engine != "triton":
        tiles = {}
    stacked = ["compiled", "stacked torch.compile"]
    peers = [*stacked, "jax vmap + scan", "stacked eager", "eager loop"]
    grid_size = [models[-2] if len(models) > 1 else models[-1]]
    cells, diagrams = [], []
    for task in TASKS:
        grid = ["--lr=logspace:-5:-2:5", f"--weight-decay={SUBGRID[task]}", f"--steps={steps}"]
        for precision in precisions:
            name, products = f"{task}.{precision}", f"--precision={precision}"
            cells.append(run(task, f"{name}.5x5", *grid, products))
            cells.append(agree(f"{name}.5x5"))
            diagrams.append(run(task, name, f"--steps={steps}", products))
            diagrams.append([python, "-m", "grokfast", "plot", str(out / f"{name}.h5")])
            diagrams.append(agree(name))
            diagrams.append(
                run(task, f"{name}.whole", f"--steps={steps}", products, "--stop=never")
            )
    pytest = [*one_thread, python, "-m", "pytest", "-q"]
    if find_spec("xdist"):  # the tests' kernels are compiled side by side, too
        pytest += ["-n", "auto"]
    if find_spec("pytest_timeout"):
        pytest += ["--timeout=150", "--timeout-method=thread"]
    sanitizer = shutil.which("compute-sanitizer")
    short = ["--lr=1e-3", "--weight-decay=5", "--steps=3"]
    # Tensors that lie side by side in one cached block would hide what runs over their ends.
    checked = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", str(sanitizer), "--error-exitcode=1"]
    api = ["--report-api-errors=no"]  # torch asks the driver for what it may not have
    sanitized = [
        [*checked, f"--tool={tool}", *api, *run(TASKS[0], "sanitized", *short, f"--precision={p}")]
        for p in ("ieee", "tf32x3")
        for tool in ("memcheck", "racecheck")
    ]
    return {
        "machine": [[python, "-m", "grokfast", "doctor"], ["nvidia-smi"]][: 1 + cuda],
        "compile": [
            *(build("1", c, TASKS[0]) for choices in tiles.values() for c in choices),
            *(build("1", c, task) for c in own for task in TASKS),
            # torch.compile does it anew for every number of models.
            *(build(n, c, task) for c in stacked for task in TASKS for n in models),
        ],
        "tests": [
            [*pytest, str(REPOSITORY / "tests" / folder / "test_gpu.py")]
            for folder in ("kernels", "engines")
        ],
        "cells": cells,
        "bench": [
            # Side by side in one run: the ratios that count.
            bench(grid_size, [*own, *(["compiled tf32"] if cuda else []), *peers]),
            bench(models, own),
            bench(models, [*(["native"] if cuda else []), *peers]),
        ],
        "programs": [
            bench(grid_size, [f"{engine} {p} x{n}" for n in (66, 72, 132, 264, 396)])
            for p in ("tf32x3", "ieee")
            if engine == "triton"
        ],
        "tiles": [
            bench(grid_size, [f"{engine} {p}", *choices], TASKS[:1]) for p, choices in tiles.items()
        ],
        "diagrams": diagrams,
        "sanitizer": sanitized if sanitizer else [],
    }


def run_part(commands: list[list[str]], log: Path, deadline: float, at_once: int = 1) -> str:
    """Runs the commands, the next one also where one fails; what they print goes to the log."""
    if not commands:
        return "nothing to run here"
    logs = [log] * len(commands)
    if at_once > 1:  # a log each, joined when all have ended
        logs = [log.with_suffix(f".{k}.txt") for k in range(len(commands))]

    def run(command: list[str], path: Path) -> int:
        with path.open("a") as kept:
            kept.write(f"$ {' '.join(command)}\n")
            kept.flush()
            begun = time.monotonic()
            # From outside the tree: kernels/ is grokfast.kernels, and nothing else.
            process = subprocess.Popen(
                command,
                stdout=kept,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
            )
            status = ended(process, deadline)
            kept.write(f"# {time.monotonic() - begun:.1f} s, exit status {status}\n")
        return status

    with ThreadPoolExecutor(at_once) as pool:
        statuses = list(pool.map(run, commands, logs))
    if at_once > 1:
        log.write_text("".join(path.read_text() for path in logs))
        for path in logs:
            path.unlink()
    failed = [
        f"{status} from {' '.join(command)}"
        for command, status in zip(commands, statuses, strict=True)
        if status
    ]
    if missing := log.read_text().count(": not timed: "):
        failed.append(f"{missing} not timed")
    return "; ".join(failed) or "ok"


def ended(process: subprocess.Popen[bytes], deadline: float) -> int:
    """The exit status; 124 past the deadline, when the process and all it began are ended: asked
    first, so that results are saved and tests summed up, then made to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(max(1.0, deadline - time.monotonic()))
    for sent, seconds in ((signal.SIGINT, 15), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    return 124


if __name__ == "__main__":
    sys.exit(script(main))
