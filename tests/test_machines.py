"""What defines a run is the same on every machine; what decides its bits is recorded and kept."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.engines import ENGINE_NAMES, facts, make_engine
from grokfast.machines import machines
from grokfast.merge import merge

RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"

#: Everything that a run is defined by, and what each committed results file says under it.
DEFINITIONS = """
import json, sys
from pathlib import Path
import grokfast as gf
from grokfast.agree import agree
from grokfast.cli.overrides import build_grid
from grokfast.fields import scalar_fields
from grokfast.presets import PRESETS
from grokfast.schedule import curve_steps, evaluated_steps

SPELLED = {
    "addition-classification": {"lr": "logspace:-5:-2:5", "weight_decay": "linspace:0:20:5"},
    "addition-regression": {"lr": "logspace:-5:-2:5", "weight_decay": "linspace:0:10:5"},
    "modular-weight-decay": {"weight_decay": "0,15", "task.fraction": "linspace:0.1:0.9:9",
                             "task.corruption": "linspace:0.1:0.9:9"},
    "parity-baseline": {"data_seed": "range:0:10"},
    "mnist-extended": {"lr": "50", "weight_decay": "1e-7"},
    "addition-classification.embeddings.h5": {"lr": "3.9810717055349695e-05",
                                              "weight_decay": "3,11,16,20"},
}
#: Of which no table is published.
UNPUBLISHED = ("mnist-extended", "modular-weight-decay", "parity-k3", "parity-noise", "parity-size")

def asked(path, old):
    '''The grid of a file as a user asks for it: a preset, or other values of it.'''
    new = gf.preset(old.grid.name)
    if len(old.grid.cells) != new.size:
        spelled = SPELLED.get(path.name) or SPELLED[old.grid.name]
        new = build_grid(old.grid.name, spelled, None, None)
    fields = scalar_fields(new.experiment)
    return new.grid(**{f: old.grid.experiment.get(f) for f in fields if not new.varies(f)})

def left(path, old):
    shard = path.name.split(".shard-")[1:]
    try:
        return gf.plan(
            asked(path, old), out=path, device="cpu", engine=old.provenance["engine"],
            shard=tuple(map(int, shard[0].removesuffix(".h5").split("-of-"))) if shard else None,
        ).left
    except gf.EnvironmentProblem as error:
        if "MNIST" not in str(error):
            raise
        return "no MNIST here"

axes = {name: {k: list(v) for k, v in p.build().axes.items()} for name, p in PRESETS.items()}
ranges = ("logspace:-5:-2:21", "logspace:-6:0.5:97", "linspace:0:20:21", "linspace:-1:0.7:33")
spelled = [build_grid("addition-regression", {"lr": None, "weight_decay": None},
                      f"optimizer.encoder_lr={text.replace('-1:', '0:')}", None).axes
           for text in ranges]
schedules = [
    evaluated_steps(
        gf.Evaluation(schedule="log-epochs", horizon=h, points=p), e, 40000 * e
    ).tolist()
    for h in (17, 969, 300_000) for p in (30, 1000) for e in (1, 5)  # 969: by NumPy 968 or 969
]
curves = [curve_steps(gf.Recording(curve_points=n), None, 1, 200_000).tolist()
          for n in (1, 20, 60, 200, 1000)]
files = {}
for path in sorted(Path(sys.argv[1]).glob("*.h5")):
    if path.match("*.shard-[234]-of-4.h5"):
        continue  # as the first of the four
    old = gf.Results.load(path)
    published = old.grid.name not in UNPUBLISHED
    files[path.name] = [left(path, old), [a.to_dict() for a in agree(old)] if published else None]
print(json.dumps([axes, spelled, schedules, curves, files]))
"""


def without(*prefixes):
    """Environment without the processor's features of these names, or any that NumPy uses."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    there = [f for f in __cpu_dispatch__ if __cpu_features__[f] and f.startswith(prefixes)]
    if not there:
        pytest.skip(f"this processor has no {' or '.join(prefixes)}")
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(there)}


