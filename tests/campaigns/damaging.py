"""What is damaged, and how: small good files of every kind, and copies of them."""

from __future__ import annotations

import copy
import gzip
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FROZEN = Path(__file__).resolve().parents[1] / "frozen"

#: Kinds of files; those of results and checkpoints by their schema version.
KINDS = ("results-v3", "results-v2", "checkpoint-v3", "checkpoint-v2", "idx", "table")


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done to a file, and the file."""
    size, new = len(data), bytearray(data)

    def block(most: int = 64) -> slice:
        start = rng.randrange(size)
        return slice(start, min(size, start + rng.randint(1, most)))

    match what := rng.choice(
        ("flipped", "bits", "zeroed", "swapped", "cut", "doubled", "extended", "noise")
    ):
        case "flipped" | "bits":
            for _ in range(1 if what == "flipped" else rng.randint(2, 40)):
                new[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case "zeroed":
            at = block(rng.choice((8, 64, 1024)))
            new[at] = bytes(at.stop - at.start)
        case "swapped":
            length = rng.choice((1, 4, 8, 64))
            a, b = (rng.randrange(max(1, size - length)) for _ in range(2))
            new[a : a + length], new[b : b + length] = data[b : b + length], data[a : a + length]
        case "cut":
            del new[rng.randrange(size) :]
        case "doubled":
            at = block(512)
            new[at.stop : at.stop] = data[at]
        case "extended":
            new += rng.randbytes(rng.choice((1, 64, 4096)))
        case "noise":
            at = block(rng.choice((4, 32)))
            new[at] = rng.randbytes(at.stop - at.start)
    return what, bytes(new)


#: What may stand in a table in the place of what should.
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 10**400, float("nan"), float("inf"), 0.5, "", "nan", "lr", [], {},
    [[]], [None], {"": 0}, {"fields": 0}, "x" * 5000,
)  # fmt: skip


def odd_table(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Well-formed JSON, of whose values one or two are others, are gone or come twice."""
    table = json.loads(data)
    for _ in range(rng.randint(1, 2)):
        places = list(_places(table))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.choice(("odd", "odd", "odd", "other", "gone")):
            case "odd":
                holder[key] = copy.deepcopy(rng.choice(_ODD))
            case "other":
                other, place = rng.choice(places)
                holder[key] = copy.deepcopy(other[place])
            case "gone":
                del holder[key]
    return "odd", json.dumps(table).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of lists and objects, at any depth."""
    entries = list(value) if isinstance(value, dict) else range(len(value))
    for key in entries if isinstance(value, dict | list) else ():
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


#: Tables of the four forms, with cells that the frozen run has.
_TOY = {"task": "addition-classification"}
_TABLES: dict[str, Any] = {
    "diagram": {
        "diagrams": [
            _TOY
            | {"rows": "weight_decay", "columns": "learning_rate", "weight_decay": [0.0, 2.0]}
            | {"learning_rate": [0.01, 0.03], "phases": ["FC", "MG"]}
        ]
    },
    "cells": {
        "cells": [
            _TOY | {"lr": 0.01, "wd": 0.0, "t_train": 10, "t_val": None, "phase": "memorization"},
            _TOY | {"lr": 0.03, "wd": 0.0, "t_train": 382, "t_val": 236, "phase": "comprehension"},
        ]
    },
    "measured": {
        "measured": [
            {
                "title": "curves",
                "fields": {"task.name": "addition", "optimizer.lr": 0.03},
                "tolerance": {"loss": 0.01, "acc": 0.02},
                "rows": [
                    {"step": 100, "train_loss": 1.0, "val_acc": 0.5, "transition": True},
                    {"final_val_acc": 0.9, "fields": {"optimizer.weight_decay": 2.0}},
                ],
            }
        ]
    },
    "steps": _TOY
    | {
        "learning_rate": [0.01, 0.03],
        "weight_decay": [0.0, 2.0],
        "t_train_t_val": [[[0, 150000], [382, 236]], [[100, 200], [0, 0]]],
    },
}


def originals(folder: Path) -> None:
    """Small good files, in a folder for each kind."""
    for kind in KINDS:
        (folder / kind).mkdir()
    for version in ("v2", "v3"):
        with zipfile.ZipFile(FROZEN / f"{version}.zip") as files:
            for name in ("toy.h5", "digits.h5"):
                (folder / f"results-{version}" / name).write_bytes(files.read(name))
            for name in ("native.h5.ckpt", "digits.h5.ckpt"):
                (folder / f"checkpoint-{version}" / name).write_bytes(files.read(name))
    rng = np.random.default_rng(0)
    for code, array in (
        (0x08, rng.integers(0, 256, (20, 8, 8), np.uint8)),
        (0x0D, rng.normal(size=60).astype(">f4")),
    ):
        head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / "idx" / f"{code}").write_bytes(head + array.tobytes())
        (folder / "idx" / f"{code}.gz").write_bytes(gzip.compress(head + array.tobytes(), mtime=0))
    for name, table in _TABLES.items():
        (folder / "table" / f"{name}.json").write_text(json.dumps(table, indent=1))
