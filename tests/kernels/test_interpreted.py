"""Runs the tests of this folder in Triton's interpreter, on the CPU, in processes of their own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# The longest first: as many run at once as there are cores.
FILES = ("test_train_steps.py", "test_races.py", "test_queue.py", "test_invariance.py",
         "test_pieces.py")  # fmt: skip

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="is the interpreter"
)


def run(file, folder):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, str(Path(__file__).with_name(file))],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """File -> its run, under way."""
    items = [i for i in request.session.items if i.path == request.path]
    wanted = {item.callspec.params["file"] for item in items}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = tmp_path_factory.mktemp("interpreted")
        yield {file: pool.submit(run, file, folder) for file in FILES if file in wanted}


@pytest.mark.parametrize("file", FILES)
def test_interpreted(file, runs):
    found = runs[file].result()
    assert found.returncode == 0, found.stdout + found.stderr
    assert " skipped" not in found.stdout, found.stdout
