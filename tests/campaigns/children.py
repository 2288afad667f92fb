"""Commands in child processes that have torch already: forked, so that a thousand take minutes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from grokfast.bench.machine import describe

#: Seconds after which a child hangs; none here takes a tenth of them on a machine that is busy.
HANGS = 300.0


def begin(work: Callable[[], int], told: Path) -> int:
    """Forks a child that does ``work``, its output going to a file; its process number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has everybody ignore
        file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # whatever it was, a child does not go on as its parent
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Waits for a child: its exit code, or minus the signal that it died of; it hangs as -1000."""
    until = time.monotonic() + HANGS
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1000


def killed(pid: int, after: float) -> bool:
    """SIGKILL so many seconds from now; whether the child was still there."""
    until = time.monotonic() + after
    while (left := until - time.monotonic()) > 0:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return False
        time.sleep(min(left, 0.001))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@contextlib.contextmanager
def beside(work: Callable[[Any], None]) -> Iterator[str]:
    """A child that serves meanwhile: gets a pipe to write one line of text to, which is given."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        with os.fdopen(write, "w") as pipe:
            work(pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        line = pipe.readline().strip()
    try:
        yield line
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def listed(value: object) -> list[str]:
    """Names from an option: fire makes a tuple of some lists, and text of others."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(part).strip() for part in parts]


def report(campaign: str, seed: int, found: dict[str, Any], out: str | None) -> None:
    """Prints one JSON line, and adds it to a file."""
    row = {"campaign": campaign, "seed": seed, **found, **describe(torch.device("cpu"))}
    line = json.dumps(row)
    print(line)
    if out is not None:
        with Path(out).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
