"""Blocks of a grid, and the driver with workers in this process; tests/ray has Ray itself."""

import contextlib
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from small_runs import assert_same_arrays, run, small

import grokfast as gf
from grokfast import cluster, trainer
from grokfast.checkpoint import load_checkpoint
from grokfast.cluster import driver, extensions, task
from grokfast.cluster.blocks import blocks, operations, strides
from grokfast.cluster.engine import Lost, Machine
from grokfast.storage.files import checkpoint_path, parts_folder

NATIVE = pytest.mark.usefixtures("_native")


@pytest.fixture
def _native():
    pytest.importorskip("grokfast._native")


class Workers:
    """A cluster of so many workers, each of which trains when it is asked whether it has ended.

    Attributes:
        deaths: how many more tasks end with the death of their worker, before or after training.
    """

    device = "cpu"

    def __init__(self, number=2, deaths=0, levels=("same",)):
        self.number, self.deaths, self.levels = number, deaths, levels
        self.asked = []

    def machines(self):
        return [Machine(f"node{k}", f"host{k}", self.number) for k in range(len(self.levels))]

    def look(self, machines, text, patience):
        told = {}
        for machine, level in zip(machines, self.levels, strict=True):
            answer = json.loads(task.look(text))
            if level != "same":
                answer["kind"]["engine_detail"] = level
            told[machine] = json.dumps(answer)
        return told

    def train(self, text, without):
        self.asked.append(json.loads(text))
        self.without = list(without)
        return len(self.asked) - 1

    def ended(self, references, timeout):
        return list(references)[:1]

    def outcome(self, reference):
        self.deaths -= 1
        if self.deaths >= 0 and self.deaths % 2:
            raise Lost("its process has died")
        told = task.train(json.dumps(self.asked[reference]))
        if self.deaths >= 0:
            raise Lost("its machine has died")
        return told

    def cancel(self, references):
        pass


@pytest.fixture
def trained(monkeypatch):
    """Trains a grid with such workers, all in this process."""
    monkeypatch.setattr(task, "_node", lambda: "node0")

    def train(grid, out, workers=None, **options):
        made = contextlib.nullcontext(workers or Workers())
        monkeypatch.setattr(driver, "connected", lambda *_: made)
        return cluster.run(grid, out=out, progress=False, engine="native", **options)

    return train


def assert_same_files(a, b):
    x, y = gf.Results.load(a), gf.Results.load(b)
    assert_same_arrays(x, y)
    assert x.grid == y.grid and x.complete == y.complete
    ours, theirs = load_checkpoint(checkpoint_path(a)), load_checkpoint(checkpoint_path(b))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert all(np.array_equal(ours[key][n], theirs[key][n]) for n in ours[key])


@pytest.mark.parametrize("sizes", [(), (1,), (7,), (21, 21), (5, 3, 4), (2, 100)])
@pytest.mark.parametrize("workers", [1, 3, 50])
def test_blocks_have_each_cell_once(sizes, workers):
    names = ("optimizer.lr", "optimizer.weight_decay", "model.seed")
    kinds = (float, float, int)
    axes = {
        n: tuple(kind(k + 1) for k in range(size))
        for n, kind, size in zip(names, kinds, sizes, strict=False)
    }
    grid = gf.Grid(experiment=gf.preset("addition-classification").experiment, axes=axes)
    by = strides(grid, workers, 1)
    made = blocks(grid, by)
    assert sorted(c for b in made for c in b.cells) == list(range(grid.size))
    assert len(made) >= min(grid.size, 16 * workers) or grid.size < 16 * workers
    for block in made:
        assert [grid.cells[c] for c in block.cells] == list(block.grid.cells)
    largest, smallest = (f(len(b.cells) for b in made) for f in (max, min))
    assert largest <= 4 * smallest or smallest == 1


def test_blocks_are_no_smaller_than_a_gpu_needs():
    grid = gf.preset("addition-classification")
    assert len(blocks(grid, strides(grid, 8, 264))) == 1
    assert len(blocks(grid, strides(grid, 1, 1))) >= 16


def test_settings_stay_whole():
    two = {"a": {"lr": 1e-3}, "b": {"lr": 1e-3, "steps": 50}}
    grid = small(steps=100).setting("budget", two)
    made = blocks(grid, strides(grid, 9, 1))
    assert len(made) > 1
    assert all(b.grid.axes["budget"] == ("a", "b") for b in made)
    keys = [key for b in made for key in b.grid.keys]
    assert sorted(keys) == sorted(grid.keys)


