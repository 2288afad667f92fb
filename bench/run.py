"""Every peer and every engine, side by side: ``make bench``, ``make bench-gpu``.

    python bench/run.py [--device=cuda] [--models=1,8,66,441] [--only=compiled,native] ...

Checks first, measures then; ends with one JSON line; appends the raw rows to bench/results/.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from peers import PEERS
from rows import append_rows, read_rows

from grokfast.bench import (
    BASIC,
    CHECK_STEPS,
    FEWER_BITS,
    Contender,
    Work,
    engine,
    side_by_side,
)
from grokfast.cli import script
from grokfast.engines import resolve_device
from grokfast.errors import UsageError

RESULTS = Path(__file__).parent / "results"
TASKS = "addition-classification,addition-regression"
MODELS = {"cpu": "1,8,66,441", "cuda": "1,66,132,441,2000"}


def names(value: object) -> list[str]:
    """fire makes tuples of lists and numbers of digits."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(p).strip() for p in parts]


def variant(name: str) -> Contender:
    """The triton engine, launched in another way than it would choose.

    Raises:
        UsageError: no contender has that name.
    """
    found = re.fullmatch(r"triton (ieee|tf32x3|tf32)(?: x(\d+))?(?: t([\d-]+))?", name)
    if not found:
        raise UsageError(
            f"no contender {name!r}; there are {', '.join(PEERS | BASIC | FEWER_BITS)}"
        )
    launch: dict[str, object] = {}
    if found[2]:
        launch["programs"] = int(found[2])
    if found[3]:
        from grokfast.kernels import Tiles

        launch["tiles"] = Tiles(*map(int, found[3].split("-")))
    return engine("triton", found[1], **launch)


def main(
    device: str = "cpu",
    models: str | None = None,
    tasks: str = TASKS,
    only: str | None = None,
    repetitions: int = 5,
    seconds: float = 1.0,
    evaluation_points: int = 0,
    batch: int = 0,
    every: object = 0,
    check: int = CHECK_STEPS,
    out: str | None = None,
    add: str | None = None,
) -> None:
    """Measures and appends.

    Args:
        device: cpu or cuda.
        models: numbers of models.
        tasks: presets; MNIST needs its files.
        only: contenders; all where not given. "triton tf32x3 x66": with 66 programs;
            "triton ieee t32-16-64-4-1-3-1": in other tiles (the fields of kernels.Tiles).
        repetitions: of every contender, in turn.
        seconds: about, of one repetition; at least 100 steps of an engine, 20 of a peer.
        evaluation_points: 0 evaluates after every epoch, 3 next to never (MNIST).
        batch: samples a minibatch; 0 for the preset's.
        every: steps between evaluations of training and validation set, one row each; 0 for the
            schedule. The transformers' are --every=1,1000000: each step with an evaluation of all
            rows, and without.
        check: steps after which losses are compared with float64.
        out: where rows go; bench/results/DEVICE.jsonl where not given.
        add: measures nothing: appends the rows of this file or archive of bench/gpu.py.
    """
    path = Path(out) if out else RESULTS / f"{device.partition(':')[0]}.jsonl"
    if add is not None:
        known = read_rows(path) if path.exists() else []
        append_rows(path, [row for row in read_rows(Path(add)) if row not in known])
        return
    where = resolve_device(device)
    contenders = PEERS | BASIC | (FEWER_BITS if where.type == "cuda" else {})
    if only is not None:
        contenders |= FEWER_BITS
        contenders = {n: contenders.get(n) or variant(n) for n in names(only)}
    numbers = [int(n) if n.isdecimal() else 0 for n in names(models or MODELS[where.type])]
    if min(numbers) < 1 or repetitions < 1:
        raise UsageError(f"--models={models} --repetitions={repetitions}: give numbers from 1 on")
    works = [
        Work(task, evaluation_points, batch, int(interval), check)
        for task in names(tasks)
        for interval in names(every)
    ]
    for work in works:
        work.bucket(1)  # says what is wrong with it
    rows = []
    measured = side_by_side(
        contenders,
        works,
        numbers,
        where,
        repetitions=repetitions,
        seconds=seconds,
        say=lambda line: print(line, flush=True),
    )
    for row in measured:
        rows.append(row)
        append_rows(path, [row])
    keys = ("task", "every", "contender", "models", "median_us", "skipped")
    print(json.dumps({"rows": [{k: row[k] for k in keys} for row in rows]}))


if __name__ == "__main__":
    sys.exit(script(main))
