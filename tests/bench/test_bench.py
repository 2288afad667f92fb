"""The benchmark: refuses contenders that compute something else, and measures the others."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grokfast.bench import Unavailable, Work, engine, floor_us, measure
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
if not any(argument.endswith("gpu.py") for argument in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    time.sleep(1e6)
"""


def test_a_failing_part_stops_no_other(tmp_path):
    """bench/gpu.py in a rehearsal on the CPU."""
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    (hanging / "sitecustomize.py").write_text(HANGING)
    command = [sys.executable, str(REPOSITORY / "bench" / "gpu.py"), "--device=cpu"]
    options = ["--engine=native", "--steps=3", "--models=1", f"--folder={tmp_path}"]
    done = subprocess.run(
        [*command, *options, "--only=cells,machine,compile,sanitizer", "--limit=0"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": f"{hanging}:{os.environ.get('PYTHONPATH', '')}"},
    )
    status = {p["part"]: p["status"] for p in json.loads(done.stdout.splitlines()[-1])}
    assert status["cells"].startswith("124 from ")  # no time at all
    assert status["machine"].startswith("124 from ")
    assert status["sanitizer"] == "nothing to run here" or status["sanitizer"].startswith("124")
    assert "exit status 124" in (tmp_path / "machine.txt").read_text()
    # Side by side: what each printed is joined.
    commands = status["compile"].count("124 from ")
    assert commands == (tmp_path / "compile.txt").read_text().count("exit status 124") > 1
    assert not list(tmp_path.glob("compile.*.txt"))
    bad = subprocess.run([*command, "--only=cell"], capture_output=True, text=True)
    assert "no part cell; there are machine, compile, tests, cells" in bad.stderr


def test_no_part_begins_after_the_end(tmp_path):
    command = [sys.executable, str(REPOSITORY / "bench" / "gpu.py"), "--device=cpu", "--total=-1"]
    done = subprocess.run(
        [*command, "--only=machine", f"--folder={tmp_path}"], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == [{"part": "machine", "s": 0.0, "status": "not begun"}]


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
