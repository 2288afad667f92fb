"""What is to be asked of a GPU, in the order of what is learned per second, as data.

Each part says what it answers, what each answer would change, and how long it should take, so that
whoever has the minutes lands the change, too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
TASKS = ("addition-classification", "addition-regression")
#: The 5 x 5 subgrids whose exact steps are known (grokfast agree).
SUBGRID = {
    "addition-classification": "linspace:0:20:5",
    "addition-regression": "linspace:0:10:5",
}
#: The three most promising beside what kernels/layout.py chooses, by what bench/predict.py counts:
#: the fields of kernels.Tiles.
TILES = {
    "tf32x3": ("64-64-64-4-2-2-0", "64-32-64-4-2-2-0", "64-64-64-8-1-1-0"),
    "ieee": ("32-16-64-4-2-3-1", "64-16-64-4-1-2-1", "32-16-64-8-2-1-1"),
}
PROGRAMS = (132, 264, 396)  # one, two, three a multiprocessor of an H100 or H200

Command = list[str]


@dataclass(frozen=True)
class Part:
    """One question.

    Attributes:
        asks: what it answers.
        decides: what each answer would change.
        seconds: it should take on an H100 or H200, with 16 processors.
        rehearsal: seconds on two processors without a GPU, with few models and steps.
        commands: what to run; made when the part begins, from what the others have found.
        at_once: whether the commands run side by side: what compiles, or checks.
    """

    asks: str
    decides: str
    seconds: int
    rehearsal: int
    commands: Callable[[], list[Command]] = field(repr=False)
    at_once: bool = False


@dataclass(frozen=True)
class Setting:
    """Where and how large."""

    device: str
    engine: str
    folder: Path
    steps: int
    models: int

    @property
    def rows(self) -> Path:
        return self.folder / f"{self.device}.jsonl"

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("ieee", "tf32x3") if self.device == "cuda" else ("ieee",)

    @property
    def own(self) -> list[str]:
        """Our contenders, by the names of bench/run.py."""
        fewer = ("tf32x3", "tf32") if self.device == "cuda" else ()
        return [self.engine, *(f"{self.engine} {p}" for p in fewer)]

    def best_precision(self) -> str:
        """The faster of the precisions of float32 grade, by the rows; the first where there are
        none."""
        found: dict[str, float] = {}
        if self.rows.exists():
            for row in map(json.loads, self.rows.read_text().splitlines()):
                ours = row["contender"] in self.own and row["precision"] in self.precisions
                if ours and not row["skipped"]:
                    found[row["precision"]] = row["median_us"]
        return min(found, key=found.__getitem__) if found else self.precisions[0]

    def grokfast(self, *words: str) -> Command:
        return [sys.executable, "-m", "grokfast", *words]

    def run(self, task: str, name: str, *options: str) -> Command:
        where = [f"--engine={self.engine}", f"--device={self.device}"]
        out = f"--out={self.folder / name}.h5"
        return self.grokfast("run", task, *where, out, "--overwrite", *options)

    def bench(
        self,
        contenders: list[str],
        tasks: str = TASKS[0],
        models: int = 0,
        rows: Path | None = None,
        repetitions: int = 3,
        every: str = "0",
    ) -> Command:
        return [
            *(sys.executable, str(HERE / "run.py"), f"--device={self.device}"),
            *(f"--models={models or self.models}", f"--only={','.join(contenders)}"),
            *(f"--tasks={tasks}", f"--repetitions={repetitions}", "--seconds=0.3"),
            f"--every={every}",
            f"--out={rows or self.rows}",
        ]

    def build(self, contender: str, tasks: str = TASKS[0]) -> Command:
        """Fills the caches of compilers; one processor each, as many run side by side."""
        alone = ["env", "OMP_NUM_THREADS=1", "TORCHINDUCTOR_COMPILE_THREADS=1"]
        return [*alone, *self.bench([contender], tasks, rows=Path(os.devnull), repetitions=1)]


#: The best plain ways on a GPU.
PEERS = ["compiled", "stacked torch.compile", "jax vmap + scan"]


def parts(s: Setting) -> dict[str, Part]:
    """Name -> part, in order."""
    cuda, triton = s.device == "cuda", s.engine == "triton"
    peers = [*PEERS, *(["compiled tf32"] if cuda else [])]
    tiles = {p: [f"{s.engine} {p} t{t}" for t in TILES[p]] for p in s.precisions if triton}
    checks = [sys.executable, str(HERE / "gpu_check.py"), f"--device={s.device}"]
    checks += [f"--engine={s.engine}"]

    def diagram() -> list[Command]:
        precision = s.best_precision()
        name = f"{TASKS[0]}.{precision}"
        file = str(s.folder / f"{name}.h5")
        return [
            s.run(TASKS[0], name, f"--steps={s.steps}", f"--precision={precision}"),
            s.grokfast("plot", file),
            s.grokfast("agree", file),
        ]

    def subgrids() -> list[Command]:
        found = []
        for task in TASKS:
            for p in s.precisions:
                grid = ["--lr=logspace:-5:-2:5", f"--weight-decay={SUBGRID[task]}"]
                name = f"{task}.{p}.5x5"
                found += [
                    s.run(task, name, *grid, f"--steps={s.steps}", f"--precision={p}"),
                    s.grokfast("agree", str(s.folder / f"{name}.h5")),
                ]
        return found

    def mnist() -> list[Command]:
        precision = f"--precision={s.best_precision()}"
        steps = f"--steps={min(s.steps, 12_000) // 5 * 5}"
        return [
            s.run("mnist-original", "mnist-original", steps, precision),
            s.grokfast("agree", str(s.folder / "mnist-original.h5")),
            s.bench(s.own, "mnist-original", 210 if cuda else s.models),
        ]

    return {
        "right": Part(
            "Does it train right: every toy task and precision against float64, three cells "
            "together and alone to the bit, and the products in tf32x3 on the tensor cores.",
            "Wrong in tf32x3 alone: the default stays ieee and the split in kernels/linear.py "
            "is looked at. Wrong in ieee: nothing below counts; the test's output names the "
            "tensor. Other bits in other company: the promise of batch invariance is taken back "
            "for triton until found.",
            seconds=75,
            rehearsal=40,
            at_once=True,
            commands=lambda: [
                s.grokfast("doctor"),
                *([["nvidia-smi"]] if cuda else []),
                *(
                    [*checks, f"--tasks={task}", f"--precisions={p}"]
                    for task in TASKS
                    for p in s.precisions
                ),
                *(
                    [_pytest("kernels", "against_float64 and tf32x3 and classification")]
                    if cuda
                    else []
                ),
            ],
        ),
        "compile": Part(
            "Nothing: fills the caches for the next part, on all processors.",
            "Nothing.",
            seconds=60,
            rehearsal=50,
            at_once=True,
            commands=lambda: [s.build(c) for c in [*s.own, *peers]],
        ),
        "speed": Part(
            "Microseconds a step of 441 toy classification models in each precision, beside "
            "CUDA-graph `compiled`, the best plain stack and JAX. Expected: tf32x3 132 to 200, "
            "ieee 230 to 330, tf32 106 to 230.",
            "tf32x3 right and faster than ieee: it becomes the default precision on CUDA "
            "(engines/triton.py), else ieee stays. All 441 x 1e5 steps above 30 s (300 us): "
            "Gluon is not next, the tiles are. Between 10 s and 30 s: Gluon (weights in shared "
            "memory) is next. Below 3 times the best peer: `auto` prefers the peer's way "
            "(compiled) on CUDA.",
            seconds=75,
            rehearsal=60,
            commands=lambda: [s.bench([*s.own, *peers])],
        ),
        "diagram": Part(
            "A whole diagram from the command line in the best precision: 441 cells x 1e5 "
            "steps, its figure, its agreement. Expected 20 to 35 s.",
            "The first figure and claim of bench/RESULTS.md. Under 97% of the phases: look at the "
            "cells that differ before anything is claimed.",
            seconds=60,
            rehearsal=30,
            commands=diagram,
        ),
        "families": Part(
            "`compiled` in CUDA graphs for the other families: 16 modular nets (2.1 GFLOP x 16 "
            "a step at 67 TFLOP/s in ieee: 0.5 ms of all, at most 1.5), 12 transformers (1.65 "
            "GFLOP x 12: 0.3 ms of products; launches of some 150 small kernels in a graph: 1 "
            "to 3 ms of all).",
            "Modular above 5 ms of all: one-hot products instead of gathers on CUDA. "
            "Transformers above 10 ms: shared prefixes are not worth their small kernels there; "
            "use the plain forward.",
            seconds=120,
            rehearsal=170,
            commands=lambda: [
                s.bench(
                    ["compiled", "gathers torch.compile"], "modular-addition", 16 if cuda else 1
                ),
                s.bench(
                    ["compiled", "nn.TransformerEncoder", "jax vmap + scan"],
                    "power-division",
                    12 if cuda else 1,
                    every="1,1000000",
                ),
            ],
        ),
        "programs": Part(
            "Programs a multiprocessor: one, two, three.",
            "The fastest by over 3% becomes `resident` of kernels/layout.py for that precision.",
            seconds=60,
            rehearsal=1,
            commands=lambda: [
                s.bench([f"{s.engine} {p} x{n}" for n in PROGRAMS]) for p in s.precisions if triton
            ],
        ),
        "compile-tiles": Part(
            "Nothing: compiles the tiles of the next part.",
            "Nothing.",
            seconds=60,
            rehearsal=1,
            at_once=True,
            commands=lambda: [s.build(c) for choices in tiles.values() for c in choices],
        ),
        "tiles": Part(
            "The three most promising sizes of tiles beside the chosen one.",
            "Faster by over 3%: the choice in kernels/layout.py changes.",
            seconds=45,
            rehearsal=1,
            commands=lambda: [
                s.bench([f"{s.engine} {p}", *choices]) for p, choices in tiles.items()
            ],
        ),
        "subgrids": Part(
            "The 5 x 5 cells of both tasks against the authors' exact steps.",
            "At least 24 of 25 phases in each precision: bench/RESULTS.md gets its rows. "
            "Fewer: the precision is not of float32 grade and not the default.",
            seconds=75,
            rehearsal=30,
            commands=subgrids,
        ),
        "mnist": Part(
            "MNIST: 100 cells to 12,000 steps with their agreement, microseconds a step of 210.",
            "Above 4 ms a step of 210: rows in blocks of 64 are the reason (LOG); else its row.",
            seconds=90,
            rehearsal=60,
            commands=mnist,
        ),
        "tests": Part(
            "The rest of the GPU's tests.",
            "What fails is mended or refused by name.",
            seconds=240,
            rehearsal=20,
            commands=lambda: [_pytest(folder) for folder in ("kernels", "engines")],
        ),
        "sanitizer": Part(
            "Memory and races, by compute-sanitizer.",
            "Anything found is a bug before it is a speed.",
            seconds=200,
            rehearsal=1,
            commands=lambda: _sanitized(s),
        ),
        "models": Part(
            "How throughput grows with the number of models, and the second task.",
            "The figure of bench/RESULTS.md.",
            seconds=200,
            rehearsal=60,
            commands=lambda: [
                s.bench([*s.own, *PEERS], ",".join(TASKS), n)
                for n in ((1, 66, 132, 2000) if cuda else (1,))
            ],
        ),
    }


def _pytest(folder: str, only: str = "") -> Command:
    alone = ["env", "OMP_NUM_THREADS=1", "TORCHINDUCTOR_COMPILE_THREADS=1"]
    command = [*alone, sys.executable, "-m", "pytest", "-q"]
    command += [str(TESTS / folder / "test_gpu.py"), *(["-k", only] if only else [])]
    if find_spec("xdist") and not only:  # the tests' kernels are compiled side by side, too
        command += ["-n", "auto"]
    if find_spec("pytest_timeout"):
        command += ["--timeout=150", "--timeout-method=thread"]
    return command


def _sanitized(s: Setting) -> list[Command]:
    sanitizer = shutil.which("compute-sanitizer")
    if not sanitizer:
        return []
    short = ["--lr=1e-3", "--weight-decay=5", "--steps=3"]
    # Tensors that lie side by side in one cached block would hide what runs over their ends.
    checked = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--error-exitcode=1"]
    api = "--report-api-errors=no"  # torch asks the driver for what it may not have
    return [
        [*checked, f"--tool={tool}", api, *s.run(TASKS[0], "sanitized", *short, f"--precision={p}")]
        for p in s.precisions
        for tool in ("memcheck", "racecheck")
    ]