def mnist():
    """Environment with the MNIST files beside a checkout, where they are; without a network."""
    environment = {"GROKFAST_MNIST_MIRROR": "http://127.0.0.1:9/"}
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data" / "mnist").is_dir():
            environment["GROKFAST_DATA"] = str(parent / "shared" / "data" / "mnist")
    return environment


@pytest.fixture(scope="module")
def definitions():
    def told(**environment):
        command = [sys.executable, "-c", DEFINITIONS, str(RESULTS)]
        environment |= mnist()
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return told


@pytest.fixture(scope="module")
def here(definitions):
    return definitions()


@pytest.mark.parametrize("prefixes", [("AVX512", "X86_V4"), ("",)], ids=["512 bits", "all"])
def test_other_code_of_numpy_changes_nothing(prefixes, here, definitions):
    assert definitions(**without(*prefixes)) == here


def test_committed_files_are_complete_under_todays_presets(here):
    files = here[-1]
    assert len(files) > 15
    for name, (left, agreements) in files.items():
        assert left in (0, "no MNIST here"), name
        assert agreements != [], name


def small(**changes):
    options = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 3.0], "width": 12, "steps": 60}
    return gf.preset("addition-classification").grid(**(options | {"stop": "never"} | changes))


def elsewhere(grid, ulps=3):
    """The grid as another machine's arithmetic would have made it."""

    def moved(value):
        for _ in range(ulps):
            value = math.nextafter(value, math.inf) if value else value
        return value

    axes = {path: [moved(v) for v in values] for path, values in grid.axes.items()}
    beta = moved(grid.experiment.optimizer.beta2)
    return grid.grid(**axes, **{"optimizer.beta2": beta})


def run(grid, engine="reference", **options):
    options = {"device": "cpu", "threads": 1, "progress": False} | options
    return gf.run(grid, engine=engine, **options)


def test_a_files_own_values_win(tmp_path):
    out = tmp_path / "a.h5"
    run(small(steps=30), out=out)
    other = elsewhere(small())
    assert other.axes != small().axes
    assert gf.plan(other, out=out, engine="reference", threads=1, device="cpu").left == 4 * 30
    r = run(other, out=out)
    assert r.grid.to_json() == gf.Results.load(out).grid.to_json() == small().to_json()
    straight = run(small())
    for name in straight.variables:
        assert r[name].tobytes() == straight[name].tobytes(), name


def test_values_that_are_further_apart_are_others(tmp_path):
    out = tmp_path / "a.h5"
    run(small(), out=out)
    says = r"lr: 0\.001 -> 0\.00100000000001 \(1 more the same\);"
    with pytest.raises(gf.UsageError, match=says):
        run(small(lr=[0.00100000000001, 1e-2]), out=out)
    with pytest.raises(gf.UsageError, match=r"optimizer\.beta2: 0\.999 -> 0\.99900000001;"):
        run(small(**{"optimizer.beta2": 0.99900000001}), out=out)
    more = run(small(lr=[1e-3, 0.00100000000001, 1e-2]), out=out)
    assert more.axes["lr"] == (1e-3, 0.00100000000001, 1e-2)


def test_neighbouring_values_of_one_axis_stay_apart():
    a, b = 1e-3, math.nextafter(1e-3, 1)
    both, one = small(lr=[a, b]), small(lr=[a])
    assert both.aligned(one).axes["optimizer.lr"] == (a, b)
    assert small(lr=[b, 1e-2]).aligned(both).axes["optimizer.lr"] == (b, 1e-2)
    assert small(lr=b).aligned(one).experiment.optimizer.lr == a
    other_task = gf.preset("mnist-digits")
    assert both.aligned(other_task) is both


@pytest.mark.parametrize("first", [0, 1])
def test_shards_of_two_machines_merge(first, tmp_path):
    files = [tmp_path / "1.h5", tmp_path / "2.h5"]
    for i, grid in enumerate((small(), elsewhere(small())), start=1):
        run(grid, out=files[i - 1], shard=(i, 2))
    merged = merge([files[first], files[1 - first]], tmp_path / "m.h5")
    whole = run(small())
    assert merged["t_train"].tolist() == whole["t_train"].tolist()
    expected = small() if first == 0 else elsewhere(small())
    assert merged.grid.to_json() == expected.to_json()
    assert sorted(set(merged["lr"].tolist())) == list(expected.axes["optimizer.lr"])
    assert gf.plan(small(), out=tmp_path / "m.h5", threads=1, device="cpu").left == 0


