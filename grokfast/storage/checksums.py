"""Checksums of what a results file holds: of the values, not of how they are stored.

They hold as well after another program has written the file anew, with other chunks, string types
or attributes as arrays of one. Whole numbers count as int64; every NaN is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements that are brought into their canonical form at a time.
_BLOCK = 1 << 18


def of_values(name: str, dims: tuple[str, ...], values: NDArray[Any]) -> str:
    """Of a named array with its dimensions, hexadecimal.

    Raises:
        ValueError: neither numbers nor text.
    """
    kind = _kind(values)
    head = json.dumps([name, dims, kind, values.shape])
    digest = hashlib.sha256(head.encode())
    flat = values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        digest.update(_canonical(flat[start : start + _BLOCK], kind))
    return digest.hexdigest()


def of_plain(data: Any) -> str:
    """Of JSON values, hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def of_group(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Name -> checksum of arrays without named dimensions."""
    return {name: of_values(name, (), values) for name, values in sorted(arrays.items())}


def _kind(values: NDArray[Any]) -> str:
    match values.dtype.kind:
        case "i" | "u" | "b":
            return "integer"
        case "f":
            return f"float{8 * values.dtype.itemsize}"
        case "O" | "U":
            return "text"
        case other:
            raise ValueError(f"an array of kind {other!r} has no checksum")


def _canonical(values: NDArray[Any], kind: str) -> bytes | memoryview:
    if kind == "text":
        return json.dumps([str(v) for v in values]).encode()
    if kind == "integer":
        return np.ascontiguousarray(values, "<i8").data
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    if (unknown := np.isnan(values)).any():
        values = values.copy()
        values[unknown] = np.nan
    return values.data
