"""Where the kernels of these tests run: in Triton's interpreter, on a GPU, or not at all.

The interpreter must be chosen before triton is imported and must not touch other tests, so
test_interpreted.py runs this folder once more in a process of its own. Without a GPU the tests
skip here and run there.
"""

import os

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def tensor_cores(monkeypatch):
    """The interpreter multiplies in float32 whatever it is told; tensor cores told TF32 read the
    first 10 bits of the fraction of each factor, and add up in float32."""
    if not INTERPRETED:
        return
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot = InterpreterBuilder.create_dot

    def cut(operand):
        bits = operand.data.view(np.uint32) & np.uint32(0xFFFFE000)
        return TensorHandle(bits.view(np.float32), operand.dtype)

    def rounded_dot(self, a, b, d, precision, *rest):
        if precision == ir.INPUT_PRECISION.TF32 and a.data.dtype == np.float32:
            a, b = cut(a), cut(b)
        return dot(self, a, b, d, precision, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", rounded_dot)


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
