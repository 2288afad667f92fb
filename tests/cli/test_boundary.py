"""Exceptions -> one line and an exit code."""

import os
import signal
import subprocess
import sys
import warnings

import pytest

from grokfast.cli.boundary import Terminated, guarded, one_line
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
from grokfast.signals import STOPPING


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
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            3,
            "error: not enough memory",
        ),
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


def test_what_a_library_ends_with_is_told(capsys):
    assert guarded(raising(SystemExit("no such display"))) == 2
    assert capsys.readouterr().err == "grokfast: error: no such display\n"


def test_a_folder_that_has_gone_is_said_before_any_work(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert guarded(raising(AssertionError)) == 3
    assert "the current folder is gone; cd to one" in capsys.readouterr().err


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


def test_what_a_library_raises_while_it_loads_is_the_environments(capsys, tmp_path, monkeypatch):
    """As torch does of a TORCH_LOGS that it does not know."""
    (tmp_path / "library_of_a_test.py").write_text('raise ValueError("TORCH_LOGS is nonsense")')
    monkeypatch.syspath_prepend(str(tmp_path))

    def work():
        import library_of_a_test  # noqa: F401

    assert guarded(work) == 3
    said = "grokfast: error: a Python package cannot be loaded: TORCH_LOGS is nonsense\n"
    assert capsys.readouterr().err == said


def test_a_backend_of_another_environment_is_not_for_us(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://not_installed_here.backend_inline")
    assert guarded(lambda: int("MPLBACKEND" in os.environ)) == 0


def test_warnings_that_were_to_be_errors_are_warnings(capsys):
    def work():
        warnings.warn("a run goes on", UserWarning, stacklevel=1)
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guarded(work) == 0


@pytest.mark.parametrize("signum", STOPPING)
def test_every_signal_that_asks_for_an_end(signum, capsys):
    def work():
        os.kill(os.getpid(), signum)
        signal.pause()

    # Under nohup everybody ignores SIGHUP, and we would wait for it for ever.
    before = signal.signal(signum, signal.SIG_DFL)
    try:
        assert guarded(work) == 128 + signum
        assert capsys.readouterr().err.count("\n") == 1
        assert signal.getsignal(signum) is signal.SIG_DFL
    finally:
        signal.signal(signum, before)


def test_a_second_signal_does_not_cut_the_cleaning_short():
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned.append(True)

    assert guarded(work) == 143
    assert cleaned


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-", "2>&-"])
def test_closed_descriptors_do_not_become_files(closed, tmp_path):
    """What a library prints on stderr would go into the file that has its number."""
    program = (
        "import os\n"
        "from grokfast.cli.boundary import guarded\n"
        "def work():\n"
        "    file = os.open('a', os.O_WRONLY | os.O_CREAT)\n"
        "    os.write(file, b'%d' % file)\n"
        "    os.write(2, b'of a library')\n"
        "raise SystemExit(guarded(work))\n"
    )
    (tmp_path / "p.py").write_text(program)
    command = f"{sys.executable} p.py {closed}"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path).returncode == 0
    assert int((tmp_path / "a").read_text()) > 2
