"""Whether an engine trains right here, in a minute: ``python bench/gpu_check.py --device=cuda``.

For every task and precision one line of JSON: how far the losses of a few cells are from those of
the reference in float64, whether T_train and T_val are its, and whether three cells have the same
bits together, alone, and in a call cut in two. Exit status 1 where something is wrong.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from run import TASKS, names

from grokfast.bench import Contender, Unavailable, Work, engine
from grokfast.bench.measure import CHECK_STEPS, Truth, Wrong, checked
from grokfast.bench.trials import EngineTrial
from grokfast.bucket import Bucket
from grokfast.cli import script
from grokfast.engines import resolve_device

#: Cells that are trained together and alone.
CELLS = 3


def main(
    device: str = "cuda", engine: str = "triton", tasks: str = TASKS, precisions: str = "ieee"
) -> int:
    """Checks.

    Args:
        device: cuda or cpu.
        engine: triton, or another for a rehearsal.
        tasks: presets.
        precisions: of the products.
    """
    where, right = resolve_device(device), True
    for task in names(tasks):
        for precision in names(precisions):
            begun = time.monotonic()
            try:
                answer = check(engine, where, Work(task), precision)
            except (Unavailable, Wrong) as reason:
                answer = {"wrong": str(reason)}
            right = right and "wrong" not in answer
            took = round(time.monotonic() - begun, 1)
            print(json.dumps({"task": task, "precision": precision, **answer, "s": took}))
            sys.stdout.flush()
    return 0 if right else 1


def check(name: str, device: torch.device, work: Work, precision: str) -> dict[str, object]:
    """What is found of one task in one precision.

    Raises:
        Wrong: other numbers than the reference's, or other bits in other company.
        Unavailable: the engine cannot do it here.
    """
    bucket = work.bucket(CELLS)
    contender = engine(name, precision)
    together = advanced(contender, bucket, device, CHECK_STEPS)
    error = Truth.of(work, CELLS).error_of(together, bucket)
    apart = [
        advanced(one(name, precision, cell), bucket, device, CHECK_STEPS // 3, CHECK_STEPS)
        for cell in range(CELLS)
    ]
    for cell, alone in enumerate(apart):
        for (what, a), (_, b) in zip(together.state.tensors(), alone.state.tensors(), strict=True):
            if a[cell].cpu().numpy().tobytes() != b[cell].cpu().numpy().tobytes():
                raise Wrong(f"{what} of cell {cell} has other bits alone and in two calls")
    return {"loss_error": error, "compared": len(checked(bucket)), "same_bits": CELLS}


def one(name: str, precision: str, cell: int) -> Contender:
    return lambda bucket, device: EngineTrial(name, bucket, device, [cell], precision)


def advanced(
    contender: Contender, bucket: Bucket, device: torch.device, *untils: int
) -> EngineTrial:
    trial = contender(bucket, device)
    assert isinstance(trial, EngineTrial)
    for until in untils:
        trial.advance(until - trial.step)
    return trial


if __name__ == "__main__":
    sys.exit(script(main))
