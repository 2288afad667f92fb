"""Where and with what a run is made, and the digests of its data."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from typing import Any

import h5py
import numpy as np
import torch

from grokfast.bucket import Bucket
from grokfast.engines import Engine
from grokfast.grid import Grid
from grokfast.hardware import processor
from grokfast.installation import version
from grokfast.machines import machines, together
from grokfast.results import listed_digests


def provenance(engine: Engine, grid: Grid, buckets: list[Bucket]) -> dict[str, Any]:
    """Where and with what a run is made; no paths, no user, no environment."""
    cells = [b.cell for b in buckets]
    found = {
        "package_version": version(),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "engine": engine.name,
        "engine_detail": engine.detail,
        "device": str(engine.device),
        "device_name": device_name(engine.device),
        "dtype": ", ".join(dict.fromkeys(c.dtype for c in cells)),
        "precision": ", ".join(dict.fromkeys(c.precision for c in cells)),
        "data_sha256": listed_digests(data_digests(grid, buckets)),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
        "numpy": np.__version__,
        "h5py": h5py.version.version,
        "hdf5": h5py.version.hdf5_version,
        "platform": f"{sys.platform} {platform.machine()}",
        "wall_seconds": 0.0,
        "resumed": 0,
    }
    own = machines(found)
    own[0]["hosts"] = [platform.node()]
    return found | {"machines": own}


def merged_provenance(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Of a run taken up again: created then, with the time of all its parts, and everything that
    had a hand in it (``torch``: ``2.12.0, 2.13.0``)."""
    merged = dict(new)
    for name in _TOOLS:
        was = [part for part in str(old.get(name, "")).split(", ") if part]
        merged[name] = ", ".join(dict.fromkeys((*was, str(new[name]))))
    return merged | {
        "machines": together([machines(old), machines(new)]),
        "created_utc": old.get("created_utc", new["created_utc"]),
        "wall_seconds": float(old.get("wall_seconds", 0.0)),
        "resumed": int(old.get("resumed", 0)) + 1,
    }


_TOOLS = ("package_version", "device_name", "python", "torch", "cuda", "numpy", "h5py", "hdf5")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()


def data_digests(grid: Grid, buckets: list[Bucket]) -> dict[str, str]:
    """Identity of each data set -> SHA-256 of it as it enters training."""
    found: dict[str, str] = {}
    for bucket in buckets:
        for m, index in enumerate(bucket.cells):
            identity = grid.cells[index].data_identity()
            if identity not in found:
                found[identity] = _digest(bucket, int(bucket.data_index[m]))
    return found


def _digest(bucket: Bucket, d: int) -> str:
    digest = hashlib.sha256()
    for tensor in (bucket.x_train, bucket.y_train, bucket.x_val, bucket.y_val, bucket.targets):
        if tensor is not None:
            digest.update(tensor[d].contiguous().numpy().tobytes())
    return digest.hexdigest()
