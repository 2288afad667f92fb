"""Runs the tests of this folder in Triton's interpreter, on the CPU, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ("test_pieces.py", "test_train_steps.py", "test_invariance.py", "test_races.py",
         "test_queue.py")  # fmt: skip


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="is the interpreter")
@pytest.mark.parametrize("file", FILES)
def test_interpreted(file, tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name(file))],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " skipped" not in run.stdout, run.stdout