def test_machines_of_all_lives_of_a_run_are_listed(tmp_path, monkeypatch):
    """Of a run, of the merge of two, and of that merge extended."""
    import platform

    def on(host, grid, out, shard=None):
        monkeypatch.setattr(platform, "node", lambda: host)
        run(grid, out=out, shard=shard)

    files, out = [tmp_path / "1.h5", tmp_path / "2.h5"], tmp_path / "m.h5"
    on("a", small(steps=30), files[0], (1, 2))
    on("b", small(), files[0], (1, 2))
    on("a", small(), files[0], (1, 2))  # complete: nothing is trained
    (kind,) = machines(gf.Results.load(files[0]).provenance)
    assert kind["hosts"] == ["a", "b"]
    assert kind["engine"] == "reference"
    assert "isa" in facts.read(kind["engine_detail"])
    on("c", small(), files[1], (2, 2))
    merge(files, out)
    on("d", small(steps=80), out)
    (kind,) = machines(gf.Results.load(out).provenance)
    assert kind["hosts"] == ["a", "b", "c", "d"]


def test_a_merged_file_of_other_bits_is_complete_and_is_not_gone_on_with(tmp_path, capsys):
    from grokfast.cli import main

    files, out = [tmp_path / "1.h5", tmp_path / "2.h5"], tmp_path / "m.h5"
    for i, engine in enumerate(("reference", "compiled"), start=1):
        run(small(), out=files[i - 1], shard=(i, 2))
        part = gf.Results.load(files[i - 1])
        (kind,) = machines(part.provenance)
        part.provenance |= {"engine": engine, "machines": [kind | {"engine": engine}]}
        part.save(files[i - 1])
    says = r"the shards differ in what decides the bits \(engine reference and compiled\)"
    with pytest.warns(UserWarning, match=says):
        assert main(["merge", *map(str, files), f"--out={out}"]) == 0
    assert main(["info", str(out)]) == 0
    assert "other bits each (engine reference and compiled)" in capsys.readouterr().out
    for engine in ("auto", "reference", "compiled"):
        assert gf.plan(small(), out=out, engine=engine, device="cpu", threads=1).left == 0
    extend = r"by reference and compiled on cpu, not .*; .* extend its shards and merge them again"
    for engine in ("auto", "reference"):
        with pytest.raises(gf.UsageError, match=extend):
            gf.plan(small(steps=80), out=out, engine=engine, device="cpu", threads=1)


def test_shards_trained_on_other_data_do_not_merge(tmp_path, monkeypatch):
    import dataclasses

    from grokfast.tasks import Addition

    files = [tmp_path / "1.h5", tmp_path / "2.h5"]
    run(small(), out=files[0], shard=(1, 2))
    build = Addition.build
    monkeypatch.setattr(
        Addition, "build", lambda t: dataclasses.replace(d := build(t), y_train=d.y_train.flip(0))
    )
    run(small(), out=files[1], shard=(2, 2))
    with pytest.raises(gf.UsageError, match=r"1\.h5 and .*2\.h5 were trained on different data"):
        merge(files, tmp_path / "m.h5")


