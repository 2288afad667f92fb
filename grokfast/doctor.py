"""What this installation has and lacks: versions, engines, GPU, compilers, threads, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from grokfast.errors import GrokfastError
from grokfast.hardware import cores, memory_bytes, processor
from grokfast.installation import absent

_REQUIRED = ("torch", "numpy", "h5py", "matplotlib", "fire", "tqdm")
#: Package -> the extra that brings it.
_OPTIONAL = {
    "triton": "triton",
    "xarray": "xarray",
    "h5netcdf": "xarray",
    "pandas": "parquet",
    "pyarrow": "parquet",
    "scikit-learn": "data",
}


def examine() -> dict[str, dict[str, Any]]:
    """Section -> finding -> value; what is missing says so and how to get it."""
    found = {"versions": _versions(), "machine": _machine(), "compilers": _compilers()}
    try:
        found |= {"gpu": _gpus(), "engines": _engines(), "support": _support()}
    except (ImportError, OSError) as error:  # OSError: torch's libraries do not load
        found |= {"gpu": {}, "engines": {"all": f"no: torch cannot be imported ({error})"}}
    return found | {"data": _data()}


def usable(findings: dict[str, dict[str, Any]]) -> bool:
    """Whether anything can be trained: the required packages and one engine are there."""
    packages = all("missing" not in findings["versions"][name] for name in _REQUIRED)
    return packages and any(v.startswith("yes") for v in findings["engines"].values())


def _versions() -> dict[str, str]:
    found = {"grokfast": _version("grokfast"), "python": platform.python_version()}
    found |= {name: _version(name) for name in _REQUIRED}
    try:
        import h5py

        found["HDF5"] = h5py.version.hdf5_version
    except ImportError as error:
        found["HDF5"] = f"missing ({error})"
    for name, extra in _OPTIONAL.items():
        how = "pip install triton" if name == extra else f"pip install 'grokfast[{extra}]'"
        version = _version(name)
        found[name] = version if version != "missing" else f"missing, optional: {how}"
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _machine() -> dict[str, Any]:
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores for this process": cores(),
    }
    memory = memory_bytes()
    if memory:
        found["memory"] = f"{memory / 2**30:.1f} GiB"
    try:
        # The module is compiled: it is not there where no compiler was.
        levels = importlib.import_module("grokfast._native").levels()
    except ImportError as error:
        found["instruction set"] = f"unknown: {absent('native', error, '').message}"
    except ValueError as error:  # of GROKFAST_NATIVE_LEVEL
        found["instruction set"] = f"unknown: {error}"
    else:
        found["instruction set"] = ", ".join(f"{k} {_plain(v)}" for k, v in levels.items())
    return found


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _gpus() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        return {"cuda": f"none: torch, {build}, sees no GPU"}
    found = {}
    for n in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(n)
        found[f"cuda:{n}"] = (
            f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute capability {p.major}.{p.minor}"
        )
    return found


def _compilers() -> dict[str, str]:
    found = {}
    for role, names in {"C++": ("c++", "g++", "clang++"), "C": ("cc", "gcc", "clang")}.items():
        path = next(filter(None, map(shutil.which, names)), None)
        found[role] = _first_line(path) if path else f"missing (tried {', '.join(names)})"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found["Python headers"] = "found" if header.exists() else f"missing ({header})"
    return found


def _first_line(compiler: str) -> str:
    try:
        told = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20)
        return (told.stdout.splitlines() or [compiler])[0]
    except (OSError, subprocess.SubprocessError) as error:
        return f"{compiler} does not run: {error}"


def _engines() -> dict[str, str]:
    from grokfast.engines import ENGINE_NAMES, make_engine

    found = {}
    for name in ENGINE_NAMES:
        if name == "auto":
            continue
        try:
            engine = make_engine(name)
        except GrokfastError as error:
            found[name] = f"no: {error}"
        else:
            found[name] = f"yes, on {engine.device} ({engine.detail})"
    return found


def _support() -> dict[str, str]:
    """Fields with values, and the engines that know these."""
    from grokfast.engines.support import SUPPORT, table

    return {
        f"{path} {values}": "all" if len(engines) == len(SUPPORT) else ", ".join(engines)
        for path, values, engines in table()
    }


def _data() -> dict[str, str]:
    from grokfast.data import find_mnist

    named = os.environ.get("GROKFAST_DATA") or None
    try:
        folder = find_mnist(named)
    except GrokfastError as error:
        return {"mnist": f"unusable: {error}"}
    return {"mnist": str(folder) if folder else "missing: grokfast data fetch downloads it"}
