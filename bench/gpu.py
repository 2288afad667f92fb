"""The first minutes on a GPU: ``python bench/gpu.py --budget=540``.

Parts (bench/gpu_parts.py) in the order of what is learned per second; none is begun that cannot
end in the time that is left. What a part prints goes to FOLDER/PART.txt as it comes, rows of the
benchmark to FOLDER/cuda.jsonl, results files beside them, what became of every part to
FOLDER/gpu.json; and all of it into one archive, replaced whole after every part and every few
seconds while one runs. ``--after=ARCHIVE`` goes on where an earlier one stopped;
``python bench/run.py --add=ARCHIVE`` takes over its rows, ``python bench/plot.py --rows=ARCHIVE``
draws them; ``--how`` prints how to run it where there is no network. A rehearsal:
``--device=cpu --engine=native --steps=200 --models=2 --budget=240``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_parts import Command, Part, Setting, parts
from run import names

from grokfast.cli import script
from grokfast.errors import UsageError

HERE = Path(__file__).resolve().parent
#: Bytes of an archive: what a machine without a network gives back of one file.
ROOM = 16 * 2**20
#: Seconds between archives while a part runs.
EVERY = 10
#: Seconds that a part past its time has for saving what it has, and the last archive takes.
GRACE, ARCHIVING = 15, 5
RESERVE = GRACE + ARCHIVING

#: What a machine with Python 3.12, torch, Triton and JAX may lack.
WHEELS = (
    "setuptools pybind11 fire termcolor h5py tqdm matplotlib contourpy cycler fonttools kiwisolver "
    "packaging pillow pyparsing python-dateutil six pytest iniconfig pluggy pygments pytest-xdist "
    "execnet pytest-timeout hypothesis sortedcontainers"
)
HOW = """\
Here, with a network (wheels for the Python over there; 33 MB):
  pip download -d wheels --only-binary=:all: --python-version=3.12 \\
    --no-deps {platforms} {wheels}
There, in the repository with the folder of wheels in it, torch and Triton installed:
  {command}
The same line again with --after=ARCHIVE goes on. Then, here:
  python bench/run.py --device=cuda --add=gpu.zip; python bench/plot.py --device=cuda
"""
#: pip takes each literally: 2_28 alone finds no wheel for 2_17.
PLATFORMS = " ".join(f"--platform=manylinux{v}_x86_64" for v in ("_2_28", "_2_27", "_2_17", "2014"))
#: Into a folder, not a virtual environment: one made by the Python of another sees the system's
#: packages, not those of its parent, where torch may be. Without the C++ engine: no part needs it,
#: and it takes longer to build than the first part to run.
COMMAND = (
    "export PYTHONPATH=/tmp/site && "
    "into='python3 -m pip install -q --no-index --no-deps --upgrade --target=/tmp/site' && "
    "$into wheels/*.whl && CXX=false $into --no-build-isolation . && "
    "python3 bench/gpu.py --budget=${BUDGET:-500} --folder=/tmp/gpu --archive=${OUT:-.}/gpu.zip"
)


def main(
    budget: float = 540,
    device: str = "cuda",
    engine: str = "triton",
    only: str | None = None,
    folder: str | None = None,
    archive: str | None = None,
    after: str | None = None,
    steps: int = 100_000,
    models: int = 441,
    limit: float | None = None,
    how: bool = False,
) -> None:
    """Runs the parts one after the other.

    Args:
        budget: seconds for all.
        device: cuda, or cpu for a rehearsal.
        engine: triton, or another for a rehearsal.
        only: parts; all where not given.
        folder: where everything goes; bench/results/gpu where not given.
        archive: FOLDER.zip where not given.
        after: an earlier archive: what it has is kept, and parts that ended well are not run again.
        steps: of whole cells and diagrams.
        models: of the benchmark.
        limit: seconds a part may take; two and a half times what it should where not given.
        how: print how to run it without a network, the parts, and what their answers change.
    """
    out = Path(folder).resolve() if folder else HERE / "results" / "gpu"
    plan = parts(Setting(device, engine, out, steps, models))
    if how:
        print(HOW.format(command=COMMAND, platforms=PLATFORMS, wheels=WHEELS))
        print(described(plan))
        return
    wanted = names(only) if only else list(plan)
    if unknown := set(wanted) - set(plan):
        raise UsageError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(plan)}")
    out.mkdir(parents=True, exist_ok=True)
    kept = Archive(out, Path(archive).resolve() if archive else out.with_name(out.name + ".zip"))
    if after:
        kept.unpack(Path(after))
    end = time.monotonic() + budget
    report = Report(out / "gpu.json")
    for name in wanted:
        part, begun = plan[name], time.monotonic()
        if report.ended_well(name):
            continue
        needs = part.seconds if device == "cuda" else part.rehearsal
        left = end - begun - RESERVE
        if left < needs:
            report.note(Outcome(name, 0.0, f"not begun: it takes {needs} s, {left:.0f} are left"))
            kept.renew()
            continue
        may = 2.5 * needs if limit is None else limit
        deadline = min(begun + may, end - RESERVE)
        status = run_part(part, out / f"{name}.txt", deadline, kept.renew)
        report.note(Outcome(name, round(time.monotonic() - begun, 1), status))
        kept.renew()
        print("\n".join((out / f"{name}.txt").read_text().splitlines()[-40:]), flush=True)
    print(json.dumps(report.parts))


def described(plan: dict[str, Part]) -> str:
    """What every part asks, and what its answers change."""
    lines = []
    for name, part in plan.items():
        lines += [f"{name} ({part.seconds} s)", f"  {part.asks}", f"  decides: {part.decides}"]
    return "\n".join(lines)


@dataclass(frozen=True)
class Outcome:
    """What became of a part."""

    part: str
    s: float
    status: str


class Report:
    """What became of every part, on disk at each moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: list[dict[str, object]] = json.loads(path.read_text()) if path.exists() else []

    def ended_well(self, name: str) -> bool:
        return any(p["part"] == name and str(p["status"]).startswith("ok") for p in self.parts)

    def note(self, outcome: Outcome) -> None:
        self.parts = [p for p in self.parts if p["part"] != outcome.part] + [asdict(outcome)]
        replace(self.path, lambda path: path.write_text(json.dumps(self.parts, indent=1)))
        print(json.dumps(asdict(outcome)), flush=True)


