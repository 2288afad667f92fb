"""What an engine is, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.state import State

#: Called now and then with the model-steps done so far in this call; True asks to stop soon.
Tick = Callable[[int], bool]


class Engine(Protocol):
    """Trains cells further, in place, freezing each at the very step its stop rule fires.

    One step i = 1, 2, ... of a cell, the same in every engine:

    1. Forward of the batch with the weights after update i - 1, in training mode (dropout, batch
       statistics): loss, correct predictions. A loss that is not finite sets ``diverged_at = i``
       and freezes the cell without an update of anything.
    2. ``epoch_correct`` and ``epoch_loss`` start anew at the first step of an epoch, and add up.
    3. Backward; the update of parameters, slots and buffers; ``step = i``.
    4. After an evaluated step: a forward of the validation set with the new weights, in evaluation
       mode, and where the training accuracy is that ``after`` the update, of the training set;
       last and best counts; T_train, T_val and crossings are set to i where their count is first
       reached; curves are recorded.
    5. Freeze where the stop rule has fired.
    """

    name: str
    device: torch.device

    #: What decides the bits besides engine and device, such as the instruction set: facts (see
    #: :mod:`grokfast.engines.facts`). A file is gone on with only where they still hold.
    @property
    def detail(self) -> str: ...

    #: Steps after which finished cells make room for others; lockstep engines regroup the rest.
    chunk: int
    #: Whether a call that ``tick`` ends keeps what it has done; else it is as if never made.
    keeps_partial: bool
    #: Whether a cell has the same bits alone and among any others.
    invariant: bool

    def unsupported(self, bucket: Bucket) -> str | None:
        """Why this engine cannot run the bucket, or None."""

    def measures(self, bucket: Bucket) -> frozenset[str]:
        """Observables that ``advance`` itself measures at their steps, into ``state.observed``
        where that has room for them."""

    def advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None = None
    ) -> None:
        """Trains the listed cells (int64 ``[K]``, positions in the bucket) up to step ``until``.

        ``state`` is on the engine's device and changes in place; cells that are frozen or past
        ``until`` are left alone. When ``tick`` asks to stop, the call returns early and leaves
        a state from which a second call goes on to the same bits.
        """


_ENGINES = {
    "reference": ("grokfast.engines.reference", "ReferenceEngine"),
    "compiled": ("grokfast.engines.compiled", "CompiledEngine"),
    "native": ("grokfast.engines.native", "NativeEngine"),
    "triton": ("grokfast.engines.triton", "TritonEngine"),
}

#: Fastest first, by device type: what ``auto`` tries.
_PREFERENCE = {"cuda": ("triton", "compiled"), "cpu": ("native", "compiled")}

#: The one device type of an engine that has no choice.
_ONLY_ON = {"native": "cpu"}

ENGINE_NAMES = ("auto", *_ENGINES)


def make_engine(name: str, device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of this name on this device (``auto``: CUDA where there is one and the engine
    runs on it, else the CPU).

    Raises:
        UsageError: unknown engine or device, or an engine that cannot run on it.
        EnvironmentProblem: the engine's compiled part is missing here.
    """
    where = resolve_device(_ONLY_ON.get(name, device) if device == "auto" else device)
    if name not in _ENGINES:
        raise UsageError(f"unknown engine {name!r}; known are {', '.join(ENGINE_NAMES)}")
    module, cls = _ENGINES[name]
    return getattr(importlib.import_module(module), cls)(device=where, threads=threads)


def choose_engine(
    name: str, buckets: list[Bucket], device: str = "auto", threads: int | None = None
) -> tuple[Engine, str]:
    """The named engine, or with ``auto`` the fastest one here that supports every bucket.

    Returns:
        The engine and one line that says which and why.

    Raises:
        UsageError, EnvironmentProblem: as :func:`make_engine`; or unsupported, with the reason.
    """
    if name != "auto":
        engine = make_engine(name, device, threads)
        for bucket in buckets:
            reason = engine.unsupported(bucket)
            if reason:
                raise UsageError(f"engine {name!r} cannot run this experiment: {reason}")
        return engine, f"{name} on {engine.device} (asked for)"

    passed_over = []
    for candidate in _PREFERENCE[resolve_device(device).type]:
        try:
            engine = make_engine(candidate, device, threads)
        except EnvironmentProblem as error:
            passed_over.append(f"{candidate}: {error}")
            continue
        reason = next(filter(None, map(engine.unsupported, buckets)), None)
        if reason is None:
            why = "; ".join(["the fastest that supports this experiment", *passed_over])
            return engine, f"{candidate} on {engine.device} ({why})"
        passed_over.append(f"{candidate}: {reason}")
    raise UsageError("no engine can run this experiment: " + "; ".join(passed_over))


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where torch sees a GPU, else the CPU.

    Raises:
        UsageError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}; give auto, cpu, cuda or cuda:N") from None
    if where.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} is not supported; give auto, cpu, cuda or cuda:N")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': torch sees no CUDA GPU here", hint="use --device=cpu")
    return where
