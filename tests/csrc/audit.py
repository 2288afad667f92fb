"""What instructions and symbols an object file has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def widest_register(path: Path, objdump: str = "objdump") -> int:
    """Bits of the widest x86 vector register that the code names: 512, 256, 128 or 0."""
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    for bits, pattern in ((512, r"%zmm\d|%k[1-7]\b"), (256, r"%ymm\d"), (128, r"%xmm\d")):
        if re.search(pattern, text):
            return bits
    return 0


def vex_encoded(path: Path) -> bool:
    """Whether any instruction needs AVX: a name with v in front that works on vector registers."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    return re.search(r"\tv[a-z0-9]+ .*%[xyz]mm", text) is not None


def shared_symbols(path: Path) -> set[str]:
    """Weak and unique definitions: those that the linker merges with other objects' copies."""
    text = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout
    return {
        line.split(maxsplit=2)[2]
        for line in text.splitlines()
        if re.match(r"[0-9a-f]+ [WVuw] ", line)
    }
