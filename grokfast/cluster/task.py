"""What runs on a worker: a look at the machine, and the training of one block.

Both take and give JSON, and are called by name: a worker needs the same grokfast, and nothing of
the driver's.
"""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grokfast.cluster import extensions
from grokfast.cluster.parts import read_json, write_json
from grokfast.errors import EnvironmentProblem, GrokfastError, UsageError
from grokfast.installation import version
from grokfast.progress import Silent

#: Seconds between entries of a diary, at least.
_TELL_EVERY = 2.0
#: Seconds that the last writer of a part may take to die.
_PATIENCE = 60.0


def look(text: str) -> str:
    """What kind of machine this is: the facts that decide the bits of the grid asked for.

    Args:
        text: JSON: ``grid``, ``engine``, ``device``, ``threads``, and ``folder`` with
            ``extensions``.

    Returns:
        JSON: ``host``, ``version``, and ``kind`` with engine, device and their details; or ``why``
        it cannot train this.
    """
    asked = json.loads(text)
    told: dict[str, Any] = {
        "host": socket.gethostname(),
        "version": version(),
    }
    try:
        _see(asked)
        from grokfast.grid import Grid
        from grokfast.preparing import prepare

        grid = Grid.from_dict(asked["grid"])
        options = {name: asked[name] for name in ("engine", "device", "threads")}
        ready = prepare(grid, list(range(grid.size)), None, **options, overwrite=False)
        return json.dumps(told | {"kind": _kind(ready.engine), "choice": ready.why})
    except Exception as error:
        return json.dumps(told | _problem(error))


def _see(asked: dict[str, Any]) -> None:
    """Raises EnvironmentProblem where this machine does not see the folder of the parts."""
    folder = Path(asked["folder"])
    if read_json(folder / "run.json").get("token") != asked["token"]:
        raise EnvironmentProblem(
            f"does not see {folder}", hint="--out must lie on storage that all machines share"
        )
    extensions.unpack(folder, asked["extensions"])


def _kind(engine: Any) -> dict[str, str]:
    from grokfast.provenance import device_name

    return {
        "engine": engine.name,
        "device": engine.device.type,
        "device_name": device_name(engine.device),
        "engine_detail": engine.detail,
    }


def _problem(error: Exception) -> dict[str, Any]:
    """Why something failed; ``final`` where it would do so anywhere."""
    if isinstance(error, GrokfastError):
        return {"why": str(error), "final": isinstance(error, UsageError)}
    at = traceback.extract_tb(error.__traceback__)[-1]
    why = f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"
    return {"why": why, "final": False}


def train(text: str) -> str:
    """Trains a block to its end, or until it is interrupted.

    Args:
        text: JSON as of :func:`look`; ``grid`` is that of the block, ``part`` its results file,
            ``diary`` another, and ``kind`` what the machine must be.

    Returns:
        JSON: ``end`` is ``done``, ``stopped``, ``refused`` (the machine is of another kind) or
        ``failed``; with ``why``.
    """
    asked = json.loads(text)
    told: dict[str, Any] = {"host": socket.gethostname(), "node": _node()}
    try:
        _see(asked)
        return json.dumps(told | _trained(asked))
    except Exception as error:
        return json.dumps(told | {"end": "failed"} | _problem(error))


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _trained(asked: dict[str, Any]) -> dict[str, Any]:
    from grokfast.engines import make_engine
    from grokfast.grid import Grid
    from grokfast.trainer import Interrupted, run

    grid = Grid.from_dict(asked["grid"])
    kind, threads = asked["kind"], asked["threads"]
    here = _kind(make_engine(kind["engine"], kind["device"], threads))
    differing = [name for name in kind if name != "device_name" and here[name] != kind[name]]
    if differing:
        return {"end": "refused", "why": ", ".join(here[name] for name in differing)}
    diary = Diary(Path(asked["diary"]), here)
    try:
        _once_free(
            lambda: run(
                grid,
                out=asked["part"],
                engine=kind["engine"],
                device=kind["device"],
                threads=threads,
                save_every=asked["save_every"],
                progress=diary,
            )
        )
    except Interrupted:
        return {"end": "stopped"}
    return {"end": "done"}


def _once_free(work: Any) -> None:
    """Does it, once the process that had this block before is gone: it dies with its node, but that
    may be told later than it is known."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            work()
            return
        except UsageError as error:
            if "is being written by another run" not in error.message:
                raise
            if time.monotonic() > until:
                raise EnvironmentProblem(error.message) from error
            time.sleep(0.5)


class Diary(Silent):
    """Progress that is told to a file: ``total``, ``done`` and ``counts`` as of the trainer, and of
    every host what it has ``trained`` in how many ``seconds``, in all lives of the block."""

    def __init__(self, path: Path, kind: dict[str, str]) -> None:
        self._path = path
        self._told = {"hosts": {}} | read_json(path)
        host = socket.gethostname()
        mine = {"kind": kind, "trained": 0, "seconds": 0.0} | self._told["hosts"].get(host, {})
        self._told["hosts"][host] = self._mine = mine | {"kind": kind}
        self._before = int(mine["trained"]), float(mine["seconds"])
        self._begun = self._last = time.monotonic()

    def start(self, total: int, done: int, letters: Mapping[str, str] | None = None) -> None:
        self._begun = time.monotonic()
        self._told |= {"total": total, "done": done, "counts": {}}
        self._write()

    def update(self, done: int, trained: int, counts: dict[str, int] | None) -> None:
        self._told["done"] = done
        self._mine["trained"] = self._before[0] + trained
        if counts is not None:
            self._told["counts"] = counts
        if time.monotonic() - self._last >= _TELL_EVERY:
            self._write()

    def stop(self) -> None:
        self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        self._mine["seconds"] = round(self._before[1] + self._last - self._begun, 3)
        write_json(self._path, self._told)
