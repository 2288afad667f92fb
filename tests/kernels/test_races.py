"""Threads of a program that touch the same memory are ordered by a barrier; no barrier is idle.

What a racecheck on a GPU looks for in global memory, found on the CPU: in the interpreter every
load, store and barrier of a kernel passes by here. A tile's elements may belong to any thread, so
between two barriers no address may be stored that another operation loads or stores. One pair is
exempt: a tile loaded, changed and stored at the same addresses. There the value itself carries
the order.
"""

import os
import sys
from pathlib import Path

import pytest
from plain_training import clone
from small_jobs import make_job
from test_train_steps import CASES, SMALL

from grokfast import kernels

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs the interpreter"
)

TRAINED = ("cross-entropy", "mse, nearest", "modular", "evaluation on a schedule",
           "all counted on a schedule", "minibatch, dense", "minibatch, embedding")  # fmt: skip
FOLDER = Path(kernels.__file__).parent


class Accesses:
    """What a kernel did to memory since its last barrier.

    Attributes:
        races: (line of the earlier, line of the later access) of every unordered pair seen.
        barriers: lines of all barriers passed.
        ignored: line of a barrier that is to have no effect.
    """

    def __init__(self):
        self.races, self.barriers, self.ignored = set(), set(), None
        self.clear()

    def clear(self):
        self.loaded = {}  # address -> {addresses of the whole tile: line}
        self.stored = {}  # address -> line

    def load(self, tile, addresses):
        here = line()
        for address in addresses:
            if address in self.stored:
                self.races.add((self.stored[address], here))
            self.loaded.setdefault(address, {})[tile] = here

    def store(self, tile, addresses):
        here = line()
        for address in addresses:
            if address in self.stored:
                self.races.add((self.stored[address], here))
            others = self.loaded.get(address, {}).items()
            self.races.update((there, here) for other, there in others if other != tile)
            self.stored[address] = here

    def barrier(self):
        here = line()
        self.barriers.add(here)
        if here != self.ignored:
            self.clear()


def line():
    """File and line of the kernel's innermost function that is running."""
    frame = sys._getframe(1)
    while Path(frame.f_code.co_filename).parent != FOLDER:
        frame = frame.f_back
    code = frame.f_code
    return f"{Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"


@pytest.fixture
def accesses(monkeypatch):
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    seen = Accesses()
    load, store = Builder.create_masked_load, Builder.create_masked_store

    def watched_load(self, pointers, mask, *rest):
        seen.load(hash(pointers.data.tobytes()), pointers.data[mask.data].tolist())
        return load(self, pointers, mask, *rest)

    def watched_store(self, pointers, value, mask, *rest):
        seen.store(hash(pointers.data.tobytes()), pointers.data[mask.data].tolist())
        return store(self, pointers, value, mask, *rest)

    monkeypatch.setattr(Builder, "create_masked_load", watched_load)
    monkeypatch.setattr(Builder, "create_masked_store", watched_store)
    monkeypatch.setattr(Builder, "create_barrier", lambda self: seen.barrier())
    return seen


@pytest.mark.parametrize("name", TRAINED)
def test_no_races(name, accesses):
    kernels.train(**make_job(**CASES[name]), tiles=SMALL)
    assert accesses.barriers
    assert not accesses.races


def test_every_barrier_is_needed(accesses):
    """Without any one of them there is a race, and it is seen: so the test above can fail."""
    job = make_job(**CASES["evaluation on a schedule"], cells=1)
    kernels.train(**clone(job), tiles=SMALL)
    assert not accesses.races
    # Those of the queue order what one program writes and another reads: test_queue.py.
    within = sorted(b for b in accesses.barriers if not b.endswith(" in train_steps"))
    assert len(within) == 6
    for barrier in within:
        accesses.ignored = barrier
        kernels.train(**clone(job), tiles=SMALL)
        assert accesses.races, f"the barrier of {barrier} orders nothing"
        accesses.races.clear()
        accesses.clear()
