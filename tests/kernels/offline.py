"""Compiles the kernel that a call of grokfast.kernels.train would launch, without a GPU.

A driver that only knows its target stands in for CUDA's, and warmup() for the launch; so the
launch path is followed to the compiled kernel: arguments, specialization, ptxas. Run as a program
(a process of its own: the driver is global) it prints one JSON line:

    python offline.py WORKLOAD PRECISION ARCH [EDGE DEPTH ROWS WARPS STAGES [RESIDENT ANEW]]
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
from grokfast.kernels import launch, layout
from small_jobs import make_job
from triton.backends.compiler import GPUTarget

from grokfast import kernels

TOY = {"train": 45, "val": 10, "embedding": (10, 1), "cells": 1, "data_sets": 1}
WORKLOADS = {
    "addition-classification": {**TOY, "sizes": (1, 200, 200, 19)},
    "addition-regression": {**TOY, "sizes": (1, 200, 200, 30), "loss": "mse",
                            "predict": "nearest", "classes": 19},
    "modular-arithmetic": {"sizes": (500, 97), "embedding": (194, 500), "activation": "square",
                           "bias": False, "activate_embedding": True, "loss": "mse",
                           "train": 4704, "val": 4705, "train_accuracy": "after", "cells": 1,
                           "data_sets": 1},
    "mnist": {"sizes": (784, 200, 200, 10), "embedding": None, "activation": "relu",
              "loss": "mse", "train": 1000, "val": 1000, "batch_size": 200, "cells": 1,
              "data_sets": 1, "eval_steps": (5,), "curve_steps": (5,), "until": 5},
}  # fmt: skip


class OfflineDriver:
    def __init__(self, arch):
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Warmup:
    """Takes the place of the kernel: compiles instead of launching, keeps what was compiled."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.compiled = None

    def __getitem__(self, grid):
        def compile_only(*args, **options):
            self.compiled = self.kernel.warmup(*args, grid=grid, **options)

        return compile_only


def compile_train(workload, precision, arch, tiles=None):
    triton.runtime.driver.set_active(OfflineDriver(arch))
    kernel = Warmup(launch.train_steps)
    launch.train_steps = kernel
    dtype = torch.float64 if precision == "float64" else torch.float32
    job = make_job(**WORKLOADS[workload], dtype=dtype)
    precision = "ieee" if precision == "float64" else precision
    if tiles is None:  # train() asks the device, which is not there
        tiles = layout.choose_tiles(
            SimpleNamespace(dtype=str(dtype).removeprefix("torch."), precision=precision),
            arch // 10,
        )
    kernels.train(**job, precision=precision, tiles=tiles)
    return kernel.compiled


def tool(name, flags, cubin):
    """What a program of CUDA's, in Triton's wheel, prints of machine code."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train_steps.cubin"
        path.write_bytes(cubin)
        command = [tools / name, *flags, path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def disassemble(cubin):
    """(operation, "file:line") of every instruction; first and last instruction of every loop."""
    instructions, labels, jumps, line = [], {}, [], ""
    for row in tool("nvdisasm", ["-gi", "-c"], cubin).splitlines():
        if found := re.search(r'//## File "([^"]+)", line (\d+)', row):
            line = f"{Path(found[1]).name}:{found[2]}"
        elif found := re.match(r"\s*(\.L_\S+):", row):
            labels[found[1]] = len(instructions)
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(\S+)(.*);", row):
            if jump := re.search(r"`\((\.L_[^)]+)\)", found[2] if found[1] == "BRA" else ""):
                jumps.append((jump[1], len(instructions)))
            instructions.append((found[1], line))
    loops = {}
    for label, end in jumps:
        if (begin := labels.get(label, end)) < end:
            loops[begin] = max(end, loops.get(begin, end))
    return instructions, sorted(loops.items())


def innermost(loops):
    """The loops that contain no other: where a tile's work is done."""
    return [
        (a, b)
        for a, b in loops
        if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)
    ]


def report(compiled):
    """What ptxas made of it. Local loads and stores are spills, counted per thread."""
    cubin = compiled.asm["cubin"]
    usage = tool("cuobjdump", ["-res-usage"], cubin)
    instructions, loops = disassemble(cubin)
    operations = [operation for operation, _ in instructions]
    inner = [operation for a, b in innermost(loops) for operation in operations[a : b + 1]]

    def count(pattern, among=operations):
        return sum(bool(re.match(pattern, operation)) for operation in among)

    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": compiled.metadata.shared,
        "spills": count(r"(LDL|STL)\b"),
        "inner_instructions": len(inner),
        "inner_spills": count(r"(LDL|STL)\b", inner),
        "HGMMA": count("HGMMA"),
        "HMMA": count("[HD]MMA"),
        "FFMA": count("[FD]FMA"),
        "LDG.128": count(r"LDG[A-Z]*\S*\.128"),
        "LDG": count("LDG"),
        "inner_LDG": count("LDG", inner),
    }


def main(workload, precision, arch, *tiles):
    began = sum(os.times()[:4])
    tiles = kernels.Tiles(*map(int, tiles)) if tiles else None
    compiled = compile_train(workload, precision, int(arch), tiles)
    seconds = round(sum(os.times()[:4]) - began, 1)  # of processors, ptxas included
    versions = {"triton": triton.__version__, "torch": torch.__version__}
    print(json.dumps({**report(compiled), "seconds": seconds, **versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
