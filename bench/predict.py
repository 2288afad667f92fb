"""What one step of one model costs a multiprocessor at least, counted from its instructions.

    python bench/predict.py WORKLOAD PRECISION ARCH [EDGE DEPTH ROWS WARPS STAGES [RESIDENT ANEW]]
        [--trips=1,1,1,3,..] [--models=441]

Compiles the kernel without a GPU and lists its loops with their innermost functions. Given how
often each of them turns in one step (in the order of the list; the first three are the queue, the
wait and the step), it adds up the cycles of every unit of a multiprocessor. The step can be no
faster than the busiest of them, and what they wait for memory and each other comes on top.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from grokfast.cli import script
from grokfast.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "kernels"))

CLOCK, SMS = 1.755e9, 132  # H200 under load; both are to be read off the machine
#: Cycles that a unit of one of the four schedulers is busy with an instruction of a warp (CUDA
#: programming guide, throughput of compute capability 9.0: lanes a cycle and multiprocessor / 4).
FP32, HALF_RATE, SPECIAL = 1, 2, 8
NOT_COUNTED = (
    *("R2UR", "BAR", "BRA", "NOP", "BSSY", "BSYNC", "CALL", "RET", "EXIT", "DEPBAR", "LDGDEPBAR"),
    *("WARPSYNC", "WARPGROUP", "FENCE", "S2R", "CS2R", "MOV", "CCTL", "MEMBAR", "ERRBAR"),
)
MEMORY = (
    *("LDG", "STG", "LDGSTS", "LDS", "STS", "LDSM", "STSM", "LDL", "STL", "LDC", "SHFL", "ATOMG"),
)


def unit(operation: str) -> tuple[str, float]:
    """Which unit an instruction of a warp keeps busy, for how many cycles.

    Those of "memory" and "tensor" are of the whole multiprocessor: 128 bytes a cycle pass L1 and
    shared memory, 1,024 multiply-adds of TF32 the tensor cores. Lanes that read the same address
    are counted as if they did not, which is too much for ieee; what tensor cores read from shared
    memory is left out.
    """
    name = operation.split(".")[0]
    if name in ("FFMA", "FMUL", "FADD"):
        return "fp32", FP32
    if name == "IMAD":
        return "fp32", HALF_RATE
    if name == "MUFU":
        return "special", SPECIAL
    if name in MEMORY:
        return "memory", 4 if ".128" in operation else 2 if ".64" in operation else 1
    if name == "HGMMA":  # of four warps, on 64 x n x 8
        n = int(re.match(r"HGMMA\.64x(\d+)x8", operation)[1])  # type: ignore[index]
        return "tensor", 64 * n * 8 / 1024 / 4
    if name == "HMMA":
        return "tensor", 16 * 8 * (8 if "1688" in operation else 4) / 512
    if name in NOT_COUNTED or name.startswith("U"):
        return "none", 0
    return "int", HALF_RATE


def functions() -> dict[str, str]:
    """ "file:line" -> the kernel's function there."""
    found = {}
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                found.update({f"{path.name}:{line}": node.name for line in lines})
    return found


def main(
    workload: str,
    precision: str,
    arch: int,
    *tiles: int,
    trips: Sequence[int] | int | None = None,
    models: int = 441,
) -> None:
    """See the top of this file."""
    from offline import compile_train, disassemble, report

    from grokfast import kernels

    compiled = compile_train(workload, precision, arch, kernels.Tiles(*tiles) if tiles else None)
    instructions, loops = disassemble(compiled.asm["cubin"])
    names = functions()
    seen = report(compiled)
    print({k: seen[k] for k in ("registers", "stack", "inner_spills", "shared")}, len(instructions))
    for number, (begin, end) in enumerate(loops):
        depth = sum(a < begin and end <= b for a, b in loops)
        of = Counter(names[at] for _, at in instructions[begin : end + 1] if at in names)
        print(f"{number:3} {'  ' * depth}{end - begin + 1} {of.most_common(4)}")
    if trips is None:
        return
    trips = [trips] if isinstance(trips, int) else trips
    if len(trips) != len(loops):
        raise UsageError(f"--trips: {len(trips)} numbers for {len(loops)} loops")
    turns = [1] * len(instructions)
    for (begin, end), number in zip(loops, trips, strict=True):
        turns[begin : end + 1] = [n * number for n in turns[begin : end + 1]]
    warps = compiled.metadata.num_warps
    cycles: Counter[str] = Counter(issue=round(sum(turns) * warps / 4))
    where: Counter[str] = Counter()
    for (operation, at), n in zip(instructions, turns, strict=True):
        name, cost = unit(operation)
        cycles[name] += n * cost * warps / (1 if name in ("memory", "tensor") else 4)
        where[names.get(at, "elsewhere")] += n
    del cycles["none"]
    print("cycles", {k: round(v) for k, v in cycles.most_common()})
    print("issued", {k: round(v * warps / 4) for k, v in where.most_common(8)})
    for name, count in (
        ("instructions", cycles["issue"]),
        ("the busiest unit", max(cycles.values())),
    ):
        us = count / CLOCK * 1e6
        print(
            f"by {name}: at least {us:.0f} us for one model, {us * models / SMS:.0f} for {models}"
        )


if __name__ == "__main__":
    sys.exit(script(main))
