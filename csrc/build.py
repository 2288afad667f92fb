"""Compiles csrc/ as sources.json says: `python csrc/build.py FOLDER` makes FOLDER/_native*.so.

For work on the kernels without installing the package; setup.py reads the same list.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
WARNINGS = ["-Wall", "-Wextra"]


def plan(machine: str | None = None) -> dict[Path, list[str]]:
    """Flags of each source file that this kind of machine (x86_64, aarch64 ...) compiles."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(
        machine or platform.machine(), machine or platform.machine()
    )
    sources = json.loads((HERE / "sources.json").read_text())
    return {
        HERE / name: [*sources["common"], *flags.get(machine, flags.get("any", []))]
        for name, flags in sources["files"].items()
        if machine in flags or "any" in flags
    }


def build(folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """The extension module, compiled into `folder`."""
    import pybind11

    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]

    def compile_one(item: tuple[Path, list[str]]) -> Path:
        source, flags = item
        out = folder / f"{source.stem}.o"
        command = [compiler, *flags, *WARNINGS, *extra, "-fPIC", *include, "-c", source, "-o", out]
        subprocess.run(command, check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, plan().items()))
    module = folder / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([compiler, "-shared", "-pthread", *extra, *objects, "-o", module], check=True)
    return module


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), tuple(sys.argv[2:])))
