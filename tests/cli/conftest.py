"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Runs ``main`` and reports on a pipe whether torch was imported: without it nothing was trained.
_PROBE = """
import os, sys
from grokfast.cli import main
pipe = int(sys.argv.pop())
code = main()
os.write(pipe, b"torch" if "torch" in sys.modules else b"-")
sys.exit(code)
"""


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str
    imported_torch: bool
    written: list[str]  # files in the working directory afterwards

    @property
    def error(self) -> str:
        """The message of the one error line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("grokfast: error: "), self.err
        assert self.out == ""
        return lines[0].removeprefix("grokfast: error: ")


def _run(folder: Path, *arguments: str, **environment: str) -> Outcome:
    read, write = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments, str(write)],
        cwd=folder,
        env=os.environ | environment,
        pass_fds=[write],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    written = sorted(p.name for p in folder.iterdir())
    return Outcome(done.returncode, done.stdout, done.stderr, told == b"torch", written)


@pytest.fixture
def grokfast(tmp_path):
    """``grokfast("run", ...)`` in an empty folder."""
    return lambda *arguments, **environment: _run(tmp_path, *arguments, **environment)
