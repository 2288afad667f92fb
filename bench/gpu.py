"""Everything that is to be known on a GPU, in the order of its worth: ``make bench-gpu``.

    python bench/gpu.py [--only=tests,cells,bench] [--device=cuda] [--engine=triton] ...

Checks first, measures then. Each part runs in processes of its own with a time limit, and what
fails stops nothing else; what a part prints is kept in FOLDER/PART.txt as it comes, rows of the
benchmark in FOLDER/cuda.jsonl, results files beside them. The last line is JSON: part, seconds,
what failed. With ``--device=cpu --engine=native --steps=200 --models=2`` it is a rehearsal.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fire
from run import names

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
) -> None:
    """Runs the parts one after the other.

    Args:
        device: cuda, or cpu for a rehearsal.
        engine: triton, or another for a rehearsal.
        only: parts; all where not given.
        folder: where everything goes; bench/results/gpu where not given.
        steps: of the whole cells and diagrams.
        models: numbers of models of the benchmark.
        limit: seconds a part may take.
    """
    out = Path(folder) if folder else HERE / "results" / "gpu"
    plan = parts(device, engine, out, steps, names(models))
    wanted = names(only) if only else list(plan)
    if unknown := set(wanted) - set(plan):
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(plan)}")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in wanted:
        begun, log = time.monotonic(), out / f"{name}.txt"
        log.unlink(missing_ok=True)
        status = run_part(plan[name], log, limit)
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

    def bench(
        numbers_of_models: list[str], contenders: list[str], tasks: tuple[str, ...] = TASKS
    ) -> list[str]:
        return [
            *(python, str(HERE / "run.py"), f"--device={device}"),
            *(f"--models={','.join(numbers_of_models)}", f"--only={','.join(contenders)}"),
            f"--tasks={','.join(tasks)}",
            *("--repetitions=3", "--seconds=0.3", f"--out={out / f'{device}.jsonl'}"),
        ]

    cuda = device == "cuda"
    own = [engine, *(f"{engine} {p}" for p in ("tf32x3", "tf32") if cuda)]
    peers = ["compiled", "jax vmap + scan", "stacked torch.compile", "stacked eager", "eager loop"]
    grid_size = [models[-2] if len(models) > 1 else models[-1]]
    cells, diagrams = [], []
    for task in TASKS:
        grid = ["--lr=logspace:-5:-2:5", f"--weight-decay={SUBGRID[task]}", f"--steps={steps}"]
        for precision in ("ieee", "tf32x3") if cuda else ("ieee",):
            name = f"{task}.5x5.{precision}"
            cells.append(run(task, name, *grid, f"--precision={precision}"))
            cells.append(agree(name))
        diagrams.append(run(task, task, f"--steps={steps}"))
        diagrams.append([python, "-m", "grokfast", "plot", str(out / f"{task}.h5")])
        diagrams.append(agree(task))
    sanitizer = shutil.which("compute-sanitizer")
    short = ["--lr=1e-3", "--weight-decay=5", "--steps=3"]
    # Tensors that lie side by side in one cached block would hide what runs over their ends.
    checked = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", str(sanitizer), "--error-exitcode=1"]
    sanitized = [
        [*checked, f"--tool={tool}", *run(TASKS[0], "sanitized", *short, f"--precision={p}")]
        for p in ("ieee", "tf32x3")
        for tool in ("memcheck", "racecheck")
    ]
    return {
        "machine": [[python, "-m", "grokfast", "doctor"], ["nvidia-smi"]][: 1 + cuda],
        "tests": [
            [python, "-m", "pytest", "-q", str(REPOSITORY / "tests" / folder / "test_gpu.py")]
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
            # One task: every choice is compiled anew, at some 20 s.
            bench(
                grid_size,
                [f"{engine} {p}", *(f"{engine} {p} t{tiles}" for tiles in choices)],
                TASKS[:1],
            )
            for p, choices in TILES.items()
            if engine == "triton"
        ],
        "diagrams": diagrams,
        "sanitizer": sanitized if sanitizer else [],
    }


def run_part(commands: list[list[str]], log: Path, limit: int) -> str:
    """Runs the commands, the next one also where one fails; what they print goes to the log."""
    deadline = time.monotonic() + limit
    if not commands:
        return "nothing to run here"
    failed = []
    for command in commands:
        with log.open("a") as kept:
            kept.write(f"$ {' '.join(command)}\n")
            kept.flush()
            begun = time.monotonic()
            try:
                # From outside the tree: kernels/ is grokfast.kernels, and nothing else.
                status = subprocess.run(
                    command,
                    stdout=kept,
                    stderr=subprocess.STDOUT,
                    cwd=log.parent,
                    timeout=max(1.0, deadline - begun),
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
            kept.write(f"# {time.monotonic() - begun:.1f} s, exit status {status}\n")
        if status:
            failed.append(f"{status} from {' '.join(command)}")
    return "; ".join(failed) or "ok"


if __name__ == "__main__":
    fire.Fire(main)