def test_info_prints_what_can_be_pasted_back(tmp_path, capsys):
    from grokfast.cli import main

    out = str(tmp_path / "a.h5")
    axes = {"lr": list(gf.preset("mnist-original").axes["optimizer.lr"][1:4]), "task.p": [5, 6]}
    axes["optimizer.encoder_weight_decay"] = [None, 0.1]
    run(small(**axes, weight_decay=1.0, steps=2), out=out)
    assert main(["info", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    options = [line.split()[1] for line in lines if line.startswith("axis ")]
    assert options[0].startswith("--lr=4.641588833612782e-06,2.1544346900318823e-05,")
    fixed = ["--weight-decay=1", "--set=model.width=12", "--steps=2", "--stop=never"]
    command = ["run", "addition-classification", *fixed, *options, f"--out={out}"]
    assert main([*command, "--threads=1"]) == 0
    assert f"{out} is complete" in capsys.readouterr().err


# What decides the bits.


def test_facts_are_read_as_they_were_listed():
    detail = facts.listed({"level": "avx2", "gpu": "NVIDIA H100 80GB HBM3", "threads": 2})
    known = {"level": ("avx2",), "gpu": ("NVIDIA H100 80GB HBM3",), "threads": ("2",)}
    assert facts.read(detail) == known
    assert facts.read("") == {}
    # Of a merged file: each value once.
    assert facts.read("level avx2, draws a, level avx512, draws a") == {
        "level": ("avx2", "avx512"),
        "draws": ("a",),
    }


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        ("level avx2", "level avx2, draws a", []),  # an older file tells less
        ("level avx2", "level avx512, draws a", ["level"]),
        ("level avx2, draws a", "level avx2, draws b", ["draws"]),
        ("level avx2, level avx512", "level avx512", ["level"]),
        ("sm_90, triton 3.6.0", "capability sm_90, triton 3.6.0", ["sm_90"]),
        ("", "level avx2", []),
    ],
)
def test_facts_that_no_longer_hold(was, now, changed):
    assert facts.broken(facts.read(was), facts.read(now)) == changed


@pytest.mark.parametrize("name", [n for n in ENGINE_NAMES if n != "auto"])
def test_every_engine_tells_its_facts_the_same_way_twice(name):
    try:
        one, two = (make_engine(name, "cpu", threads=2) for _ in range(2))
    except gf.EnvironmentProblem as error:
        pytest.skip(str(error))
    known = facts.read(one.detail)
    assert one.detail == two.detail == facts.listed({k: v[0] for k, v in known.items()})
    assert "draws" in known
    if name in ("reference", "compiled"):
        assert known["threads"] == ("2",)
        assert known["isa"] == (torch.backends.cpu.get_cpu_capability(),)
        assert {"torch", "arithmetic"} <= set(known)