class Archive:
    """All that is known, in one file of bounded size that is whole at each moment."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path

    def renew(self) -> None:
        """Replaces it; the largest files stay out where all of them are too much, by name."""
        files = sorted(
            (p for p in self.folder.iterdir() if p.is_file()), key=lambda p: p.stat().st_size
        )
        replace(self.path, lambda path: self._write(path, files))

    def _write(self, path: Path, files: list[Path]) -> None:
        left_out = []
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                if path.stat().st_size + file.stat().st_size > ROOM - 2**16:
                    left_out.append(file.name)
                else:
                    archive.write(file, file.name)
            if left_out:
                archive.writestr("left-out.txt", "\n".join(left_out) + "\n")

    def unpack(self, earlier: Path) -> None:
        """Takes over an earlier one.

        Raises:
            UsageError: it is none.
        """
        try:
            with zipfile.ZipFile(earlier) as archive:
                archive.extractall(self.folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"--after={earlier} is no archive of an earlier run: {error}"
            ) from error


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside it, and renames it into its place."""
    new = path.with_name(path.name + ".new")
    write(new)
    new.replace(path)


def run_part(part: Part, log: Path, deadline: float, renew: Callable[[], None]) -> str:
    """Runs the commands, the next one also where one fails; what they print goes to the log."""
    commands = part.commands()
    log.unlink(missing_ok=True)
    if not commands:
        log.write_text("nothing to run here\n")
        return "ok: nothing to run here"
    if part.at_once:
        logs = [log.with_suffix(f".{k}.txt") for k in range(len(commands))]
        begun = [begin(c, path) for c, path in zip(commands, logs, strict=True)]
        statuses = [ended(p, deadline, renew) for p in begun]
        log.write_text("".join(path.read_text() for path in logs))
        for path in logs:
            path.unlink()
    else:
        statuses = [ended(begin(c, log), deadline, renew) for c in commands]
    with log.open("a") as kept:
        kept.writelines(
            f"# exit status {status} of command {k}\n" for k, status in enumerate(statuses)
        )
    failed = [
        f"{status} from {' '.join(command)}"
        for command, status in zip(commands, statuses, strict=True)
        if status
    ]
    if missing := log.read_text().count(": not timed: "):
        failed.append(f"{missing} not timed")
    return "; ".join(failed) or "ok"


def begin(command: Command, log: Path) -> subprocess.Popen[bytes]:
    with log.open("a") as kept:
        kept.write(f"$ {' '.join(command)}\n")
        kept.flush()
        # From outside the tree: kernels/ is grokfast.kernels, and nothing else.
        return subprocess.Popen(
            command, stdout=kept, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )


def ended(
    process: subprocess.Popen[bytes], deadline: float, renew: Callable[[], None] = lambda: None
) -> int:
    """The exit status; 124 past the deadline, when the process and all it began are ended: asked
    first, so that results are saved and tests summed up, then made to."""
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(left, EVERY))
        renew()
    for sent, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    return 124


if __name__ == "__main__":
    sys.exit(script(main))
