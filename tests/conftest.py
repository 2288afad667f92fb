"""Fixtures for all tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

# The same examples every time: a change is judged by what it changes. HYPOTHESIS_PROFILE=search
# looks for new ones.
# No deadline: a busy machine is no failure.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread: small operations are no faster on more, and with other work on the
    machine its threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trace() -> dict[str, Any]:
    """Data, initial values and the first losses of the authors' own code, by preset."""
    trace: dict[str, Any] = json.loads(Path(__file__).with_name("toy_trace.json").read_text())
    return trace


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the MNIST files beside a developer's checkout; skips where there is none."""
    named = os.environ.get("GROKFAST_SHARED")
    if named is not None:
        if Path(named).is_dir():
            return Path(named).resolve()
        pytest.skip(f"GROKFAST_SHARED={named!r} is no folder")
    for parent in Path(__file__).resolve().parents:
        # A folder may be called "shared" anywhere up the tree; ours has the specifications.
        if (parent / "shared" / "specs").is_dir():
            return parent / "shared"
    pytest.skip("no shared/ folder beside the checkout (set GROKFAST_SHARED)")
