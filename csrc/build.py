"""Compiles csrc/ as sources.json says, without installing the package.

    python csrc/build.py FOLDER [FLAG ...]            the extension module, FOLDER/_native*.so
    python csrc/build.py --driver FOLDER [FLAG ...]   the program of driver.cpp, FOLDER/driver

sources.json is the one list of files and flags; setup.py and the tests read it through `plan`.
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


def plan(machine: str | None = None, target: str = "module") -> dict[Path, list[str]]:
    """Flags of each source file of ``module`` or ``driver`` on this kind of machine."""
    machine = machine or platform.machine()
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    sources = json.loads((HERE / "sources.json").read_text())
    return {
        HERE / name: [*sources["flags"], *file.get("flags", [])]
        for name, file in sources["files"].items()
        if machine in file.get("machines", [machine]) and target in file.get("targets", [target])
    }


def compile_all(folder: Path, files: dict[Path, list[str]], extra: list[str]) -> list[Path]:
    """Objects of `files`, in `folder`; `extra` flags come last."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")

    def compile_one(item: tuple[Path, list[str]]) -> Path:
        source, flags = item
        out = folder / f"{source.stem}.o"
        subprocess.run([compiler, *flags, *WARNINGS, *extra, "-c", source, "-o", out], check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, files.items()))


def build_module(folder: Path, extra: list[str]) -> Path:
    import pybind11

    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    objects = compile_all(folder, plan(), ["-fPIC", *include, *extra])
    module = folder / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    return link(["-shared", *extra], objects, module)


def build_driver(folder: Path, extra: list[str], machine: str | None = None) -> Path:
    objects = compile_all(folder, plan(machine, "driver"), extra)
    return link(extra, objects, folder / "driver")


def link(flags: list[str], objects: list[Path], out: Path) -> Path:
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, *flags, "-pthread", *objects, "-o", out], check=True)
    return out


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and arguments[0] == "--driver":
        print(build_driver(Path(arguments[1]), arguments[2:]))
    elif arguments:
        print(build_module(Path(arguments[0]), arguments[1:]))
    else:
        sys.exit(__doc__)
