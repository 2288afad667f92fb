"""Ray Core: the one module that knows it. What it is given and gives is text."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from grokfast.cluster import task
from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.hardware import cores
from grokfast.signals import STOPPING

#: Of a Ray that is started here; nothing large ever passes through it. Ray takes no less.
_OBJECT_STORE = 80 * 2**20
#: Seconds to wait for an answer at an address.
_PATIENCE = 10.0
#: What decides bits or finds data is on workers as on the driver.
_PASSED = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "TORCHDYNAMO_DISABLE")
#: No telemetry, and no word of Ray's own on our stdout and stderr. Read when it is imported.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Lost(Exception):
    """A task whose worker or machine has died; it says how."""


@dataclass(frozen=True)
class Machine:
    """A node of the cluster, and how many tasks it holds at once."""

    node: str
    host: str
    slots: int


@contextlib.contextmanager
def connected(address: str | None, device: str, threads: int) -> Iterator[Cluster]:
    """A cluster to train on: the one at this address, or of Ray's own variable RAY_ADDRESS, or one
    of this machine alone.

    Raises:
        EnvironmentProblem: Ray is not installed, or there is none at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        import ray
    except ImportError as error:
        raise EnvironmentProblem(
            f"--launcher=ray needs Ray, which is not installed ({error})",
            hint="pip install 'grokfast[ray]'",
        ) from error
    before = {signum: signal.getsignal(signum) for signum in STOPPING}
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if address == "local":
            folder = _short_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options = {
                "num_cpus": cores(),
                "object_store_memory": _OBJECT_STORE,
                "include_dashboard": False,
                "_temp_dir": folder,
            }
        else:
            _knock(address)
        passed = {n: v for n, v in os.environ.items() if n in _PASSED or n.startswith("GROKFAST_")}
        stack.callback(ray.shutdown)
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": passed} if passed else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **options,
            )
        except Exception as error:
            told = " ".join(str(error).split())
            raise EnvironmentProblem(f"no Ray cluster at {address}: {told[:300]}") from error
        finally:  # Ray has its own for SIGTERM
            _restore(before)
        yield Cluster(device, threads)
        stack.close()
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, where none has changed
        for signum, handler in handlers.items():
            if handler is not None and signal.getsignal(signum) != handler:
                signal.signal(signum, handler)


def _short_folder() -> str:
    """A temporary folder in which sockets can be: their paths have 107 characters at most."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="gf-", dir=usual if len(usual) < 20 else "/tmp")


def _knock(address: str) -> None:
    """Whether anything answers at an address: Ray itself would take minutes to say no."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UsageError(
            f"--address={address} is no HOST:PORT",
            hint="run the command on a machine of the cluster, with the address that "
            "`ray start --head` printed, or with auto",
        )
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise EnvironmentProblem(
            f"no Ray cluster at {address}: {why}", hint="`ray status` there tells of it"
        ) from error


class Cluster:
    """Tasks on the machines of the cluster that this process is connected to."""

    def __init__(self, device: str, threads: int) -> None:
        import ray

        self._ray, self._threads = ray, threads
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gpus = any(node["Resources"].get("GPU") for node in nodes)
        #: cpu, or cuda
        self.device = device if device != "auto" else "cuda" if gpus else "cpu"
        if self.device == "cuda" and not gpus:
            raise EnvironmentProblem("the Ray cluster has no GPU", hint="--device=cpu")
        self._look, self._train = ray.remote(task.look), ray.remote(task.train)

    def machines(self) -> list[Machine]:
        """All that are alive and large enough for a task."""
        found = []
        try:
            nodes = self._ray.nodes()
        except self._ray.exceptions.RayError as error:
            raise _problem(error) from error
        for node in nodes:
            resources = node["Resources"] if node["Alive"] else {}
            slots = int(resources.get("CPU", 0)) // self._threads
            if self.device == "cuda":
                slots = min(slots, int(resources.get("GPU", 0)))
            if slots:
                found.append(Machine(node["NodeID"], node["NodeManagerHostname"], slots))
        return found

    def look(self, machines: Iterable[Machine], text: str, patience: float) -> dict[Machine, str]:
        """:func:`grokfast.cluster.task.look` of each machine; where it fails, ``why`` alone."""
        own = {"num_cpus": 0, "num_gpus": 0.01 if self.device == "cuda" else 0, "max_retries": 0}
        asked = {
            self._look.options(**own, label_selector={"ray.io/node-id": m.node}).remote(text): m
            for m in machines
        }
        self._ray.wait(list(asked), num_returns=len(asked), timeout=patience)
        told = {}
        for ref, machine in asked.items():
            if not self.ended([ref], 0):
                self.cancel([ref])
                told[machine] = json.dumps({"why": f"did not answer in {patience:.0f} s"})
                continue
            try:
                told[machine] = self.outcome(ref)
            except Lost as error:
                told[machine] = json.dumps({"why": str(error)})
        return told

    def train(self, text: str, without: Iterable[str]) -> Any:
        """Begins :func:`grokfast.cluster.task.train` on a machine that is not one of these nodes;
        what it gives is asked for with the reference."""
        options: dict[str, Any] = {"num_cpus": self._threads, "max_retries": 0}
        if self.device == "cuda":
            options["num_gpus"] = 1
        refused = ",".join(without)
        if refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({refused})"}
        try:
            return self._train.options(**options).remote(text)
        except self._ray.exceptions.RayError as error:
            raise _problem(error) from error

    def ended(self, references: Iterable[Any], timeout: float) -> list[Any]:
        """Those that have ended; waits for the first for so many seconds at most."""
        references = list(references)
        if not references:
            return []
        done, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        if done:
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return done

    def outcome(self, reference: Any) -> str:
        """What an ended task gave.

        Raises:
            Lost: its worker or machine has died, or cannot do it.
            EnvironmentProblem: the cluster has a problem of its own.
        """
        errors = self._ray.exceptions
        try:
            return str(self._ray.get(reference))
        except errors.TaskCancelledError:
            return '{"end": "stopped"}'
        except errors.OutOfMemoryError as error:
            raise Lost("its machine ran out of memory") from error
        except errors.NodeDiedError as error:
            raise Lost("its machine has died") from error
        except errors.WorkerCrashedError as error:
            raise Lost("its process has died") from error
        except errors.ObjectStoreFullError as error:
            raise _problem(error) from error
        except errors.RayError as error:
            raise Lost(_why(error)) from error

    def cancel(self, references: Iterable[Any]) -> None:
        """Asks running tasks to save and end, as Ctrl-C would, and takes back the others."""
        for reference in references:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=False, recursive=False)


def _why(error: Exception) -> str:
    """The one line of Ray's report that tells."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = next((line for line in lines if "No module named" in line), None)
    if missing is not None:
        name = missing.rpartition("No module named")[2].strip(" '\"")
        if name.partition(".")[0] == "grokfast":
            return "has no grokfast with --launcher=ray; install the version that runs here"
        return f"has no Python package {name!r}"
    return lines[-1] if lines else type(error).__name__


def _problem(error: Exception) -> EnvironmentProblem:
    if type(error).__name__ == "ObjectStoreFullError":
        return EnvironmentProblem(
            "the object store of the Ray cluster is full",
            hint="other work fills it; `ray memory` tells whose",
        )
    return EnvironmentProblem(f"Ray: {_why(error)}")
