"""Processes, as names of files and locks tell them: on which machine, and whether they live."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from functools import cache
from pathlib import Path


@cache
def here() -> str:
    """This machine, and where it numbers processes apart (a container) that, too: in letters that a
    file name may have."""
    name = re.sub(r"[^\w-]+", "-", socket.gethostname(), flags=re.ASCII) or "unnamed"
    with contextlib.suppress(OSError):
        space = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
        return f"{name}~{space}" if space else name
    return name


def started(pid: int) -> int:
    """When a process of this machine began, in ticks since boot; 0 where that is not told.

    A number that is used again is another process, begun at another time (proc(5), field 22).
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(told.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def alive(pid: int, begun: int = 0) -> bool:
    """Whether process ``pid`` of this machine runs, and is the one that began at ``begun``."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        pass
    return not begun or started(pid) in (0, begun)
