"""Exceptions -> one line and an exit code."""

import os
import signal
import warnings

import pytest

from grokfast.cli.boundary import Terminated, guarded, one_line
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError


def raising(error):
    def work():
        raise error

    return work


class _Interrupted(GrokfastError):
    exit_code = 130


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("wrong", hint="right"), 2, "error: wrong; right"),
        (EnvironmentProblem("no disk"), 3, "error: no disk"),
        (_Interrupted("interrupted by SIGINT"), 130, "interrupted by SIGINT"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (PermissionError(13, "Permission denied", "x.h5"), 3, "error: Permission denied: x.h5"),
        (MemoryError(), 3, "error: not enough memory; --dry-run shows what a run needs"),
        (ModuleNotFoundError("no", name="torch"), 3, "error: the Python package 'torch' is not"),
        (
            ValueError("two\nlines \x1b[31m"),
            1,
            "error: internal error: ValueError: two lines \\x1b",
        ),
        (ModuleNotFoundError("no", name="grokfast.x"), 1, "error: internal error"),
    ],
)
def test_one_line_each(capsys, error, code, line):
    assert guarded(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"grokfast: {line}")
    assert err.count("\n") == 1


def test_codes_of_work_pass():
    assert guarded(lambda: None) == 0
    assert guarded(lambda: 4) == 4
    assert guarded(raising(SystemExit(130))) == 130
    assert guarded(raising(SystemExit())) == 0


def test_debug_shows_the_traceback(capsys):
    assert guarded(raising(ValueError("x")), debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_unwinds_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    assert guarded(work) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_warnings_are_one_line(capsys):
    def work():
        print(warnings.formatwarning("no\ncompiler", UserWarning, "file.py", 3), end="")

    assert guarded(work) == 0
    assert capsys.readouterr().out == "grokfast: warning: no compiler\n"
    assert guarded(work, debug=True) == 0
    assert "file.py:3: UserWarning" in capsys.readouterr().out


def test_one_line_is_printable():
    assert one_line("a\n  b\x00\udc80ä") == "a b\\x00\\udc80ä"
