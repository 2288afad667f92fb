"""Grids on three local nodes: the same file as of one process, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driving import STORE, assert_same

import grokfast as gf
from grokfast.storage.files import parts_folder

pytest.importorskip("ray", reason="Ray is not installed; make test-ray installs it")
pytest.importorskip("grokfast._native")

TOY = ("run", "addition-classification", "--lr=1e-3,1e-2", "--weight-decay=0,1,10", "--steps=300")
TOY += ("--set=model.width=16", "--record=curves:20,weights,embeddings:50")


def test_three_nodes_write_the_file_of_one_process(world):
    out, err = world.run(*TOY)
    lines = err.splitlines()
    assert lines[0] == "engine: native on cpu (the fastest that supports this experiment)"
    assert lines[1] == "ray: 6 blocks of cells, 3 at a time on 3 machines"
    assert lines[2].startswith("100.0% of 1.80k cell-steps, ") and len(lines) == 3, err
    assert out.startswith("6 cells: ") and "ray" not in out.lower()
    r = assert_same(world.out, world.alone(*TOY, "--threads=1"))
    (kind,) = json.loads(r.provenance["machines"])
    assert kind["hosts"] and kind["engine"] == "native" and "level " in kind["engine_detail"]
    assert r.provenance["launcher"] == "ray"
    left = sorted(p.name for p in world.folder.iterdir() if p.name.startswith(("r.", ".")))
    assert left == ["r.h5", "r.h5.ckpt"]


def test_a_node_and_a_worker_in_a_commit_are_killed(world):
    """One node goes without grace in mid-task, one worker dies between fsync and rename."""
    spare = world.cluster.add_node(num_cpus=1, object_store_memory=STORE)
    world.hold()
    driver = world.start()
    busy = world.busy(4, driver)
    world.cluster.remove_node(spare, allow_graceful=False)
    while all(Path(f"/proc/{pid}").exists() for pid in busy):
        time.sleep(0.1)
    (world.signals / "fault").touch()
    world.release()
    _, err = world.finish(driver)
    assert err.count("goes on elsewhere: its") >= 2, err
    assert not (world.signals / "fault").exists()
    assert_same(world.out, world.alone())


def test_a_killed_driver_goes_on_where_it_was(world):
    """Nothing that was saved is trained twice, counted in model-steps."""
    driver = world.start()
    while len(world.log()) < 10:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    world.hold()
    busy = world.busy(3, driver)
    driver.kill()
    driver.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in busy):  # Ray ends the workers of a dead job
        time.sleep(0.1)
    before, saved = len(world.log()), world.saved()
    assert sum(saved.values()) > 0
    world.release()
    world.run()
    again = world.log()[before:]
    assert again
    for (lr, decay, _), start, _ in again:
        assert start >= saved.get((lr, decay), 0)
    assert_same(world.out, world.alone())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_driver_has_saved_everything(signum, world):
    driver = world.start()
    while len(world.log()) < 5:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    world.hold()
    world.busy(3, driver)
    driver.send_signal(signum)
    _, err = world.finish(driver, 128 + signum)
    assert err.splitlines()[-1] == (
        f"grokfast: interrupted by {signum.name}; saved to {world.out}; the same command goes on"
    )
    partial = gf.Results.load(world.out)
    assert not partial.complete and len(partial) == 9 and partial["steps_done"].sum() > 0
    world.release()
    world.run()
    trained = sum(end - start for _, start, end in world.log())
    r = assert_same(world.out, world.alone())
    assert trained == r["steps_done"].sum(), "every model-step once"


def test_a_task_that_always_fails(world):
    """Others finish; exit code 4; the file says which, and the same command tries again."""
    (world.signals / "broken").write_text("1")
    changes = {"data_seed": [0, 1, 2], "lr": [1e-3, 1e-2], "weight_decay": 1.0}
    _, err = world.run(code=4, **changes)
    last = err.splitlines()[-1]
    assert last.startswith("grokfast: error: 2 of 6 cells could not be trained, cell ")
    assert "RuntimeError: no data for seed 1 (held." in last
    r = gf.Results.load(world.out)
    assert not r.complete
    failed = json.loads(r.provenance["failed"])
    assert sorted(c for entry in failed for c in entry["cells"]) == [
        k for k in range(6) if r["data_seed"][k] == 1
    ]
    assert all("no data for seed 1" in entry["why"] for entry in failed)
    assert (r["status"][r["data_seed"] != 1] >= gf.results.OK).all()
    (world.signals / "broken").unlink()
    trained = len(world.log())
    world.run(**changes)
    assert len(world.log()) > trained
    r = assert_same(world.out, world.alone(**changes))
    assert "failed" not in r.provenance


def test_two_drivers_on_one_output(world):
    world.hold()
    first = world.start()
    world.busy(1, first)
    _, err = world.run(code=2)
    assert "r.h5 is being written by another run (pid " in err
    world.release()
    world.finish(first)
    assert_same(world.out, world.alone())


def test_a_file_of_one_machine_goes_on_and_back(world):
    """More steps and more cells of a plain run by Ray, and the whole of it without."""
    words = [*TOY[:4], *TOY[5:]]
    world.run(*words, "--steps=100", "--threads=1", address="none")
    more = [words[0], words[1], "--lr=1e-3,3e-3,1e-2", *words[3:]]
    world.run(*more, "--steps=200")
    world.run(*more, "--steps=300", "--threads=1", address="none")
    assert_same(world.out, world.alone(*more, "--steps=300", "--threads=1"))


def test_other_work_fills_the_object_store(world):
    """No array passes through it."""
    hog = (
        "import ray, sys, numpy as np; ray.init(address=sys.argv[1], log_to_driver=False);"
        "kept = [ray.put(np.zeros(2**20, np.uint8)) for _ in range(70)];"
        "print('full', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", hog, world.address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert any("full" in line for line in other.stdout)
        world.run(*TOY)
        other.stdin.close()
    assert_same(world.out, world.alone(*TOY, "--threads=1"))


def test_machines_that_cannot_take_part(world, tmp_path):
    """Without grokfast, with another version, or of another instruction set: a line for each."""
    stub = tmp_path / "stub" / "grokfast"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text(
        "import importlib.metadata as m; v = m.version\n"
        "m.version = lambda name: '0.0.9' if name == 'grokfast' else v(name)\n"
    )
    usual = os.environ.get("PYTHONPATH", "")
    worlds = [
        {"PYTHONPATH": f"{stub.parent}:{usual}"},
        {"PYTHONPATH": f"{other}:{usual}"},
        {"GROKFAST_NATIVE_LEVEL": "baseline"},
    ]
    nodes = [
        world.cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars=own)
        for own in worlds
    ]
    try:
        _, err = world.run(*TOY)
    finally:
        for node in nodes:
            world.cluster.remove_node(node)
    told = [line for line in err.splitlines() if line.startswith("ray: without ")]
    assert len(told) == 3, err
    assert any("has no grokfast with --launcher=ray; install the version" in t for t in told)
    assert any("has grokfast 0.0.9, not " in t for t in told)
    level = __import__("grokfast._native")._native.levels()["active"]
    if level != "baseline":
        assert any(
            f"has level baseline, not level {level}: the bits would differ" in t for t in told
        )
    assert_same(world.out, world.alone(*TOY, "--threads=1"))


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("127.0.0.1:9", 3, "no Ray cluster at 127.0.0.1:9: "),
        ("nowhere.invalid:6379", 3, "no Ray cluster at nowhere.invalid:6379: "),
        ("ray://127.0.0.1:10001", 2, "--address=ray://127.0.0.1:10001 is no HOST:PORT; "),
        ("localhost", 2, "--address=localhost is no HOST:PORT; "),
    ],
)
def test_a_wrong_address(address, code, says, world):
    out, err = world.run(*TOY, code=code, address=address)
    assert err.startswith(f"grokfast: error: {says}") and len(err.splitlines()) == 1, err
    assert not out and not world.out.exists() and not parts_folder(world.out).exists()


def test_a_ray_of_this_machine_alone_leaves_nothing(world):
    """Without an address; in a folder of temporary files of its own."""
    place = Path("/tmp") / f"g{os.getpid()}"  # a socket's path is short
    place.mkdir()
    words = [*TOY, f"--out={world.out}", "--launcher=ray"]
    environment = {n: v for n, v in os.environ.items() if n != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "grokfast", *words],
        env=environment | {"TMPDIR": str(place)},
        cwd=world.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())
    place.rmdir()
    assert not [p for p in _commands() if f"{place}/" in p]
    assert_same(world.out, world.alone(*TOY, "--threads=1"))


def _commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