def test_what_an_engine_must_know_of_a_grid():
    grid = small(activation=["tanh", "relu"], model_seed=[102, 0])
    few = operations(grid)
    assert few.size == 2 and set(few.axes["model.activation"]) == {"tanh", "relu"}


@NATIVE
@pytest.mark.parametrize("workers", [1, 2, 9])
def test_the_same_file_as_of_one_machine(workers, tmp_path, trained):
    grid = small()
    trained(grid, tmp_path / "r.h5", Workers(workers))
    run(grid, out=tmp_path / "s.h5", threads=1)
    assert_same_files(tmp_path / "r.h5", tmp_path / "s.h5")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("r", "."))) == [
        "r.h5",
        "r.h5.ckpt",
    ]
    provenance = gf.Results.load(tmp_path / "r.h5").provenance
    (kind,) = json.loads(provenance["machines"])
    assert kind["hosts"] and "merged_from" not in provenance and "shard_1" not in provenance
    again = trained(grid, tmp_path / "r.h5", Workers(workers))
    assert again.complete


@NATIVE
def test_workers_that_die_again_and_again(tmp_path, trained):
    """Before they have begun, and after they have saved."""
    grid = small()
    trained(grid, tmp_path / "r.h5", Workers(deaths=5))
    run(grid, out=tmp_path / "s.h5", threads=1)
    assert_same_files(tmp_path / "r.h5", tmp_path / "s.h5")


@NATIVE
def test_a_file_is_extended_in_steps_and_cells(tmp_path, trained):
    """Of one machine by many, of many by one, of many by other many."""
    out = tmp_path / "r.h5"
    run(small(steps=100, lr=[1e-2]), out=out, threads=1)
    trained(small(steps=100), out)
    trained(small(steps=300, model_seed=[102, 0]), out, Workers(4))
    run(small(steps=400, model_seed=[102, 0]), out=out, threads=1)
    whole = tmp_path / "s.h5"
    run(small(steps=400, model_seed=[102, 0]), out=whole, threads=1)
    assert_same_files(out, whole)


@NATIVE
def test_parts_of_an_earlier_beginning_are_taken_up(tmp_path, trained, monkeypatch):
    """By more workers, of another grid; and not by a run without them."""
    out = tmp_path / "r.h5"

    class Tired(Workers):
        def outcome(self, reference):
            if reference == 2:
                raise SystemExit
            return super().outcome(reference)

    with pytest.raises(SystemExit):
        trained(small(steps=200), out, Tired(1))
    assert parts_folder(out).is_dir()
    with pytest.raises(gf.UsageError, match=r"its state is in r\.h5\.parts; go on"):
        run(small(steps=200), out=out)
    seen = []
    train = trainer.Trainer._train

    def seeing(self, observer, state):
        seen.append(state.step.tolist())
        train(self, observer, state)

    monkeypatch.setattr(trainer.Trainer, "_train", seeing)
    trained(small(steps=300, model_seed=[102, 0]), out, Workers(20))
    assert sum(step == [200] for step in seen) >= 1, "what was saved is not trained again"
    monkeypatch.setattr(trainer.Trainer, "_train", train)
    whole = tmp_path / "s.h5"
    run(small(steps=300, model_seed=[102, 0]), out=whole, threads=1)
    assert_same_files(out, whole)
    with pytest.raises(SystemExit):
        trained(small(steps=200, lr=[1e-3]), tmp_path / "t.h5", Tired(1))
    run(small(steps=20), out=tmp_path / "t.h5", overwrite=True)
    assert not parts_folder(tmp_path / "t.h5").exists()


@NATIVE
def test_a_run_that_is_stopped_before_it_trains(tmp_path, trained):
    """What it leaves is gone on with, by as many workers and by others."""
    out = tmp_path / "r.h5"

    class Stopped(Workers):
        def train(self, text, without):
            signal.raise_signal(signal.SIGTERM)
            return super().train(text, without)

        def outcome(self, reference):
            return '{"end": "stopped"}'

    for number in (1, 1, 9):
        with pytest.raises(gf.Interrupted):
            trained(small(steps=50), out, Stopped(number))
        r = gf.Results.load(out)
        assert len(r) == 6 and not r.complete and not r["steps_done"].any()
    trained(small(steps=50), out)
    run(small(steps=50), out=tmp_path / "s.h5", threads=1)
    assert_same_files(out, tmp_path / "s.h5")


