"""The one place where exceptions become a line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from grokfast.cli.watching import Terminated, stoppable
from grokfast.errors import EnvironmentProblem, GrokfastError

OK, INTERNAL, USAGE, ENVIRONMENT = range(4)
#: All is well, and something is still to be trained.
INCOMPLETE = 4
#: As a shell reports it: 128 + SIGPIPE.
BROKEN_PIPE = 128 + 13


#: Of matplotlib: how figures would be shown, of which nothing is here, in a notebook of another
#: environment the name of a module that this one lacks.
_NOT_FOR_US = ("MPLBACKEND",)


def guarded(work: Callable[[], int | None], debug: bool = False) -> int:
    """Runs ``work`` and returns its exit code; errors become one line on stderr.

    Args:
        work: returns an exit code, None for 0.
        debug: show tracebacks too.
    """
    _occupy()
    for name in _NOT_FOR_US:
        os.environ.pop(name, None)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif hasattr(getattr(sys, name), "reconfigure"):  # a file name may hold any bytes
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        with stoppable(), _plain_warnings(debug):
            return _caught(work, debug)
    except Terminated as error:
        return _report(str(error), 128 + error.signum)


def _occupy() -> None:
    """Opens what the caller has closed of descriptors 0 to 2: else the next file gets the number,
    and what a library prints goes into a results file."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def _check_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise EnvironmentProblem(
            "the current folder is gone", hint="cd to one that is there"
        ) from error


def _caught(work: Callable[[], int | None], debug: bool) -> int:
    try:
        _check_folder()
        code = work() or OK
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # | head: its reader has seen enough
        _drop(sys.stdout, sys.stderr)
        return BROKEN_PIPE
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or OK
        return _report(str(error.code), USAGE)
    except KeyboardInterrupt:
        return _report("interrupted", 130)
    except GrokfastError as error:
        _traceback(debug)
        return _report(str(error), error.exit_code)
    except Exception as error:
        _traceback(debug)
        problem = _environment_problem(error)
        if problem is not None:
            return _report(str(problem), problem.exit_code)
        hint = "" if debug else "; --debug shows where, and a report is welcome"
        return _report(f"internal error: {type(error).__name__}: {error}{hint}", INTERNAL)


def one_line(text: str) -> str:
    """Printable text on a single line: what a file or an argument holds cannot draw or move."""
    text = " ".join(part.strip() for part in text.splitlines())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _report(message: str, code: int) -> int:
    # An interruption is no error: what was done is saved.
    kind = "" if code >= 128 else "error: "
    try:
        sys.stdout.flush()
    except OSError:  # or the interpreter tries again at exit
        _drop(sys.stdout)
    try:
        print(f"grokfast: {kind}{one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)
    return code


#: Of torch's allocators, C++, the system and its loader, in what they raise where memory is short.
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "bad_alloc",
    "Cannot allocate memory",
    "failed to map segment",
)


def _environment_problem(error: Exception) -> EnvironmentProblem | None:
    """What the machine lacks, where that is what an unforeseen exception says."""
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return EnvironmentProblem("not enough memory", hint="--dry-run shows what a run needs")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("grokfast"):
        return EnvironmentProblem(f"the Python package {error.name!r} is not installed")
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return EnvironmentProblem("this system lets no more threads begin (ulimit -u)")
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return EnvironmentProblem(f"{error.strerror}{where}")
    if _while_loading(error):  # short of memory, or by a variable that it does not understand
        return EnvironmentProblem(f"a Python package cannot be loaded: {text or repr(error)}")
    return None


def _while_loading(error: Exception) -> bool:
    """Whether it was raised while somebody else's module was being imported."""
    importing, at = False, error.__traceback__
    while at is not None:
        name = at.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] == "grokfast":
            importing = False
        importing |= name == "importlib._bootstrap"
        at = at.tb_next
    return importing


def _traceback(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _drop(*streams: TextIO) -> None:
    """Sends what is still buffered to nowhere, or the interpreter complains about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def _plain_warnings(debug: bool) -> Iterator[None]:
    """Warnings as one line without file and source, except with ``--debug``."""

    def short(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        return f"grokfast: warning: {one_line(str(message))}\n"

    old = warnings.formatwarning
    if not debug:
        warnings.formatwarning = short
    try:
        with warnings.catch_warnings():
            if "error" in (action for action, *_ in warnings.filters):  # PYTHONWARNINGS=error
                warnings.simplefilter("ignore")  # deprecations in libraries end no run
                warnings.simplefilter("default", UserWarning)
                warnings.simplefilter("default", RuntimeWarning)
            yield
    finally:
        warnings.formatwarning = old
