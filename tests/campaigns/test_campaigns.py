"""A small part of each campaign: the whole ones are make targets."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaigns fork")
native = pytest.mark.skipif(
    importlib.util.find_spec("grokfast._native") is None, reason="the native engine was not built"
)


def campaign(name, *options):
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@native
def test_killed_at_random_moments_of_everything_that_writes():
    found = campaign("kills", "--number=10", "--only=native,link,merge,fetch")
    assert found["kills"] >= 10
    assert set(found["by_kind"]) == {"native", "link", "merge", "fetch"}
    bad = ("unreadable", "differing", "failed", "older_checkpoints", "leftovers")
    assert [found[what] for what in bad] == [0] * 5


@native
def test_signals_at_every_stage():
    found = campaign("signals")
    assert found["children"] > 20
    assert found["wrong"] == 0


@native
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
def test_faults_of_the_disk():
    found = campaign("faults", "--number=18", "--only=run,merge,csv")
    assert found["faults"] == 18
    assert all(points > 3 for points in found["points"].values())
    assert found["wrong"] == 0


def test_hostile_input():
    found = campaign("fuzz", "--number=100")
    assert found["inputs"] >= 95
    assert set(found["codes"]) <= {"0", "2", "3"}


def test_damaged_files_through_the_commands():
    """Of those through readers there are some in test_damaged_files.py."""
    found = campaign("damage", "--kinds=", "--files=0", "--commands=6")["counts"]["commands"]
    assert found["files"] == 6
    assert [found[name] for name in ("wrong", "internal", "crashes", "hangs")] == [0] * 4
