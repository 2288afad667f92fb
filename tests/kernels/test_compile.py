"""What ptxas makes of the full-size kernels, with no GPU: spills, shared memory, tensor cores.

Each compilation runs in a process of its own (offline.py), so its driver and Triton's settings
stay away from other tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a block may hold: the CUDA programming guide's table of compute capabilities.
SHARED = {80: 163 * 1024, 90: 227 * 1024}
# Bytes of stack a thread, and the share of spills among the instructions of innermost loops, at
# most: what was seen with Triton 3.6 and 3.7, and some on top. Nearly all are addresses kept
# through a step and reloaded outside the tile loops. Several times as much means that the step loop
# has lost its annotation: see train_steps.condition.
STACK = {"ieee": 24, "tf32x3": 600, "tf32": 16}
INNER = 0.01

CASES = (
    ("addition-classification", "ieee", 90),
    ("addition-classification", "tf32x3", 90),
    ("addition-classification", "tf32", 90),
    ("addition-regression", "tf32x3", 80),
    ("modular-arithmetic", "tf32x3", 90),
    ("modular-arithmetic", "tf32x3", 80),
)


@pytest.mark.parametrize(("workload", "precision", "arch"), CASES)
def test_spills_and_shared_memory(workload, precision, arch, tmp_path):
    script = Path(__file__).with_name("offline.py")
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, script, workload, precision, str(arch)],
        env=env, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["inner_spills"] <= INNER * report["inner_instructions"], report
    assert report["stack"] <= STACK[precision], report
    assert report["shared"] <= SHARED[arch], report
    assert report["seconds"] < 60, report
    tensor_cores = report["HGMMA"] + report["HMMA"]
    assert (tensor_cores == 0) == (precision == "ieee"), report
