"""Programs side by side, taking turns at every barrier and atomic: the queue of stretches.

The interpreter runs one program after the other, and then none ever waits for another. Here each
has a thread, and one runs at a time: where it reaches a barrier or an atomic, it may have to give
way to another, by a seeded draw. It seldom has to, so that one falls behind by whole stretches.
"""

import inspect
import os
import random
import threading

import pytest
from plain_training import clone
from small_jobs import make_job
from test_train_steps import SMALL, assert_same_bits

from grokfast import kernels

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs the interpreter"
)


class SideBySide:
    """Takes the place of a kernel's function: collects its programs, runs them with the last."""

    def __init__(self, fn, builder, seed):
        self.__name__, self.__globals__ = fn.__name__, fn.__globals__
        self.__signature__ = inspect.signature(fn)
        self.fn, self.builder, self.draw = fn, builder, random.Random(seed)
        self.programs, self.error = [], None

    def __call__(self, **arguments):
        self.programs.append(self.builder.grid_idx)
        if len(self.programs) < self.builder.grid_dim[0]:
            return
        self.changed = threading.Condition()
        threads = [threading.Thread(target=self.run, args=(at, arguments)) for at in self.programs]
        self.alive, self.turn = list(self.programs), self.programs[0]
        self.builder.set_grid_idx(*self.turn)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.error:
            raise self.error

    def run(self, at, arguments):
        try:
            self.wait_for_turn(at)
            self.fn(**arguments)
        except Exception as error:
            self.error = error
        finally:
            with self.changed:
                self.alive.remove(at)
                self.pass_on()

    def wait_for_turn(self, at):
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == at or self.error, timeout=600)
        if self.error:
            raise RuntimeError("another program failed")

    def pass_on(self):
        if self.alive:
            self.turn = self.draw.choice(self.alive)
            self.builder.set_grid_idx(*self.turn)
        self.changed.notify_all()

    def give_way(self):
        at = self.turn
        if self.draw.random() < 0.02:
            with self.changed:
                self.pass_on()
            self.wait_for_turn(at)


@pytest.fixture
def side_by_side(monkeypatch):
    """Call with a seed; returns the list to which every atomic's (operand, found, order) goes."""
    from triton.runtime import interpreter

    def patch(seed):
        running, atomics = [], []
        call = interpreter.GridExecutor.__call__

        def called(self, *args, **options):
            fn = self.fn
            running[:] = [SideBySide(fn, interpreter.interpreter_builder, seed)]
            self.fn = running[0]
            try:
                return call(self, *args, **options)
            finally:
                self.fn = fn
                running.clear()

        atomic = interpreter.InterpreterBuilder.create_atomic_rmw

        def watched_atomic(self, operation, pointer, value, mask, order, scope):
            running[0].give_way()
            old = atomic(self, operation, pointer, value, mask, order, scope)
            atomics.append((value.data.item(), old.data.item(), str(order).lower()))
            return old

        monkeypatch.setattr(interpreter.GridExecutor, "__call__", called)
        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_atomic_rmw", watched_atomic)
        monkeypatch.setattr(
            interpreter.InterpreterBuilder, "create_barrier", lambda self: running[0].give_way()
        )
        return atomics

    return patch


FULL = {"sizes": (2, 5), "embedding": (4, 2), "cells": 4, "train": 6, "val": 3, "until": 6,
        "curve_steps": (3, 6), "lr": 0.05, "need": (4, 2), "more": ((2, 3), (1, 2)),
        "stop": True}  # fmt: skip
MINIBATCH = {"sizes": (4, 5), "embedding": None, "loss": "mse", "cells": 4, "train": 6,
             "batch_size": 3, "until": 7, "eval_steps": (2, 6), "curve_steps": (6,)}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "seed", "programs", "stretch"), ((FULL, 0, 3, 1), (FULL, 1, 2, 2), (MINIBATCH, 3, 3, 1))
)
def test_same_bits(job, seed, programs, stretch, side_by_side):
    job = make_job(**job)
    alone, together = clone(job), clone(job)
    kernels.train(**alone, tiles=SMALL)
    atomics = side_by_side(seed)
    kernels.train(**together, tiles=SMALL, programs=programs, stretch=stretch, poison=True)
    assert_same_bits(together, alone)
    stretches = len(job["cells"]) * -(-job["until"] // stretch)
    looks = [order for operand, _, order in atomics if operand == 0]
    assert len(looks) > stretches  # some program had to wait
    assert all("acquire" in order and "release" not in order for order in looks)
    assert sum("release" in o and "acq" not in o for *_, o in atomics) == stretches


def test_waiting_is_needed(side_by_side, monkeypatch):
    """Without it some stretch begins too early, and that shows: the test above can fail."""
    from triton.runtime import interpreter

    job = make_job(**{**FULL, "stop": False})
    alone, together = clone(job), clone(job)
    kernels.train(**alone, tiles=SMALL)
    side_by_side(0)
    atomic = interpreter.InterpreterBuilder.create_atomic_rmw

    def ready(self, operation, pointer, value, *rest):
        old = atomic(self, operation, pointer, value, *rest)
        if value.data.item() == 0:  # a look at what is done
            old.data = old.data + 1000
        return old

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_atomic_rmw", ready)
    kernels.train(**together, tiles=SMALL, programs=3, stretch=1)
    with pytest.raises(AssertionError):
        assert_same_bits(together, alone)
