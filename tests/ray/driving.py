"""Drivers on a cluster of local nodes, and what they have made."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grokfast as gf
from grokfast.checkpoint import load_checkpoint
from grokfast.storage.files import checkpoint_path, parts_folder

STORE = 80 * 2**20
HERE = Path(__file__).parent


class World:
    """Drivers on the cluster, and a folder through which a test speaks to their workers."""

    def __init__(self, cluster, folder, wholes):
        self.cluster, self.folder, self.wholes = cluster, folder, wholes
        self.signals = folder / "signals"
        self.signals.mkdir()
        self.out = folder / "r.h5"
        self.drivers = []

    @property
    def address(self):
        return self.cluster.address

    def start(self, *words, address=None, out=None, signals=None, **changes):
        """A driver as a process: of drive.py, or of the command line with these words."""
        address = address or self.address
        if words:
            command = [sys.executable, "-m", "grokfast", *words, f"--out={out or self.out}"]
            command += ["--launcher=ray", f"--address={address}"] if address != "none" else []
        else:
            script = str(HERE / "drive.py")
            command = [sys.executable, script, str(out or self.out), address, json.dumps(changes)]
        driver = subprocess.Popen(
            command,
            env=os.environ | {"GROKFAST_TEST_FOLDER": str(signals or self.signals)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def finish(self, driver, code=0):
        out, err = driver.communicate()
        assert driver.returncode == code, (driver.returncode, out, err)
        return out, err

    def run(self, *words, code=0, **options):
        return self.finish(self.start(*words, **options), code)

    def alone(self, *words, **changes):
        """The same on one machine, without Ray: once for all tests."""
        name = hashlib.sha256(json.dumps([words, changes]).encode()).hexdigest()[:12]
        out = self.wholes / f"{name}.h5"
        if not out.exists():
            driver = self.start(*words, address="none", out=out, signals=self.wholes, **changes)
            self.finish(driver)
        return out

    def hold(self):
        (self.signals / "hold").touch()

    def release(self):
        (self.signals / "hold").unlink()

    def busy(self, number=1, driver=None):
        """Processes of workers that are in a chunk, once there are so many."""
        while True:
            found = {int(p.name.split(".")[1]) for p in self.signals.glob("busy.*")}
            found = {pid for pid in found if Path(f"/proc/{pid}").exists()}
            if len(found) >= number:
                return found
            assert driver is None or driver.poll() is None, driver.communicate()
            time.sleep(0.1)

    def log(self):
        """What has been trained: (cell, from step, to step)."""
        path = self.signals / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(tuple(a.split()[:3]), *map(int, a.split()[3:])) for a in lines]

    def saved(self):
        """Steps that every cell need not take again, by the parts as they lie there."""
        steps = {}
        for part in parts_folder(self.out).glob("*.h5"):
            r, rows = gf.Results.load(part), load_checkpoint(checkpoint_path(part))
            for k, run in enumerate(r["run"].tolist()):
                cell = repr(float(r["lr"][k])), repr(float(r["weight_decay"][k]))
                ended = int(r["steps_done"][k]) if r["status"][k] >= gf.results.OK else 0
                steps[cell] = int(rows.get(r.grid.keys[run], {"step": ended})["step"])
        return steps


def assert_same(a, b):
    """Two results files with their checkpoints, array for array, byte for byte."""
    x, y = gf.Results.load(a), gf.Results.load(b)
    assert x.grid.to_json() == y.grid.to_json() and x.complete and y.complete
    assert list(x.variables) == list(y.variables)
    for name in x.variables:
        assert x[name].dtype == y[name].dtype, name
        same = x[name].tobytes() == y[name].tobytes()
        assert same if x[name].dtype.kind != "O" else (x[name] == y[name]).all(), name
    for p, q in zip(x.weights, y.weights, strict=True):
        assert all(p[k].tobytes() == q[k].tobytes() for k in p | q)
    ours, theirs = (load_checkpoint(checkpoint_path(Path(p))) for p in (a, b))
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        assert all(row[n].tobytes() == theirs[key][n].tobytes() for n in row | theirs[key]), key
    return x
