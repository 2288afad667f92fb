"""The benchmark: refuses contenders that compute something else, and measures the others."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grokfast.bench import Row, Unavailable, Work, engine, floor_us, measure, side_by_side, table
from grokfast.bench.trials import EagerLoop, EngineTrial

CPU = torch.device("cpu")
TOY = Work("addition-regression")
REPOSITORY = Path(__file__).resolve().parents[2]


def reference(bucket, device):
    return EngineTrial("reference", bucket, device)


def with_other(**fields):
    """The reference engine on a bucket with other data or hyperparameters."""

    def contender(bucket, device):
        changed = {name: change(getattr(bucket, name)) for name, change in fields.items()}
        return EngineTrial("reference", replace(bucket, **changed), device)

    return contender


def test_a_right_contender_is_timed():
    (row,) = measure(TOY, 2, {"eager loop": EagerLoop}, CPU, repetitions=2, seconds=0.01)
    assert row.error is not None and row.error < 1e-5
    assert len(row.times_us) == 2 and min(row.times_us) > 0
    assert row.skipped is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": lambda lr: 1.01 * lr},
        {"weight_decay": lambda d: d + 1},
        {"targets": lambda t: t * 1.01},
        {"y_train": lambda y: y.flip(1)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_contender_that_computes_something_else_is_not_timed(wrong):
    contenders = {"wrong": with_other(**wrong), "eager loop": EagerLoop}
    row, right = measure(TOY, 2, contenders, CPU, repetitions=1, seconds=0.01)
    assert row.skipped.startswith("wrong: loss off by")
    assert not row.times_us
    assert len(right.times_us) == 1, "the others are measured"


def test_a_contender_that_measures_something_else_is_not_timed():
    wrong = with_other(y_val=lambda y: (y + 1) % 19)  # the loss does not show it
    (row,) = measure(TOY, 2, {"wrong": wrong}, CPU)
    assert row.skipped == "wrong: T_val is not right"


@pytest.mark.parametrize(("precision", "off", "right"), [
    ("ieee", 1e-4, False), ("tf32x3", 3e-6, True), ("tf32x3", 1e-4, False), ("tf32", 1e-4, True),
])  # fmt: skip
def test_fewer_bits_are_allowed_larger_errors(precision, off, right):
    """By loss; T_train and T_val of tf32 are not compared: rounding moves them."""

    class Rounded(EagerLoop):
        def results(self):
            loss, t_train, t_val = super().results()
            return loss * (1 + off), t_train + (precision == "tf32"), t_val

    Rounded.precision = precision
    (row,) = measure(TOY, 2, {"rounded": Rounded}, CPU, repetitions=1, seconds=0.01)
    assert (row.skipped is None) == right, row.skipped


def test_precision_belongs_to_the_contender():
    (row,) = measure(TOY, 1, {"compiled tf32": engine("compiled", "tf32")}, CPU)
    assert "precision 'tf32'; it has ieee only" in row.skipped
    rates = {"gflops": 50.0, "tf32_gflops": 600.0}
    floors = [floor_us(TOY.bucket(1), rates, p) for p in ("ieee", "tf32x3", "tf32")]
    assert floors[0] / floors[1] == pytest.approx(4)
    assert floors[1] / floors[2] == pytest.approx(3)


def test_what_cannot_run_is_skipped_with_its_reason():
    def absent(bucket, device):
        raise Unavailable("not here")

    def broken(bucket, device):
        raise ValueError("one\ntwo")

    contenders = {"absent": absent, "broken": broken, "reference": reference}
    rows = measure(TOY, 1, contenders, CPU, repetitions=1, seconds=0.01)
    assert [r.skipped for r in rows] == ["not here", "failed: ValueError: one", None]
    with pytest.raises(Unavailable, match="CUDA"):
        engine("triton")(TOY.bucket(1), CPU)


def test_the_table_keeps_its_columns_apart_and_says_who_was_disturbed():
    rows = [
        Row("t", 0, "eager loop", 1, times_us=[123456.7, 123457.0, 123460.0], memory_mb=123456.0),
        Row("t", 0, "a contender with a long name", 1, times_us=[1.0, 2.0, 9.0], floor_us=0.5),
        Row("t", 0, "absent", 1, skipped="not here"),
    ]
    head, *lines = table(rows).splitlines()
    assert head.split() == ["us/model-step", "min", "max", "of", "bound", "MB"]
    assert lines[0].split() == ["eager", "loop", "123457.0", "123456.7", "123460.0", "123456"]
    assert lines[1].split()[-4:] == ["2", "1", "9", "25.0%"]
    assert lines[2].strip() == (
        "a contender with a long name was disturbed: its repetitions differ by a factor of 9.0"
    )
    assert len(lines) == 3, "the reason of one that was not timed has been said"
    assert table(rows[2:]) == "  nothing was timed"


def test_a_reason_is_said_once():
    def absent(bucket, device):
        raise Unavailable("not here")

    told = []
    rows = side_by_side({"absent": absent}, [TOY], [1, 2], CPU, repetitions=1, say=told.append)
    assert [(row["skipped"], row["disturbed"]) for row in rows] == [("not here", False)] * 2
    assert " ".join(told).count("not here") == 1
    assert "addition-regression, 1 model" in told and "addition-regression, 2 models" in told


def test_evaluation_points_thin_out_the_evaluations():
    dense, thin = (Work("mnist-digits", evaluation_points=n).bucket(1) for n in (0, 3))
    evaluations = [sum(p.evaluates(i) for i in range(1, 1001)) for p in (dense, thin)]
    assert evaluations[0] == 1000 // dense.steps_per_epoch
    assert evaluations[1] <= 3
    assert thin.flops_per_step() < dense.flops_per_step()


def test_peers_and_engines_side_by_side(tmp_path):
    """bench/run.py as ``make bench`` calls it, small."""
    rows = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "bench" / "run.py"),
            "--models=2",
            "--tasks=addition-classification",
            "--only=stacked torch.compile,eager loop,native",
            "--repetitions=1",
            "--seconds=0.01",
            f"--out={rows}",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout.splitlines()[-1])["rows"]
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [r["contender"] for r in kept] == ["stacked torch.compile", "eager loop", "native"]
    assert all(r["skipped"] or r["median_us"] > 0 for r in kept)
    assert [r["skipped"] for r in kept[:2]] == [None, None]
    assert kept[0]["machine"]["torch"] == torch.__version__
    assert kept[0]["ceilings"]["gflops"] > 0


def test_variants_of_the_triton_engine(tmp_path):
    """They are found by name, and what is no contender is named in one line."""
    run = [sys.executable, str(REPOSITORY / "bench" / "run.py"), "--models=1", "--repetitions=1"]
    run += [f"--out={tmp_path / 'rows.jsonl'}", "--tasks=addition-regression"]
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    name = "triton tf32x3 x66 t64-64-64-4-1-2-0"
    found = subprocess.run(
        [*run, f"--only={name}"], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    (row,) = json.loads(found.stdout.splitlines()[-1])["rows"]
    assert row["contender"] == name
    assert torch.cuda.is_available() or "runs on CUDA" in row["skipped"]
    wrong = subprocess.run([*run, "--only=tritn"], capture_output=True, text=True, cwd=tmp_path)
    assert wrong.returncode and "no contender 'tritn'; there are" in wrong.stderr


#: Put before every Python of a part: it never ends by itself, on a machine however fast.
HANGING = """
import signal, sys, time
if not any(argument.endswith("bench/gpu.py") for argument in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    time.sleep(1e6)
"""


def rehearsed(tmp_path, *options, **env):
    """bench/gpu.py on the CPU: what became of the parts, by name."""
    command = [sys.executable, str(REPOSITORY / "bench" / "gpu.py"), "--device=cpu"]
    command += ["--engine=native", "--steps=3", "--models=1", f"--folder={tmp_path / 'gpu'}"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env=os.environ | env
    )
    assert done.returncode == 0, done.stderr
    return {p["part"]: p["status"] for p in json.loads(done.stdout.splitlines()[-1])}


def test_a_failing_part_stops_no_other(tmp_path):
    """Every command hangs: each part ends at its limit, and the archive knows of both."""
    (tmp_path / "hanging").mkdir()
    (tmp_path / "hanging" / "sitecustomize.py").write_text(HANGING)
    path = f"{tmp_path / 'hanging'}:{os.environ.get('PYTHONPATH', '')}"
    status = rehearsed(tmp_path, "--only=right,programs,diagram", "--limit=0", PYTHONPATH=path)
    assert status["diagram"].count("124 from ") == 3
    assert status["programs"] == "ok: nothing to run here"  # of the triton engine alone
    # Side by side: what each printed is joined.
    printed = (tmp_path / "gpu" / "right.txt").read_text()
    assert status["right"].count("124 from ") == printed.count("# exit status 124") == 3
    assert not list((tmp_path / "gpu").glob("right.*.txt"))
    with zipfile.ZipFile(tmp_path / "gpu.zip") as archive:
        assert {"right.txt", "diagram.txt", "gpu.json"} <= set(archive.namelist())


def test_an_unknown_part_is_named(tmp_path):
    bad = subprocess.run(
        [sys.executable, str(REPOSITORY / "bench" / "gpu.py"), "--device=cpu", "--only=righ"],
        capture_output=True,
        text=True,
    )
    assert bad.returncode == 2 and "no part righ; there are right, compile" in bad.stderr


def test_no_part_begins_that_cannot_end(tmp_path):
    status = rehearsed(tmp_path, "--only=right,diagram", "--budget=21")
    assert status["right"].startswith("not begun: it takes 40 s, ")
    assert status["diagram"].startswith("not begun: it takes 30 s, ")
    assert not (tmp_path / "gpu" / "right.txt").exists()
    assert zipfile.is_zipfile(tmp_path / "gpu.zip")


def test_rows_of_an_archive_are_taken_over_and_a_part_that_ended_well_is_not_run_again(tmp_path):
    folder, row = tmp_path / "gpu", {"contender": "triton", "median_us": 1.0, "skipped": None}
    folder.mkdir()
    (folder / "cpu.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "gpu.json").write_text(json.dumps([{"part": "speed", "s": 1.0, "status": "ok"}]))
    (folder / "large.h5").write_bytes(os.urandom(17 * 2**20))
    assert rehearsed(tmp_path, "--only=speed") == {"speed": "ok"}
    archive = tmp_path / "earlier.zip"
    assert rehearsed(tmp_path, "--only=programs", f"--archive={archive}")["speed"] == "ok"
    with zipfile.ZipFile(archive) as inside:
        assert inside.read("left-out.txt") == b"large.h5\n"
    assert archive.stat().st_size < 16 * 2**20

    again = [f"--folder={tmp_path / 'next'}", f"--after={archive}", "--only=speed,programs"]
    assert set(rehearsed(tmp_path, *again)) == {"speed", "programs"}
    assert not (tmp_path / "next" / "speed.txt").exists()
    taken = tmp_path / "rows" / "cuda.jsonl"
    for _ in range(2):  # the second time there is nothing new
        command = [sys.executable, str(REPOSITORY / "bench" / "run.py"), "--device=cuda"]
        subprocess.run([*command, f"--add={archive}", f"--out={taken}"], check=True)
    assert [json.loads(line) for line in taken.read_text().splitlines()] == [row]


def test_the_best_precision_is_what_the_rows_say(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "bench")
    from gpu_parts import Setting

    setting = Setting("cuda", "triton", tmp_path, 100_000, 441)
    assert setting.best_precision() == "ieee"  # nothing known
    rows = [
        {"contender": "triton", "precision": "ieee", "median_us": 0.7, "skipped": None},
        {"contender": "triton tf32x3", "precision": "tf32x3", "median_us": 0.4, "skipped": None},
        {"contender": "triton tf32", "precision": "tf32", "median_us": 0.2, "skipped": None},
    ]
    setting.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert setting.best_precision() == "tf32x3"  # tf32 is not of float32 grade
    rows[1]["skipped"] = "wrong: loss off by 1e-2"
    setting.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert setting.best_precision() == "ieee"


def test_how_it_is_run_without_a_network_fits_into_one_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "bench")
    import gpu

    assert len(gpu.COMMAND) < 1500 and "\n" not in gpu.COMMAND


def test_what_hangs_ends_with_all_that_it_began(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "bench")
    import gpu

    # A shell's background job ignores SIGINT.
    command = ["sh", "-c", "sleep 1000000 & echo $!; wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline()  # the child is there
    assert gpu.ended(process, time.monotonic()) == 124
    # While the child lives it holds the other side of the pipe.
    (ended,), _, _ = select.select([process.stdout], [], [], 600)
    assert ended.read() == ""


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_row_names_the_commit_of_the_program_wherever_it_is_run(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path / "source"), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def told():
        command = [sys.executable, str(program)]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    program = tmp_path / "source" / "program.py"
    program.parent.mkdir()
    program.write_text(
        "import torch; from grokfast.bench.machine import describe\n"
        "print(describe(torch.device('cpu'))['commit'])"
    )
    assert told().stdout == "None\n"
    git("init")
    git("add", "program.py")
    git("commit", "-m", "a")
    head = git("rev-parse", "--short", "HEAD")
    assert told().stdout == f"{head}\n"
    program.write_text(program.read_text() + "\n")
    assert told().stdout == f"{head}+changes\n"