def told_elsewhere(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_digests_tell_code_apart_that_has_no_name():
    """Of the same processor: torch's code without AVX2, MKL's for every processor."""
    code = (
        "import torch; from grokfast.engines import facts;"
        "print(facts.draws(), facts.arithmetic(torch.device('cpu'), 1), facts.libm())"
    )
    draws, arithmetic, libm = told_elsewhere(code)
    assert told_elsewhere(code) == [draws, arithmetic, libm]
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        plain = told_elsewhere(code, ATEN_CPU_CAPABILITY="default")
        assert plain[0] != draws and plain[1] != arithmetic and plain[2] == libm
    if torch.backends.mkl.is_available():
        other = told_elsewhere(code, MKL_CBWR="COMPATIBLE")
        assert other[0] == draws and other[1] != arithmetic


def test_compiled_code_is_not_kept_for_another_instruction_set(tmp_path):
    """Inductor's folder of compiled code may be shared by machines; its keys do not tell."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has one instruction set")
    code = (
        "import torch; from grokfast.engines.lockstep_compile import compiled_arithmetic;"
        "print(compiled_arithmetic(torch.device('cpu')))"
    )
    shared = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    (plain,) = told_elsewhere(code, ATEN_CPU_CAPABILITY="default", **shared)
    (own,) = told_elsewhere(code, **shared)
    if "None" in (plain, own):
        pytest.skip("torch.compile does not work here")
    assert plain != own


ONCE_MORE = """
import sys, grokfast as gf
from grokfast.engines.compiled import CompiledEngine
CompiledEngine.eager = True
grid = gf.preset("addition-classification").grid(
    lr=1e-2, weight_decay=0.0, width=12, steps=int(sys.argv[3]), stop="never")
try:
    gf.run(grid, out=sys.argv[1], engine=sys.argv[2], device="cpu", threads=1, progress=False)
except gf.UsageError as error:
    sys.exit(f"{error}|{error.hint}")
"""


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_another_instruction_set_of_torch_is_refused(engine, tmp_path):
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has one instruction set")

    def once(steps, **environment):
        command = [sys.executable, "-c", ONCE_MORE, str(tmp_path / "a.h5"), engine, str(steps)]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)

    plain = {"ATEN_CPU_CAPABILITY": "default"}
    assert once(20, **plain).returncode == 0
    assert once(20).returncode == 0, "nothing to train: nothing to refuse"
    refused = once(40)
    assert refused.returncode == 1
    assert f"was trained by {engine} on cpu (isa DEFAULT, " in refused.stderr
    assert f"not {engine} on cpu (isa {torch.backends.cpu.get_cpu_capability()}, " in refused.stderr
    assert "|give ATEN_CPU_CAPABILITY=default" in refused.stderr
    assert once(40, **plain).returncode == 0, "what the hint says helps"


def test_another_number_of_threads_is_refused(tmp_path):
    """Torch's own products sum up in another order (measured: other weights of mnist-digits)."""
    out = tmp_path / "a.h5"
    run(small(steps=20), out=out, threads=1)
    with pytest.raises(gf.UsageError, match=r"reference on cpu \(threads 1.*\), not .*threads 2"):
        run(small(steps=40), out=out, threads=2)
    with pytest.raises(gf.UsageError) as refused:
        gf.plan(small(steps=40), out=out, threads=2, device="cpu")
    assert refused.value.hint == "give --threads=1, or another --out"


def test_compiled_and_eager_code_are_not_mixed(tmp_path, monkeypatch):
    from grokfast.engines.compiled import CompiledEngine

    out = tmp_path / "a.h5"
    monkeypatch.setattr(CompiledEngine, "eager", True)
    run(small(steps=20), "compiled", out=out)
    assert "code eager" in gf.Results.load(out).provenance["engine_detail"]
    monkeypatch.setattr(CompiledEngine, "eager", False)
    monkeypatch.setattr("grokfast.engines.compiled.compiled_arithmetic", lambda device: "1234abcd")
    with pytest.raises(gf.UsageError, match=r"\(code eager, .*\), not .*\(code compiled, ") as no:
        run(small(steps=40), "compiled", out=out)
    assert "TORCHDYNAMO_DISABLE=1" in no.value.hint


def test_what_cannot_be_compiled_is_not_trained_eagerly(monkeypatch):
    """Where compiling works: else cells of one run would have two kinds of code."""
    from grokfast.engines import lockstep_compile

    def fails(*_):
        raise lockstep_compile._COMPILER_ERRORS[0]("no such\nthing")

    for module in ("compiled", "lockstep_compile"):
        works = f"grokfast.engines.{module}.compiled_arithmetic"
        monkeypatch.setattr(works, lambda device: "1234abcd")
    monkeypatch.setattr(lockstep_compile, "compiled", lambda run, *_, **__: fails)
    with pytest.raises(gf.EnvironmentProblem, match=r"cannot compile this experiment \(no such\)"):
        run(small(steps=20), "compiled")


def test_files_that_tell_less_go_on(tmp_path):
    """As those of grokfast before it kept facts."""
    for detail, engine in (("", "reference"), ("threads 1", "reference"), ("level {}", "native")):
        out = tmp_path / "a.h5"
        out.unlink(missing_ok=True)
        if engine == "native":
            detail = detail.format(pytest.importorskip("grokfast._native").levels()["active"])
        run(small(steps=20), engine, out=out)
        r = gf.Results.load(out)
        r.provenance["engine_detail"] = detail
        r.save(out)
        options = {"out": out, "engine": engine, "threads": 1, "device": "cpu"}
        unknown = gf.plan(small(steps=40), **options).engine.partition("does not tell its ")[2]
        assert unknown.endswith("draws") and facts.read(detail).keys().isdisjoint(
            unknown.split(", ")
        )
        r = run(small(steps=40), engine, out=out)
        assert r["steps_done"].tolist() == [40] * 4


def test_what_differs_is_said_in_short():
    lr = list(np.linspace(1, 2, 40))
    for old, new, says in (
        (lr, lr[1:], "1.0 -> nothing (39 more the same)"),
        (lr[:2], lr[:2][::-1], "the same values, arranged in another way"),
        (lr[:1], [0.5], "1.0 -> 0.5"),
    ):
        assert small(lr=old).difference(small(lr=new)) == {"lr": says}
    many = small(lr=lr).difference(small(lr=[5.0]))["lr"]
    assert many.endswith(" and 34 more -> 5.0")
