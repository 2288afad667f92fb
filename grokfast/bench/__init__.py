"""Benchmarks: contenders side by side on one machine, checked before they are timed.

``grokfast bench`` for users; ``make bench`` and ``make bench-gpu`` (bench/run.py) with every peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from grokfast.bench.machine import ceilings, describe, floor_us
from grokfast.bench.measure import CHECK_STEPS, Row, Work, measure
from grokfast.bench.trials import BASIC, FEWER_BITS, Contender, Unavailable, engine
from grokfast.errors import counted

__all__ = [
    "BASIC",
    "CHECK_STEPS",
    "FEWER_BITS",
    "Contender",
    "Row",
    "Unavailable",
    "Work",
    "ceilings",
    "describe",
    "engine",
    "floor_us",
    "measure",
    "side_by_side",
    "table",
]


def side_by_side(
    contenders: dict[str, Contender],
    works: Iterable[Work],
    numbers: Iterable[int],
    device: torch.device,
    *,
    repetitions: int = 5,
    seconds: float = 1.0,
    say: Callable[[str], None] = print,
) -> Iterator[dict[str, Any]]:
    """Measures and reports; yields raw rows, each with the machine and its ceilings."""
    machine, rates = describe(device), ceilings(device)
    skipped: set[str] = set()  # what has been said of those that were not timed
    say("  ".join(f"{k} {v}" for k, v in machine.items() if v is not None))
    say("measured ceilings: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()))
    for work in works:
        one = work.bucket(1)
        floor = floor_us(one, rates)
        say(f"{work.task}: floor {floor:.3g} us a model-step (multiply-adds at the measured rate)")
        for models in numbers:
            evaluated = f", evaluated every {work.every} steps" if work.every else ""
            say(f"{work.task}, {counted(models, 'model')}{evaluated}")
            rows = measure(
                work,
                models,
                contenders,
                device,
                repetitions=repetitions,
                seconds=seconds,
                say=say,
                skipped=skipped,
            )
            for row in rows:
                row.floor_us = floor_us(one, rates, row.precision)
            say(table(rows))
            for row in rows:
                yield {
                    **asdict(row),
                    "median_us": None if row.skipped else row.median_us,
                    "disturbed": row.disturbed,
                    "device": str(device),
                    "ceilings": rates,
                    "machine": machine,
                }


def table(rows: list[Row]) -> str:
    """Text: median with its spread, percent of the bound, memory; of those that were timed, and
    with a word on each that something else on the machine has disturbed."""
    timed = [row for row in rows if not row.skipped]
    if not timed:
        return "  nothing was timed"
    lines = [["", "us/model-step", "min", "max", "of bound", "MB"]]
    lines += [
        [
            row.contender,
            _us(row.median_us),
            _us(min(row.times_us)),
            _us(max(row.times_us)),
            "" if row.floor_us is None else f"{row.floor_us / row.median_us:.1%}",
            "" if row.memory_mb is None else f"{row.memory_mb:.0f}",
        ]
        for row in timed
    ]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    told = [
        "  ".join([f"  {name:{first}}", *(f"{x:>{n}}" for x, n in zip(rest, others, strict=True))])
        for name, *rest in lines
    ]
    told += [
        f"  {row.contender} was disturbed: its repetitions differ by a factor of {row.spread:.1f}"
        for row in timed
        if row.disturbed
    ]
    return "\n".join(told)


def _us(time: float) -> str:
    """Three digits at least: a GPU's model-step is a fraction of a microsecond."""
    return f"{time:.1f}" if time >= 10 else f"{time:.3g}"
