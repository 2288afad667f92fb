"""The commands on real files: a tiny run from end to end, and what they say about bad input."""

import csv
import importlib.util
import json
import re
import shlex
import shutil
import subprocess

import pytest

from grokfast.cli import main
from grokfast.cli.commands import COMMANDS
from grokfast.figures import KINDS
from grokfast.presets import PRESETS

SMALL = ("--set=model.width=8", "--steps=30", "--lr=1e-3,1e-2", "--weight-decay=0,5")
#: The native engine starts fastest; the reference is always there.
ENGINE = "native" if importlib.util.find_spec("grokfast._native") else "reference"
RUN = ("run", "addition-classification", f"--engine={ENGINE}", "--device=cpu", *SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The file of a small finished run, made in process."""
    import grokfast as gf

    grid = gf.preset("addition-classification").grid(
        lr=[1e-3, 1e-2], weight_decay=[0.0, 5.0], width=8, steps=30
    )
    path = tmp_path_factory.mktemp("run") / "r.h5"
    gf.run(grid, out=path, engine=ENGINE, device="cpu", progress=False)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The empty working directory, for commands in process: each import of torch takes seconds."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_trains_says_what_came_out_and_what_to_type_next(here, capsys):
    assert main([*RUN]) == 0
    assert (here / "addition-classification.h5").exists()
    out, err = capsys.readouterr()
    assert out.startswith("4 cells: comprehension 0, grokking 0, memorization ")
    for command in ("plot", "info", "export"):
        assert f"grokfast {command} addition-classification.h5" in out
    assert f"{ENGINE} on cpu" in err, "logs go to stderr"
    assert "\r" not in err, "no bar without a terminal"


def test_what_is_said_is_of_use_for_a_single_cell(here, capsys):
    one = (*RUN, "--lr=1e-3", "--weight-decay=0")
    one = [w for w in one if w not in ("--lr=1e-3,1e-2", "--weight-decay=0,5")]
    assert main([*one]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 cell: ")
    assert "next: grokfast plot addition-classification.h5 --kind=curves\n" in out
    assert main([*one, "--record=none", "--out=b.h5"]) == 0
    assert "next: grokfast info b.h5\n" in capsys.readouterr().out
    assert main(["merge", "b.h5", "--out=c.h5"]) == 0
    assert capsys.readouterr().out.startswith("1 cell of 1 file, in c.h5: ")


def test_saving(here, capsys):
    """How often is an option and said; a checkpoint is kept unless it is not wanted."""
    assert main([*RUN, "--save-every=7"]) == 0
    says = "saved every 7 s to addition-classification.h5, with addition-classification.h5.ckpt "
    assert says in capsys.readouterr().err
    assert main([*RUN, "--stop=never", "--no-checkpoint", "--out=b.h5"]) == 0
    assert "saved every 30 s to b.h5\n" in capsys.readouterr().err
    assert not (here / "b.h5.ckpt").exists()
    (here / "addition-classification.h5.ckpt").touch()
    for file, says in (
        ("b.h5", "no checkpoint: a larger budget is trained from the first step"),
        ("addition-classification.h5", ".h5.ckpt: for a larger budget; else it may be deleted"),
    ):
        assert main(["info", file]) == 0
        assert says in capsys.readouterr().out


def test_shards_and_merge(grokfast, here, capsys):
    names = [f"addition-classification.shard-{i}-of-2.h5" for i in (1, 2)]
    assert [main([*RUN, f"--shard={i}/2"]) for i in (1, 2)] == [0, 0]
    assert all((here / name).exists() for name in names)
    assert "merge addition-classification.shard-*-of-2.h5" in capsys.readouterr().out
    assert main([*RUN, "--shard=1/2", "--out=a b.shard-1-of-2.h5"]) == 0
    assert "merge 'a b.shard-'*-of-2.h5 --out='a b.h5'" in capsys.readouterr().out
    assert main([*RUN, "--shard=1/2", "--out=c.{shard}.h5"]) == 0
    assert (here / "c.1-of-2.h5").exists()
    assert "merge c.*-of-2.h5 --out=c.h5" in capsys.readouterr().out
    merged = grokfast("merge", *names, "--out=all.h5")
    assert merged.code == 0
    assert not merged.imported_torch
    assert "4 cells of 2 files, in all.h5" in merged.out
    again = grokfast("merge", *names, "--out=all.h5")
    assert again.code == 2
    assert "all.h5 exists" in again.error


def test_dry_run_shows_everything_and_writes_nothing(grokfast):
    done = grokfast(*RUN, "--dry-run", "--shard=1/2")
    assert (done.code, done.written) == (0, []), done.err
    for line in (
        "cells    4 = lr 2 x weight_decay 2",
        "axis     lr: 0.001, 0.01",
        "  model.width = 8",
        "shard    1/2: 2 of the 4 cells",
        f"engine   {ENGINE} on cpu",
        "memory ",
        "disk ",
        "rate ",
        "time ",
        "out      addition-classification.shard-1-of-2.h5",
    ):
        assert line in done.out


def test_dry_run_of_a_run_that_goes_on(here, capsys):
    assert main([*RUN, "--stop=never", "--shard=1/2", "--out=a.h5"]) == 0
    before = (here / "a.h5").read_bytes()
    for options, says in (
        ((), "(exists: the run would continue it; 60 of 120 model-steps are left)"),
        (("--overwrite",), "(exists: the run would overwrite it)"),
        (("--shard=1/2",), "(exists and is complete: nothing would be done)"),
    ):
        capsys.readouterr()
        assert main([*RUN, "--stop=never", "--out=a.h5", "--dry-run", *options]) == 0
        assert f"out      a.h5 {says}\n" in capsys.readouterr().out
    assert main([*RUN, "--dtype=float64", "--out=a.h5", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert "time " in out and "memory " in out, "the estimate is of use all the same"
    assert "out      a.h5 (exists: the run would end before any work)" in out
    assert "a.h5 belongs to another run" in err
    assert (here / "a.h5").read_bytes() == before


def test_info(grokfast, finished):
    done = grokfast("info", finished)
    assert done.code == 0
    assert not done.imported_torch
    assert "addition-classification, complete" in done.out
    assert "axis      --lr=0.001,0.01\n" in done.out
    data = json.loads(grokfast("info", finished, "--json").out)
    assert data["complete"] is True
    assert data["progress"] == 1.0
    assert sum(data["phases"].values()) == data["cells"] == 4
    assert data["axes"] == {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 5.0]}
    assert data["provenance"]["engine"] == ENGINE


def test_info_of_a_run_that_has_stopped(here, capsys):
    """What has begun is running only as long as somebody trains it."""
    from grokfast.results import RUNNING, Results
    from grokfast.storage.locks import locked

    assert main([*RUN, "--stop=never", "--no-checkpoint", "--out=a.h5"]) == 0
    results = Results.load("a.h5")
    results.complete = False
    results["status"][0], results["steps_done"][0] = RUNNING, 12
    results["phase"][0] = -1
    results.save("a.h5")
    capsys.readouterr()
    assert main(["info", "a.h5"]) == 0
    out = capsys.readouterr().out
    assert "incomplete: the same grokfast run goes on with it" in out
    assert "cells     4: unfinished 1, ok 3" in out
    assert "no checkpoint: what is unfinished is trained from the first step" in out
    with locked(here / "a.h5"):
        assert main(["info", "a.h5"]) == 0
        out = capsys.readouterr().out
        assert "being written by a run (pid " in out
        assert "cells     4: running 1, ok 3" in out
        assert main(["info", "a.h5", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["writer"].startswith("pid ")


def test_crossings_of_further_thresholds(here, capsys):
    more = "--set=evaluation.thresholds=0.5+1.0"
    assert main([*RUN, more, "--stop=never", "--out=a.h5"]) == 0
    assert main(["export", "a.h5", "--out=a.csv"]) == 0
    with (here / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    capsys.readouterr()
    assert main(["info", "a.h5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["crossings"]
    assert list(said) == ["t_train_0.5", "t_val_0.5", "t_train_1.0", "t_val_1.0"]
    for name, one in said.items():
        reached = [int(row[name]) for row in rows if row[name] != "NA"]
        assert (one["cells"], one["reached"]) == (len(rows), len(reached))
    assert main(["info", "a.h5"]) == 0
    assert f"crossing  t_train_0.5: {said['t_train_0.5']['reached']} of {len(rows)} cells" in (
        capsys.readouterr().out
    )


def test_export(grokfast, finished):
    done = grokfast("export", finished, "--out=a b.csv")
    assert (done.code, done.out, done.written) == (0, "a b.csv\n", ["a b.csv"])
    assert not done.imported_torch
    assert "exists" in grokfast("export", finished, "--out=a b.csv").error
    assert grokfast("export", finished, "--out=a b.csv", "--overwrite").code == 0
    table = grokfast("export", finished, "--out=-")
    assert (table.code, table.err, table.written) == (0, "", ["a b.csv"])
    assert len(list(csv.DictReader(table.out.splitlines()))) == 4
    assert "or give - for CSV on standard output" in grokfast("export", finished, "--out=x").error
    data = grokfast("data", "export", "addition-regression", "--out=-")
    assert data.out.startswith("split,x0,x1,label,corrupted\ntrain,")


def test_agree(grokfast, finished, tmp_path):
    reference = {
        "diagrams": [
            {
                "task": "addition-classification", "learning_rate": [1e-3], "weight_decay": [0, 5],
                "phases": ["F", "C"],
            }
        ]
    }  # fmt: skip
    (tmp_path / "ref.json").write_text(json.dumps(reference))
    done = grokfast("agree", finished, "ref.json")
    assert done.code == 0, done.err
    assert not done.imported_torch
    assert "cells in common: 2 of 2" in done.out
    assert "note: width is 8, published 200" in done.out
    (data,) = json.loads(grokfast("agree", finished, "ref.json", "--json").out)
    assert data["phases"]["overall"]["of"] == 2
    (tmp_path / "ref.json").write_text("{}")
    assert "is no table" in grokfast("agree", finished, "ref.json").error
    done = grokfast("agree", finished, finished)
    assert re.search(r"same phase, overall +4 of 4 +100.0%", done.out)
    assert "compared with: addition-classification\n" in done.out
    assert "there / here" in done.out
    assert "published" not in done.out, "two files of one's own"
    assert "source: Shabalin" in grokfast("agree", finished).out


def test_presets(grokfast, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = grokfast("presets")
    assert done.code == 0
    assert not done.imported_torch
    rows = {row["name"]: row for row in json.loads(grokfast("presets", "--json").out)}
    assert set(rows) == set(PRESETS)
    for name, row in rows.items():
        assert {"cells", "steps", "model_steps", "title", "source"} <= set(row)
        assert f"{name} " in done.out
        assert f"  {row['title']}\n" in done.out
    # Budgets may differ by cell: 289 cells of each batch size.
    minibatch = rows["modular-minibatch"]
    assert minibatch["steps"] == 64000
    assert minibatch["model_steps"] == 289 * (64000 + 8000 + 2000 + 2000)


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_what_is_printed_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["--help"], ["presets"], ["fields"], *([c, "--help"] for c in COMMANDS)):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        # A word that is longer stands alone: a placeholder, an option of an example.
        long = [line for line in lines if len(line) > columns and " " in line.strip(" \\")]
        assert not long, arguments


def test_an_example_in_the_help_can_be_pasted(monkeypatch, capsys):
    from grokfast.cli.helptext import FIRST_RUN

    monkeypatch.setenv("COLUMNS", "50")
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert f" {FIRST_RUN[0]}\n" in re.sub(r" \\\n +", " ", out)


@pytest.mark.parametrize("kind", KINDS)
def test_the_help_of_plot_names_every_kind(kind):
    told = COMMANDS["plot"].__doc__
    assert re.search(rf"\b{kind} \(|\b{kind} and|and {kind}\b", " ".join(told.split())), kind


def test_doctor(grokfast):
    done = grokfast("doctor", "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert data["engines"]["reference"].startswith("yes")
    assert set(data["engines"]) == {"reference", "compiled", "native", "triton"}
    assert all(version for version in data["versions"].values())
    assert {"machine", "compilers", "gpu", "data"} <= set(data)
    assert data["support"]["precision tf32x3"] == "triton"


def test_an_unknown_instruction_set(grokfast):
    """A run never falls back to a slower engine for it."""
    level = {"GROKFAST_NATIVE_LEVEL": "mmx"}
    done = grokfast("run", "addition-classification", "--steps=1", **level)
    assert (done.code, done.written) == (2, [])
    assert done.error.startswith("GROKFAST_NATIVE_LEVEL: got 'mmx', expected one of")
    data = json.loads(grokfast("doctor", "--json", **level).out)
    assert data["engines"]["native"].startswith("no: GROKFAST_NATIVE_LEVEL: got 'mmx'")
    assert data["engines"]["compiled"].startswith("yes")


def test_data(grokfast, tmp_path):
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "GROKFAST_DATA": ""}
    done = grokfast("data", "path", **nowhere)
    assert done.code == 3
    assert "MNIST is not on this machine" in done.error
    assert "grokfast data fetch downloads it" in done.error
    assert not done.imported_torch
    assert "did you mean fetch?" in grokfast("data", "fetsch").error
    (tmp_path / "d").mkdir()
    done = grokfast("data", "verify", "--data-dir=d")
    assert done.code == 3
    assert done.out.count("missing") == 4


def test_real_data(grokfast, shared):
    folder = shared / "data" / "mnist"
    done = grokfast("data", "verify", f"--data-dir={folder}")
    assert (done.code, done.out.count(": ok\n")) == (0, 4)
    assert grokfast("data", "path", f"--data-dir={folder}").out == f"{folder}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(grokfast, shell):
    done = grokfast("completion", shell)
    assert done.code == 0
    assert not done.imported_torch
    assert "optimizer.beta2=" in done.out
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.out, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
    assert "there are bash, zsh, fish" in grokfast("completion", "tcsh").error


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ru", "run"),
        ("run addition-r", "addition-regression"),
        ("run x --engi", "--engine="),
        ("run x --no", "--no-checkpoint"),
        ("run x --engine = na", "native"),
        ("run x --engine na", "native"),
        ("run x --engine=na", "--engine=native"),
        ("run x --set = optimizer.be", "optimizer.beta1= optimizer.beta2="),
        ("run x --set = task.p = 3,batch_", "3,batch_size="),
        ("run x --record = weights,no", "weights,norms weights,none"),
        ("run x --dry-run --engi", "--engine="),
        ("plot ", "folder r.h5"),
        ("plot r.h5 --kind = smo", "smooth"),
        ("plot r.h5 --out = r", "r.h5 r.png"),
        ("plot r.h5 --over = model_s", "model_seed"),
        ("merge r.h5 f", "folder"),
        ("run x --data-dir = ", "folder"),
        ("data fe", "fetch"),
        ("completion f", "fish"),
    ],
)
def test_what_bash_is_offered(typed, offered, here, capsys):
    (here / "folder").mkdir()
    for name in ("r.h5", "r.png"):
        (here / name).touch()
    assert main(["completion", "bash"]) == 0
    words = " ".join(map(shlex.quote, ["grokfast", *typed.split(" ")]))
    test = (
        f"COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); "
        '_grokfast 2>/dev/null; echo "${COMPREPLY[*]}"'
    )
    told = subprocess.run(
        ["bash", "-c", capsys.readouterr().out + test], capture_output=True, text=True
    )
    assert told.stdout == f"{offered}\n", told.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plot", "FILE", "--kind=phasse"], "did you mean phases?"),
        (["plot", "FILE", "--out=x.jpg"], "end its name in .png, .pdf, .svg"),
        (["plot", "FILE", "--out=no/x.png"], "no such folder: no"),
        (["plot", "FILE", "--cell=lrr:1"], "unknown axis 'lrr'"),
        (["plot", "FILE", "--cell=lr"], "'lr' is not axis:value"),
        (["plot", "FILE", "--where=lr"], "--where='lr': 'lr' is not axis:value"),
        (["plot", "FILE", "--where=lrr:1"], "--where: unknown axis 'lrr'; did you mean lr?"),
        (["plot", "FILE", "--where=model_seed:0"], "'model_seed' is no axis of these results"),
        (["plot", "FILE", "--where=lr:7"], "lr 7 is beyond the run's"),
        (["plot", "FILE", "--rule=gap"], "unknown phase rule 'gap'; known are delay"),
        (["plot", "FILE", "--rule=gap:"], "'gap:' is not field:value"),
        (["plot", "FILE", "--rule=gapp:5"], "rule delay has no 'gapp'; it has threshold"),
        (["plot", "FILE", "--rule=gap:x"], "phase.gap='x' is not a whole number"),
        (["plot", "FILE", "--rule=gap:-5"], "phase.gap is -5; give a finite value"),
        (["plot", "FILE", "--rule=threshold:0.95"], "T_train and T_val cannot be read anew"),
        (["plot", "FILE", "--size=8"], "size '8' is no width and height; give 8.5x6cm"),
        (["plot", "FILE", "--size=1x1cm"], "a side has 1 to 60 inches"),
        (["plot", "FILE", "--size=1x1in", "--out=x.png"], "too small for this figure"),
        (["plot", "FILE", "--dpi=0"], "--dpi='0' is no whole number from 1 to 10000"),
        (["plot", "FILE", "--dpi=72", "--out=x.pdf"], "pdf has no dots, so no dpi; png has"),
        (["plot", "FILE", "--title=$\\frac{$"], "is no mathtext"),
        (["plot", "FILE", "--title=Phas\udce9"], "title is 'Phas\\udce9'; give text in UTF-8"),
        (
            ["plot", "FILE", "--kind=curves", "--cell=lr:7,weight_decay:0"],
            "lr 7 is beyond the run's",
        ),
        (["plot", "FILE", "--budget=-3"], "--budget='-3' is no whole number"),
        (["export", "FILE", "--out=x.xlsx"], "cannot tell the format of x.xlsx"),
        (["export", "FILE", "--out=x.nc", "--long"], "leave out --long"),
        (["agree", "FILE", "nowhere.json"], "no such file: nowhere.json"),
        (["run", "addition-regression", "--out=."], "--out=. is a folder"),
        (["run", "addition-regression", "--data-dir=x"], "reads no files"),
        (["run", "addition-regression", "--shard=5/3"], "shard 5/3"),
        (
            ["run", "addition-regression", "--shard=0/3"],
            "no shard 0/3; shards are counted from 1: 1/3 to 3/3",
        ),
        (["run", "addition-regression", "--out=a.{shard}.h5"], "there is no --shard"),
        (["run", "addition-regression", "--lr=1", "--weight-decay=1", "--shard=1/3"], "no cells"),
        (["run", "addition-regression", "--engine=natve"], "did you mean native?"),
        (["run", "addition-regression", "--device=tpu"], "give auto, cpu, cuda or cuda:N"),
        (["run", "addition-regression", "--threads=0"], "--threads='0'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_before_any_work(grokfast, finished, arguments, says):
    done = grokfast(*(finished if a == "FILE" else a for a in arguments))
    assert says in done.error
    assert (done.code, done.written, done.imported_torch) == (2, [], False)


def test_a_file_that_is_no_results_file(grokfast, tmp_path):
    (tmp_path / "runs.h5").write_text("no hdf5")
    for command in (["info", "runs.h5"], ["export", "runs.h5", "--out=x.csv"]):
        done = grokfast(*command)
        assert "runs.h5 is no readable HDF5 file" in done.error
        assert done.code == 2
    assert "did you mean runs.h5?" in grokfast("info", "rums.h5").error


@pytest.mark.parametrize(
    ("name", "expected"), [("a/r.h5", "a/r.png"), ("lr0.5", "lr0.5.png"), ("r.hdf5", "r.png")]
)
def test_default_names_beside_a_file(name, expected):
    from pathlib import Path

    from grokfast.cli.reading import beside

    assert str(beside(Path(name), ".png")) == expected


def test_the_help_of_plot_is_whole_and_says_how_to_switch_off(here, capsys):
    assert main(["plot", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the phases anew without training. A new threshold must be one" in told
    assert "the run's evaluation.thresholds. --cell=" in told, "no line was taken for an argument"
    assert "--no-caption Leave out the footnote. --no-legend" in told
    assert "Default: True" not in told


def test_plot_hands_over_what_was_asked_for(monkeypatch, here, capsys, finished):
    """The drawing itself is tested with the figures."""
    import sys
    import types

    calls, more = [], []

    def draw(results, kind, *, cells, out, budget, over, x, y, **options):
        calls.append((len(results), kind, cells, str(out), budget))
        more.append((over, x, y, options))
        return [out]

    monkeypatch.setitem(sys.modules, "grokfast.figures.drawing", types.SimpleNamespace(draw=draw))
    assert main(["plot", finished]) == 0
    options = ("--kind=curves", "--cell=lr:1e-3,weight-decay:5", "--cell=lr:0.01;lr:1e-3")
    assert main(["plot", finished, *options, "--budget=1e1", "--out=x.PDF"]) == 0
    default = finished.removesuffix(".h5") + ".phases.png"
    cells = [{"lr": 1e-3, "weight_decay": 5.0}, {"lr": 0.01}, {"lr": 1e-3}]
    assert calls == [(4, "phases", None, default, None), (4, "curves", cells, "x.PDF", 10)]
    assert capsys.readouterr().out == f"{default}\nx.PDF\n"
    assert main(["plot", finished, "--over=model-seed,task.seed", "--x=optimizer.lr"]) == 0
    unset = ("outcome", "band", "until", "epochs", "title", "size", "dpi")
    nothing = dict.fromkeys(unset) | {"caption": True, "legend": True}
    assert more[:2] == [([], None, None, nothing)] * 2
    assert more[2] == (["model_seed", "data_seed"], "lr", None, nothing)
    name = default.replace(".png", ".over-model_seed.over-data_seed.png")
    assert capsys.readouterr().out == f"{name}\n"
    assert main(["plot", finished, "--kind=lines", "--outcome=t_val_0.99"]) == 0
    assert more[-1] == ([], None, None, nothing | {"outcome": "t_val_0.99"})
    assert capsys.readouterr().out == default.replace("phases", "lines.t_val_0.99") + "\n"
    rest = ("--kind=tsne", "--cell=all", "--band=none", "--until=end", "--epochs=0,14, 500")
    assert main(["plot", finished, *rest]) == 0
    assert calls[-1][2] == "all"
    assert more[-1][3] == nothing | {"band": "none", "until": "end", "epochs": [0, 14, 500]}
    page = ("--title=$x$", "--size=8.5cm", "--dpi=72", "--no-caption", "--no-legend")
    assert main(["plot", finished, *page]) == 0
    told = {"title": "$x$", "size": "8.5cm", "dpi": 72, "caption": False, "legend": False}
    assert more[-1][3] == nothing | told
    capsys.readouterr()
    assert main(["plot", finished, "--where=weight-decay:5", "--rule=gap:7"]) == 0
    assert calls[-1][:2] == (2, "times"), "one axis of numbers is left"
    assert capsys.readouterr().out.endswith(".times.weight-decay-5.gap-7.png\n")
    assert main(["plot", finished, "--where=weight_decay:5,lr:0.01"]) == 0
    assert calls[-1][:2] == (1, "curves")


@pytest.mark.parametrize("epochs", ["1,,2", "-1", "1.5", "all", "9999999999"])
def test_epochs_to_plot_are_whole_numbers(epochs, finished, capsys):
    assert main(["plot", finished, "--kind=density", f"--epochs={epochs}"]) == 2
    assert "is no whole number of 0 or more" in capsys.readouterr().err
