"""The machine: what it is, and the rates that bound every contender on it, measured."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from grokfast.bench.measure import synchronize
from grokfast.bucket import Bucket
from grokfast.hardware import cores, processor


def describe(device: torch.device) -> dict[str, Any]:
    """Machine, versions and commit: what belongs to every raw row."""
    found: dict[str, Any] = {
        "cpu": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for package in ("torch", "triton", "jax", "grokfast"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return found


def ceilings(device: torch.device) -> dict[str, float]:
    """Measured rates: ``gflops`` of float32 multiply-adds of the whole device (a matrix product
    in IEEE float32, or the native engine's register loop on the CPU) and ``copy_gbs``.
    """
    at_once = 1 if device.type == "cuda" else cores()
    found = {"gflops": _matmul_gflops(device), "copy_gbs": _copy_gbs(device)}
    if device.type == "cpu":
        try:
            from grokfast import _native

            found["gflops"] = max(found["gflops"], at_once * _native.peak())
        except ImportError:
            pass
    else:
        found["tf32_gflops"] = _matmul_gflops(device, "tf32")
    return found


def floor_us(bucket: Bucket, ceiling: dict[str, float], precision: str = "ieee") -> float:
    """Microseconds a model-step if nothing but the products' multiply-adds took time."""
    rate = ceiling["gflops"]
    if precision != "ieee":  # tf32x3 multiplies three times
        rate = ceiling["tf32_gflops"] / (3 if precision == "tf32x3" else 1)
    return bucket.flops_per_step() / rate / 1e3


def _matmul_gflops(device: torch.device, precision: str = "ieee") -> float:
    n = 4096 if device.type == "cuda" else 1024
    a, b, c = (torch.rand(n, n, device=device) for _ in range(3))
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if device.type == "cuda":
        matmul.fp32_precision = precision
    try:
        return 2e-9 * n**3 / _fastest(lambda: torch.mm(a, b, out=c), device)
    finally:
        if device.type == "cuda":
            matmul.fp32_precision = before


def _copy_gbs(device: torch.device) -> float:
    """Bytes read plus bytes written."""
    n = 2**28 if device.type == "cuda" else 2**25
    a, b = (torch.zeros(n, device=device) for _ in range(2))
    return 2e-9 * 4 * n / _fastest(lambda: b.copy_(a), device)


def _fastest(f: Callable[[], object], device: torch.device) -> float:
    """Seconds, best of some: a ceiling is what the machine can do."""
    best = float("inf")
    for _ in range(12):
        synchronize(device)
        start = time.perf_counter()
        f()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def _commit() -> str | None:
    """Of the checkout that the running program lies in, wherever it is run; with a mark where it
    has changes."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    git = ("git", "-C", str(Path(program).resolve().parent if program else Path.cwd()))
    head = _output(*git, "rev-parse", "--short", "HEAD")
    changed = _output(
        *git, "status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)bench/results"
    )
    return head and head + ("+changes" if changed else "")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