@NATIVE
def test_blocks_that_fail_are_named_and_tried_again(tmp_path, trained, monkeypatch):
    from grokfast.tasks import Addition

    build, out = Addition.build, tmp_path / "r.h5"
    grid = small(data_seed=[0, 1], lr=1e-2, steps=50)

    def broken(self):
        if self.seed == 1:
            raise OSError("no such file")
        return build(self)

    monkeypatch.setattr(Addition, "build", broken)
    with pytest.raises(cluster.SomeFailed, match="3 of 6 cells could not be trained, cell ") as no:
        trained(grid, out, Workers(3))
    assert no.value.exit_code == 4
    assert "OSError: no such file (test_cluster.py, line " in str(no.value)
    r = gf.Results.load(out)
    failed = [c for entry in json.loads(r.provenance["failed"]) for c in entry["cells"]]
    assert sorted(failed) == r["run"][r["data_seed"] == 1].tolist()
    assert not r.complete and (r["steps_done"] > 0).tolist() == (r["data_seed"] == 0).tolist()
    monkeypatch.setattr(Addition, "build", build)
    trained(grid, out, Workers(3))
    run(grid, out=tmp_path / "s.h5", threads=1)
    assert_same_files(out, tmp_path / "s.h5")


@NATIVE
def test_machines_of_another_kind_are_left_out(tmp_path, trained, capsys):
    out = tmp_path / "r.h5"
    workers = Workers(levels=("same", "level other, libm x, draws y", "same"))
    driver_options = {"out": out, "workers": workers}
    trained(small(steps=20), **driver_options)
    assert workers.without == ["node1"]
    with pytest.raises(gf.UsageError, match=r"has level other, libm x, draws y, not level"):
        trained(small(steps=40), out, Workers(levels=("level other, libm x, draws y",)))
    assert not parts_folder(out).exists()
    assert gf.Results.load(out).complete


def test_files_of_a_users_own_travel(tmp_path, monkeypatch):
    source = tmp_path / "mine_alone.py"
    source.write_text(
        "import grokfast as gf\n@gf.loss('mine-alone', targets=True)\n"
        "def mine(output, label, target):\n    return (output - target).abs().mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine_alone

    folder = tmp_path / "parts"
    folder.mkdir()
    assert extensions.pack(small(), folder) == []
    (name,) = extensions.pack(small(loss="mine-alone"), folder)
    assert (folder / name).read_bytes() == source.read_bytes()
    del sys.modules["mine_alone"]
    extensions.unpack(folder, [name])
    assert sys.modules["mine_alone"] is not mine_alone
    first = sys.modules["mine_alone"]
    extensions.unpack(folder, [name])
    assert sys.modules["mine_alone"] is first
    monkeypatch.setattr(first, "__file__", str(tmp_path / "gone.py"))
    with pytest.raises(gf.UsageError, match="mine_alone registers is in no file"):
        extensions.pack(small(loss="mine-alone"), folder)
    (folder / name).write_text("import no_such_thing")
    del sys.modules["mine_alone"]
    with pytest.raises(gf.EnvironmentProblem, match=r"mine_alone\.py cannot be imported: Module"):
        extensions.unpack(folder, [name])


RUN = ("run", "addition-classification", "--lr=1e-3", "--weight-decay=0", "--steps=2")


def told(tmp_path, *words):
    code = "import sys; sys.modules['ray'] = None; from grokfast.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN, *words], cwd=tmp_path, capture_output=True, text=True
    )
    return done.returncode, done.stderr.strip()


def test_without_ray(tmp_path):
    code, says = told(tmp_path, "--launcher=ray")
    assert code == 3 and len(says.splitlines()) == 1
    assert says.startswith("grokfast: error: --launcher=ray needs Ray, which is not installed")
    assert says.endswith("; pip install 'grokfast[ray]'")
    assert not list(tmp_path.iterdir())
    code, _ = told(tmp_path, "--device=cpu", "--threads=1")
    assert code == 0, "nothing else needs it"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--launcher=dask"], "--launcher=dask is neither none nor ray"),
        (["--address=a:1"], "--address is of a Ray cluster; give --launcher=ray, too"),
        (["--launcher=ray", "--shard=1/1"], "--shard and --launcher=ray exclude each other"),
        (["--launcher=ray", "--device=cuda:1"], "--device=cuda:1 is for one machine"),
    ],
)
def test_options_that_do_not_go_together(words, says, tmp_path):
    code, err = told(tmp_path, *words)
    assert code == 2 and err.startswith(f"grokfast: error: {says}"), err
    assert not list(tmp_path.iterdir())
