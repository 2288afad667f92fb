"""Passes made fast: ``torch.compile``, on CUDA replayed as a graph; eager with no compiler."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch._inductor.runtime.cache_dir_utils import cache_dir

from grokfast.engines import facts, onednn
from grokfast.engines.lockstep import Data, Models, Pass, Spec, Tables, make_pass
from grokfast.engines.lockstep_check import difference
from grokfast.errors import EnvironmentProblem


@dataclass(frozen=True)
class Layout:
    """Everything about a pass's tensors, besides the spec, that a compilation is made for."""

    models: int  # M
    shared: bool  # whether all models read the same data (U = 1)
    dtype: torch.dtype
    device: torch.device
    precision: str
    eager: bool  # not to be compiled at all
    threads: int  # of the CPU, that share one pass


@cache
def compiled_pass(spec: Spec, judges: bool, rows: int, layout: Layout) -> CompiledPass:
    """One for each distinct argument, for the life of the process."""
    return CompiledPass(spec, judges, rows, layout)


@dataclass
class CompiledPass:
    """Compiles at the first call; may be called from several threads."""

    spec: Spec
    judges: bool
    rows: int
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
        run = make_pass(self.spec, self.judges, self.rows)
        if self.layout.eager or compiled_arithmetic(self.layout.device) is None:
            run(models, data, tables)
            return run
        try:
            eager, threads = run, self.layout.threads
            large = self.spec.net.large
            run = compiled(eager, self.layout.device, threads, replace_products=large)
            # On a GPU the keys of inductor's folder tell the machine.
            if self.layout.device.type == "cpu":
                wrong = difference(run, eager, models, data, tables)
                if wrong is not None:
                    raise EnvironmentProblem(
                        f"code of torch.compile computes other {wrong} than torch itself",
                        hint=f"remove {cache_dir()}, from which it may come, or set "
                        "TORCHDYNAMO_DISABLE=1",
                    )
            run(models, data, tables)
            return run
        except _COMPILER_ERRORS as error:  # to go on eagerly would be to mix bits
            raise EnvironmentProblem(
                f"torch.compile cannot compile this experiment ({_reason(error)})",
                hint="TORCHDYNAMO_DISABLE=1 trains it eagerly, several times slower",
            ) from error


def compiled(
    run: Callable[..., None],
    device: torch.device,
    threads: int = 1,
    replace_products: bool = False,
) -> Callable[..., None]:
    """The function under torch.compile, as all passes on this device are.

    Args:
        threads: of the CPU.
        replace_products: whether they are oneDNN's on the CPU, where this torch has it.
    """
    # Guards would check on every call what is checked once, by the key of `compiled_pass`.
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    if device.type == "cpu":
        _keep_code_apart()
        # Calls through the C++ wrapper run without Python's lock, so that blocks run side by side.
        options |= {"cpp_wrapper": True, "cpp.threads": threads}
        if replace_products and onednn.is_there():
            options["post_grad_custom_post_pass"] = onednn.ReplaceProducts()
    elif hasattr(inductor, "deterministic"):
        # Else kernels are chosen by how fast they were just now, and the bits with them.
        options["deterministic"] = True
    return torch.compile(run, fullgraph=True, dynamic=False, options=options)


@cache
def _keep_code_apart() -> None:
    """Inductor's folder of compiled code becomes one for this instruction set and version.

    Its keys do not tell the instruction set, so code that was made on another machine with the same
    folder, or under another ATEN_CPU_CAPABILITY, would be taken: it gives wrong losses or ends the
    process, both without a word (torch 2.13; bench/LOG.md).
    """
    isa = f"{torch.backends.cpu.get_cpu_capability()} {pick_vec_isa()}"
    name = "-".join(re.findall(r"[\w.]+", f"grokfast torch {torch.__version__} {isa}"))
    if Path(cache_dir()).name != name:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(cache_dir(), name))


def compiled_arithmetic(device: torch.device) -> str | None:
    """:func:`grokfast.engines.facts.arithmetic` of compiled code; None where torch.compile does
    not work here, which is found by using it. Said once a process, in a warning."""
    with _looking:
        return _compiled_arithmetic(device)


_looking = threading.Lock()  # a cache alone lets two threads look


@cache
def _compiled_arithmetic(device: torch.device) -> str | None:
    as_it_is = False

    def probe(x: Tensor, w: Tensor, out: Tensor) -> None:
        nonlocal as_it_is
        if not torch.compiler.is_compiling():  # TORCHDYNAMO_DISABLE=1: the function itself runs
            as_it_is = True
        facts.probe(x, w, out)

    try:
        found = facts.arithmetic(device, 1, compiled(probe, device))
    except RuntimeError as error:  # of compilers, and plain ones: TORCH_COMPILE_DISABLE=1
        warnings.warn(
            f"torch.compile does not work here ({_reason(error)}); the compiled engine runs "
            "eagerly, several times slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return None if as_it_is else found


def _compiler_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


_COMPILER_ERRORS = _compiler_errors()


def _reason(error: Exception) -> str:
    """First line of what the compiler says."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


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
