"""Where the kernels of these tests run: in Triton's interpreter, on a GPU, or not at all.

The interpreter must be chosen before triton is imported and must not touch other tests, so
test_interpreted.py runs this folder once more in a process of its own. Without a GPU the tests
skip here and run there.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(scope="session")
def device():
    """Device of kernels under test."""
    if INTERPRETED:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("no GPU: runs interpreted, by test_interpreted.py")


@pytest.fixture(scope="session")
def gpu():
    if INTERPRETED or not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device("cuda")
