"""Passes made fast: ``torch.compile``, on CUDA replayed as a graph; eager with no compiler."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch._inductor import config as inductor

from grokfast.engines.lockstep import Data, Models, Pass, Spec, Tables, make_pass

#: Set for the rest of the process by the first compilation that fails.
_broken = threading.Event()


@dataclass(frozen=True)
class Layout:
    """Everything about a pass's tensors, besides the spec, that a compilation is made for."""

    models: int  # M
    shared: bool  # whether all models read the same data (U = 1)
    dtype: torch.dtype
    device: torch.device
    precision: str
    eager: bool  # not to be compiled at all


@cache
def compiled_pass(spec: Spec, judges: bool, layout: Layout) -> CompiledPass:
    """One for each distinct argument, for the life of the process."""
    return CompiledPass(spec, judges, layout)


@dataclass
class CompiledPass:
    """Compiles at the first call; may be called from several threads."""

    spec: Spec
    judges: bool
    layout: Layout
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _run: Pass | None = None

    def __call__(self, models: Models, data: Data, tables: Tables) -> None:
        if self._run is not None:
            self._run(models, data, tables)
            return
        with self._lock:
            if self._run is None:
                self._run = self._first_call(models, data, tables)
                return
        self._run(models, data, tables)

    def _first_call(self, models: Models, data: Data, tables: Tables) -> Pass:
        """Does the pass; returns what will do the next ones."""
        eager = make_pass(self.spec, self.judges)
        if not (self.layout.eager or _broken.is_set()):
            compiled = torch.compile(eager, fullgraph=True, dynamic=False, options=self._options())
            try:
                compiled(models, data, tables)
                return compiled
            except _COMPILER_ERRORS as error:
                _warn_once(error)
        eager(models, data, tables)
        return eager

    def _options(self) -> dict[str, Any]:
        # Guards would check on every call what the cache above has checked once: the layout.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        if self.layout.device.type == "cpu":
            # One thread a block. Calls through the C++ wrapper run without Python's lock, so
            # that blocks run side by side.
            options |= {"cpp_wrapper": True, "cpp.threads": 1}
        elif hasattr(inductor, "deterministic"):
            # Else kernels are chosen by how fast they were just now, and the bits with them.
            options["deterministic"] = True
        return options


def _compiler_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


_COMPILER_ERRORS = _compiler_errors()


def _warn_once(error: Exception) -> None:
    if _broken.is_set():
        return
    _broken.set()
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    warnings.warn(
        f"torch.compile does not work here ({reason.strip()}); the compiled engine runs eagerly, "
        "several times slower",
        RuntimeWarning,
        stacklevel=2,
    )


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One a device: cuBLAS keeps a workspace for every stream it has seen."""
    return torch.cuda.Stream(device)


class Graph:
    """A block's pass, on CUDA replayed as a CUDA graph.

    Possible because a pass reads all that changes from the block's own tables: the very same
    launches do every step. The first passes run as they are, which loads and tunes every kernel;
    capturing then runs nothing, so no step is lost or repeated.
    """

    warm_up = 2

    def __init__(self, run: Pass, arguments: tuple[Models, Data, Tables]) -> None:
        self.run, self.arguments = run, arguments
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.side = None
        if arguments[0].live.is_cuda:
            self.side = _side_stream(arguments[0].live.device)

    def __call__(self) -> None:
        if self.side is None:
            self.run(*self.arguments)
        elif self.graph is not None:
            self.graph.replay()
        elif self.calls < self.warm_up:
            self.calls += 1
            main = torch.cuda.current_stream()
            self.side.wait_stream(main)
            with torch.cuda.stream(self.side):
                self.run(*self.arguments)
            main.wait_stream(self.side)
        else:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.side):
                self.run(*self.arguments)
            self.graph.replay()
