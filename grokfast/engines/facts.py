"""What decides the bits of a run besides its experiment: facts that a results file keeps.

An engine's ``detail`` is a list of facts, each a name and a value: ``level avx2, draws 3f9a12cd``.
A run goes on only where every fact of its file still holds. What has a name (an instruction set, a
version, a number of threads) is told by name; of the rest the results are told: a digest of a few
numbers computed as training would compute them, because a library chooses its code by means that
it does not show.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from grokfast.machines import Facts, read

__all__ = ["Facts", "arithmetic", "broken", "draws", "libm", "listed", "of_torch", "read"]

#: What makes a fact hold again, for those that a user can set.
_REMEDIES: dict[str, Callable[[str], str]] = {
    "engine": "--engine={}".format,
    "device": "--device={}".format,
    "threads": "--threads={}".format,
    "level": "GROKFAST_NATIVE_LEVEL={} (where the processor has it)".format,
    "isa": lambda isa: f"ATEN_CPU_CAPABILITY={isa.lower()} (where the processor has it)",
    "torch": "torch {}".format,
    "triton": "triton {}".format,
    "code": lambda code: (
        "TORCHDYNAMO_DISABLE=1"
        if code == "eager"
        else "a torch.compile that works (grokfast doctor tells)"
    ),
}


def listed(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def broken(was: Facts, now: Facts) -> list[str]:
    """Names of facts that no longer hold. What a file does not tell (older ones tell less) is not
    held against it."""
    return [name for name, values in was.items() if now.get(name) != values]


def remedies(was: Facts, names: Iterable[str]) -> list[str]:
    """What to give or set so that these facts hold again, where anything helps."""
    return [
        _REMEDIES[name](was[name][0]) for name in names if name in _REMEDIES and len(was[name]) == 1
    ]


def of_torch(device: torch.device, threads: int) -> dict[str, object]:
    """Of engines that compute with torch's operations, on so many threads."""
    facts: dict[str, object] = {}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device).replace(",", "")
    else:
        facts |= {"threads": threads, "isa": torch.backends.cpu.get_cpu_capability()}
    # Without +cpu or +cu126: how it was built is for the digests to tell.
    facts["torch"] = str(torch.__version__).partition("+")[0]
    return facts


@functools.cache
def draws() -> str:
    """Digest of torch's random numbers, the source of initial values and random targets: without
    AVX2 their last bits are others."""
    made = []
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(0)
        x = torch.empty(64, dtype=dtype)
        made += [x.normal_(generator=generator).clone(), x.uniform_(-0.1, 0.1, generator=generator)]
    return digest(b"".join(x.numpy().tobytes() for x in made))


@functools.cache
def libm() -> str:
    """Digest of powers and logarithms of the C library, which the native engine takes from it."""
    values = [math.pow(beta, n) for beta in (0.9, 0.98, 0.999) for n in range(1, 1000)]
    values += [math.log(n / 7) for n in range(1, 1000)]
    return digest(struct.pack(f"<{len(values)}d", *values))


def arithmetic(device: torch.device, threads: int, run: Callable[..., None] | None = None) -> str:
    """Digest of :func:`probe` as ``run`` computes it, on so many threads; of itself by default."""
    generator = torch.Generator().manual_seed(0)
    x, w, out = (
        torch.rand(shape, generator=generator).to(device) for shape in ((45, 200), (200, 200), 200)
    )
    with on_threads(threads), torch.no_grad():
        (run or probe)(x, w - 0.5, out)
    return digest(out.cpu().numpy().tobytes())


def probe(x: Tensor, w: Tensor, out: Tensor) -> None:
    """The operations of a training step in small: ``x [N, I]``, ``w [I, O]``, ``out [O]``."""
    z = torch.matmul(x, w).tanh()
    out.copy_((torch.log_softmax(z, 1).exp() + z / (z.square().mean(0).sqrt() + 1e-8)).sum(0))


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Torch's process-wide number of threads, and afterwards as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
