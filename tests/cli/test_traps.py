"""fire's traps, row by row of what fire alone does with them: here each ends before any work."""

import os
import subprocess
import sys

import pytest

PRESET = "addition-regression"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        # a typo: fire trains with the default, then complains
        (["run", PRESET, "--lrr=3"], "unknown option --lrr for 'run'; did you mean --lr?"),
        (["run", PRESET, "--quick=false"], "unknown option --quick for 'run'; "),
        (["rum", PRESET], "unknown command 'rum'; did you mean run?"),
        (["run", "addition-regresion"], "did you mean addition-regression?"),
        # 'false' as a truthy string
        (["run", PRESET, "--dry-run=maybe"], "--dry-run='maybe' is neither true nor false"),
        (["run", PRESET, "--dry-run", "false"], "unexpected argument 'false' for 'run'"),
        # a forgotten value becomes True
        (["run", PRESET, "--lr"], "--lr needs a value: --lr=VALUES"),
        (["run", PRESET, "--lr="], "--lr needs a value"),
        (["run", PRESET, "--lr", "--dry-run"], "--lr needs a value"),
        # text that looks like Python
        (["run", PRESET, "--lr=True"], "lr='True' is not a number, such as 1e-3"),
        (["run", PRESET, "--lr=None"], "lr='None' is not a number"),
        (["run", PRESET, "--out=297e7814231/x"], "no such folder: 297e7814231"),
        (["run", PRESET, "--lr=nan"], "lr is nan; give a finite value"),
        (["run", PRESET, "--lr=inf"], "lr is inf; give a finite value"),
        (["run", PRESET, "--weight-decay=-1"], "weight_decay is -1.0; give a finite value of 0"),
        (["run", PRESET, "--weight-decay", "-1e-3"], "weight_decay is -0.001"),
        # values that an engine would refuse in mid-run
        (["run", PRESET, "--set=optimizer.eps=2"], "optimizer.eps is 2.0; give 0 <= eps < 1"),
        (["run", PRESET, "--set=phase.tolerance=nan"], "phase.tolerance is nan; give 0 <= "),
        (["run", PRESET, "--threads=5000"], "--threads='5000' is no whole number from 1 to 4096"),
        (["run", PRESET, "--set=task.p=1e9"], "task.p is 1000000000; give 2 to 1000"),
        (
            ["run", PRESET, "--dtype=float64", "--precision=tf32x3"],
            "precision is 'tf32x3'; float64 is computed in ieee only",
        ),
        (["run", PRESET, "--lr=logspace:0:400:3"], "lr='logspace:0:400:3' goes beyond 1.8e+308"),
        (
            ["run", PRESET, "--lr=logspace:-5:-2:1000", "--weight-decay=linspace:0:20:1000"],
            "the grid has 1,000,000 cells; give at most 100,000",
        ),
        (
            ["run", PRESET, "--record=none,embeddings"],
            "neuron_ipr; it stands alone",
        ),
        (["run", "mnist-original", "--data-dir=nowhere"], "--data-dir=nowhere: no such folder"),
        (["data", "verify", "--data-dir=nowhere"], "no such folder: nowhere"),
        (["data", "path", "--data-dir=nowhere"], "no such folder: nowhere"),
        (["plot", "."], ". is a folder; name a results file"),
        (["info", "."], ". is a folder; name a results file"),
        # names that fire would cut or evaluate
        (["info", "run#2.h5"], "no such file: run#2.h5"),
        (["info", "a,b"], "no such file: a,b"),
        (["info", "{a:b}"], "no such file: {a:b}"),
        (["info", "[1, 2]"], "no such file: [1, 2]"),
        (["info", 'it\'s "1e5"'], 'no such file: it\'s "1e5"'),
        (["info", "1e5"], "no such file: 1e5"),
        # the last of two wins
        (["run", PRESET, "--lr=1", "--lr", "2"], "--lr is given twice"),
        (["run", PRESET, "--lr=1", "--set=optimizer.lr=2"], "lr is given twice"),
        (["run", PRESET, "--dry-run", "--no-dry-run"], "--dry-run is given twice"),
        # one-letter flags, and flags that begin with no
        (["run", PRESET, "-l", "3"], "unknown option -l for 'run'"),
        (["run", PRESET, "--notes"], "unknown option --notes for 'run'"),
        (["run", PRESET, "--no-lr"], "unknown option --no-lr for 'run'"),
        # private and inherited members
        (["_hidden"], "unknown command '_hidden'"),
        (["__class__"], "unknown command '__class__'"),
        (["keys"], "unknown command 'keys'"),
        (["pop", "run"], "unknown command 'pop'"),
        # chaining into the returned value
        (["run", PRESET, "upper"], "unexpected argument 'upper' for 'run'; it takes PRESET"),
        (["run", PRESET, "_start"], "unexpected argument '_start' for 'run'"),
        # fire's separators and its own flags
        (["run", PRESET, "-", "lr"], "unexpected argument '-' for 'run'"),
        (["run", PRESET, "--", "--trace"], "unexpected argument '--' for 'run'"),
        (["run", PRESET, "--", "--interactive"], "unexpected argument '--' for 'run'"),
        (["run", "--lr=1"], "'run' needs PRESET; grokfast presets lists them"),
        (["--lr=1", "run", PRESET], "'--lr=1' comes before any command"),
        (["--verison"], "'--verison' comes before any command; did you mean --version?"),
        (["run", PRESET, "--hlep"], "unknown option --hlep for 'run'; did you mean --help?"),
        (["run", PRESET, "--no-chekpoint"], "did you mean --no-checkpoint?"),
        # what would train for long and then leave something else
        (["run", PRESET, "--out=x.csv"], "results are written as HDF5; name it x.h5; "),
        (["merge", "a", "--out=x.PNG"], "results are written as HDF5; name it x.h5; "),
        (["run", PRESET, "--record=embeddings:0"], "embeddings every 0 steps are none; "),
        (["run", PRESET, "--save-every=-1"], "--save-every='-1' is no number of seconds"),
        (["merge", "a", "b"], "'merge' needs --out=FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_ends_before_any_work(grokfast, arguments, says):
    done = grokfast(*arguments)
    assert says in done.error
    assert done.code == 2
    assert not done.imported_torch
    assert done.written == []


@pytest.mark.parametrize(
    "arguments", [["--version"], ["run", "--version"], ["run", PRESET, "--version"]]
)
def test_version_starts_nothing(grokfast, arguments):
    done = grokfast(*arguments)
    assert (done.code, done.err, done.written) == (0, "", [])
    assert done.out.startswith("grokfast ")
    assert not done.imported_torch


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["run", "--help"], ["run", PRESET, "-h"], ["--help", "run"]]
)
def test_help_starts_nothing(grokfast, arguments):
    done = grokfast(*arguments)
    assert (done.code, done.err, done.written) == (0, "", [])
    assert done.out.startswith("usage: grokfast ")
    assert not done.imported_torch


def test_help_in_a_terminal_opens_no_pager(tmp_path):
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "grokfast", "run", "--help"],
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path,
        env=os.environ | {"PAGER": f"touch {tmp_path}/paged", "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # Linux: the other side is closed
        pass
    os.close(master)
    assert process.wait(timeout=600) == 0
    assert b"--weight-decay=VALUES" in shown
    assert b"INFO" not in shown
    assert not list(tmp_path.iterdir())


def test_an_error_has_no_traceback_unless_asked_for(grokfast):
    assert "Traceback" not in grokfast("info", "x.h5").err
    done = grokfast("info", "x.h5", "--debug")
    assert "Traceback" in done.err
    assert done.err.endswith("grokfast: error: no such file: x.h5\n")
    assert done.code == 2


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "grokfast", "presets"],
        stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    os.close(write)
    assert process.stderr == ""
    assert process.returncode == 141


def test_closed_output_is_no_error(tmp_path):
    command = f"{sys.executable} -m grokfast presets >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_output_that_cannot_be_written_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = subprocess.run(
            [sys.executable, "-m", "grokfast", "presets"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip
    assert process.stderr == "grokfast: error: No space left on device\n"
    assert process.returncode == 3
