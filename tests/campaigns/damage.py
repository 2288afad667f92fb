"""Damaged files of every kind, read: ``python damage.py --files=10000 --commands=500 --seed=1``.

Prints one JSON line of counts. Of each kind, so many copies are damaged (bits flipped; blocks
zeroed, swapped, doubled, filled with noise; the end cut off or junk added) and read in processes
that read many; some go through the commands. What may come of a copy:

- ``refused``: one line that says so (``guarded``: of them, those on which HDF5 would have crashed
  or not ended);
- ``same``: read, with the values of the original (``told``: of them, those said to be changed);
- ``unseen``: read with other values, where the format has no checksum (schema version 2 alone);
- ``wrong``, ``internal``, ``crashes``, ``hangs``: what must not be.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from children import listed, report
from damaging import KINDS, damaged, odd_table, originals

from grokfast.checkpoint import load_checkpoint, misfit
from grokfast.cli import script

#: Seconds after which a copy counts as one that is never read to its end.
HANG = 180.0

FORBIDDEN = ("wrong", "internal", "crashes", "hangs")


def _digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        plain = np.asarray(array)
        text = plain.dtype.kind in "OU"
        found.update(json.dumps([str(plain.dtype.kind), plain.shape]).encode())
        found.update(json.dumps(plain.tolist()).encode() if text else plain.tobytes())
    return found.hexdigest()


# Readers: a path -> a digest of all that was read.


def _read_results(path: Path, tools: Any) -> str:
    from grokfast.results import Results

    r = Results.load(path, tools)
    plain = json.dumps([r.grid.to_dict(), r.complete], sort_keys=True)
    weights = [v for bucket in r.weights for _, v in sorted(bucket.items())]
    return _digest(plain, *(r[name] for name in sorted(r.variables)), *weights)


def _read_checkpoint(path: Path, tools: Any) -> str:
    rows = load_checkpoint(path, tools)
    wanted = _good_rows(path.parent)
    if not rows:
        raise _SetAside
    for identity, row in rows.items():
        if why := misfit(wanted.get(identity, ()), row):
            raise _SetAside(why)  # as a run would
    return _digest(*(value for _, row in sorted(rows.items()) for _, value in sorted(row.items())))


@functools.cache
def _good_rows(folder: Path) -> dict[str, list[tuple[str, torch.Tensor]]]:
    """Identity -> names and tensors of the cells of the good files, as a run would have them."""
    good = [p for p in folder.iterdir() if p.suffix == ".ckpt"]
    return {
        identity: [(name, torch.from_numpy(np.array(values))) for name, values in row.items()]
        for rows in map(load_checkpoint, good)
        for identity, row in rows.items()
    }


def _read_idx(path: Path, tools: Any) -> str:
    from grokfast.data.idx import BadFile, parse_idx, read_bytes

    content = read_bytes(path, max_bytes=1 << 24)
    try:
        return _digest(parse_idx(content))
    except ValueError as error:  # as the loader of MNIST turns it into
        raise BadFile(path, str(error)) from None


def _read_table(path: Path, tools: Any) -> str:
    from grokfast.agree import agree

    results = _run_of_toy(path.parent.parent / "results-v3" / "toy.h5")
    return json.dumps([a.to_dict() for a in agree(results, path)], sort_keys=True)


@functools.cache
def _run_of_toy(path: Path) -> Any:
    from grokfast.results import Results

    return Results.load(path)


class _SetAside(Exception):
    """A checkpoint that is damaged, which the reader has said."""


READERS: dict[str, Callable[[Path, Any], str]] = {
    "results-v3": _read_results,
    "results-v2": _read_results,
    "checkpoint-v3": _read_checkpoint,
    "checkpoint-v2": _read_checkpoint,
    "idx": _read_idx,
    "table": _read_table,
}

#: Kinds whose content says by itself whether it is as it was.
CHECKED = ("results-v3", "checkpoint-v3", "checkpoint-v2")


def _outcome(read: Callable[[], str], wanted: str, *, checked: bool) -> tuple[str, bool, str]:
    """What came of a copy, whether it was said to be changed, and the reason it was refused."""
    from grokfast.errors import GrokfastError

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = read()
        except GrokfastError as error:
            return "refused", False, str(error)
        except _SetAside as error:
            return "refused", False, " ".join(map(str, (*error.args, *(w.message for w in said))))
        except Exception as error:
            return "internal", False, f"{type(error).__name__}: {error}"
    if found == wanted:
        return "same", bool(said), ""
    return ("wrong" if checked else "unseen"), bool(said), ""


def copies(
    kind: str, folder: Path, seed: int, start: int, stop: int, ready: Callable[[], None] = list
) -> Iterator[tuple[int, str, str, bool, str]]:
    """Reads copies ``start`` to ``stop``: number, damage, outcome, whether it was said to be
    changed, and why it was refused."""
    from grokfast.storage.guarded import Reader

    read, own = READERS[kind], folder / kind / f"{os.getpid()}"
    good = sorted(p for p in own.parent.iterdir() if not p.name.isdigit())
    with Reader() as reader:
        wanted = [read(p, reader) for p in good]
        ready()
        for k in range(start, stop):
            rng = random.Random(f"{seed} {kind} {k}")
            data, one = good[k % len(good)].read_bytes(), wanted[k % len(good)]
            if kind == "table" and rng.random() < 0.5:
                what, content = odd_table(data, rng)
            else:
                what, content = damaged(data, rng)
            own.write_bytes(content)
            checked = kind in CHECKED
            yield k, what, *_outcome(functools.partial(read, own, reader), one, checked=checked)
    for left in own.parent.glob(f"{own.name}*"):
        left.unlink()


def read_copies(kind: str, folder: str, seed: int, start: int, stop: int) -> None:
    """A process that prints a line for each of :func:`copies`."""
    for line in copies(kind, Path(folder), seed, start, stop, lambda: print("ready", flush=True)):
        _say(*line)


def _say(k: int, what: str, outcome: str, told: bool, why: str) -> None:
    print(json.dumps([k, what, outcome, told, why[:300]]), flush=True)


# Commands: a name -> arguments, with the damaged file and one to write.

COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "info": lambda file, out: ["info", str(file)],
    "plot": lambda file, out: ["plot", str(file), f"--out={out}.png"],
    "export": lambda file, out: ["export", str(file), f"--out={out}.json", "--overwrite"],
    "merge": lambda file, out: ["merge", str(file), f"--out={out}.h5", "--overwrite"],
    "run": lambda file, out: ["run", *_RUN, f"--out={file}", "--steps=60"],
    "run-checkpoint": lambda file, out: ["run", *_RUN, f"--out={file}", "--steps=60"],
}

#: Two cells, half of whose steps are done.
_RUN = ("addition-classification", "--engine=reference", "--device=cpu", "--threads=1",
        "--lr=0.01,0.03", "--weight-decay=0", "--set=model.width=4", "--stop=never",
        "--record=curves:10")  # fmt: skip


def run_commands(kind: str, folder: str, seed: int, start: int, stop: int) -> None:
    """A process that gives copies to the commands in turn, and prints a line for each."""
    from grokfast.cli import main

    own = Path(folder) / f"commands-{os.getpid()}"
    own.mkdir()
    good, file, out = own / "good.h5", own / "copy.h5", own / "out"
    ckpts = [p.with_name(p.name + ".ckpt") for p in (good, file)]

    def ran(arguments: list[str]) -> tuple[int, str]:
        told = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            return main(arguments), told.getvalue()

    begun = [f"--out={good}", "--steps=30"]
    if (code := ran(["run", *_RUN, *begun])[0]) != 0:
        raise RuntimeError(f"the run to be damaged ended with {code}")
    contents = good.read_bytes(), ckpts[0].read_bytes()
    wanted: dict[str, bytes] = {}
    for k in range(-len(COMMANDS), stop - start):
        name = list(COMMANDS)[k % len(COMMANDS)]
        rng = random.Random(f"{seed} command {start + k}")
        copies, what = list(contents), "nothing"
        if k >= 0:  # those before are of the good file, to compare with
            part = int(name == "run-checkpoint")
            what, copies[part] = damaged(contents[part], rng)
        for path, content in zip((file, ckpts[1]), copies, strict=True):
            path.write_bytes(content)
        code, told = ran(COMMANDS[name](file, out))
        found = _made(name, file, out) if code == 0 else b""
        if k < 0:
            wanted[name] = found
            if k == -1:
                print("ready", flush=True)
            continue
        outcome = "same" if found == wanted[name] else "wrong"
        if code != 0:
            outcome = "refused" if code in (2, 3) else "internal"
        _say(start + k, f"{name} {what}", outcome, bool(told), told if code else "")
    shutil.rmtree(own)


def _made(name: str, file: Path, out: Path) -> bytes:
    """What a command has made, without what differs from run to run."""
    from grokfast.results import Results

    match name:
        case "info":
            return b""
        case "plot" | "export":
            return out.with_suffix(".png" if name == "plot" else ".json").read_bytes()
        case "merge" | "run" | "run-checkpoint":
            r = Results.load(file if name.startswith("run") else out.with_suffix(".h5"))
            return _digest(*(r[variable] for variable in sorted(r.variables))).encode()
        case other:
            raise ValueError(other)


def campaign(
    files: int = 10_000,
    commands: int = 500,
    seed: int = 1,
    workers: int = 1,
    kinds: Sequence[str] = KINDS,
    show: bool = False,
    minutes: float = 1e9,
) -> dict[str, Any]:
    """Reads so many damaged copies of each kind, and gives so many to the commands.

    Returns:
        Kind -> counts, as the module says: of all copies, or of those there was time for.
    """
    begun, counts = time.monotonic(), {}
    until = begun + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        originals(Path(folder))
        work = [("read_copies", kind, files) for kind in kinds if kind]
        work += [("run_commands", "commands", commands)] if commands else []
        for function, kind, number in work:
            call = (function, kind, folder, seed)
            with contextlib.closing(_all(call, number, workers, until)) as lines:
                counts[kind] = _count(lines, show)
    return {"seconds": round(time.monotonic() - begun, 1), "counts": counts}


def _count(lines: Iterator[list[Any]], show: bool) -> dict[str, int]:
    number: Counter[str] = Counter(dict.fromkeys(("files", "refused", "same", *FORBIDDEN), 0))
    for k, what, outcome, told, why in lines:
        number["files"] += 1
        number[outcome] += 1
        number["told"] += outcome == "same" and told
        number["guarded"] += "ended the reader" in why or "does not end" in why
        if outcome in FORBIDDEN or show:
            print(k, what, outcome, why, file=sys.stderr, flush=True)
    return {name: n for name, n in number.items() if n or name in FORBIDDEN}


class _Share:
    """Copies ``start`` to ``stop`` in a process of their own; after one on which it has died or
    does not end, a new process goes on."""

    def __init__(self, call: tuple[Any, ...], start: int, stop: int) -> None:
        self.call, self.next, self.stop = call, start, stop
        self.begin()

    def begin(self) -> None:
        function, *arguments = self.call
        code = f"import sys; sys.path[:] = {sys.path!r}; import runpy; "
        code += f"runpy.run_path({__file__!r})[{function!r}](*{arguments!r}, "
        # Unbuffered: a line that is read but not returned would not wake the select again.
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}{self.next}, {self.stop})"],
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.ready, self.heard = False, time.monotonic()

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def line(self) -> list[Any] | None:
        """What has come, once there is something to read: a line of a copy, or none."""
        assert self.process.stdout is not None
        line, self.heard = self.process.stdout.readline(), time.monotonic()
        if not self.ready:
            if line != b"ready\n":
                raise RuntimeError(f"{self.call[:2]} failed before any copy was read")
            self.ready = True
            return None
        return self._done(json.loads(line)) if line else self.given_up("crashes")

    def given_up(self, outcome: str) -> list[Any]:
        """The line of a copy that its process did not get over."""
        self.end()
        code = self.process.returncode
        done = self._done([self.next, "", outcome, False, f"exit code {code}"])
        if self.next < self.stop:
            self.begin()
        return done

    def _done(self, line: list[Any]) -> list[Any]:
        self.next += 1
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _all(
    call: tuple[Any, ...], number: int, workers: int, until: float
) -> Generator[list[Any], None, None]:
    """Lines of all copies, from processes that take an equal share each, as they come."""
    ends = np.linspace(0, number, workers + 1).astype(int).tolist()
    shares = [_Share(call, *share) for share in itertools.pairwise(ends)]
    try:
        while (left := [s for s in shares if s.next < s.stop]) and time.monotonic() < until:
            for share in select.select(left, [], [], 1)[0]:
                if (line := share.line()) is not None:
                    yield line
            for share in left:
                if time.monotonic() - share.heard > HANG:
                    yield share.given_up("hangs")
    finally:
        for share in shares:
            share.end()


def main(
    files: int = 10_000,
    commands: int = 500,
    seed: int = 1,
    workers: int = 1,
    kinds: str = ",".join(KINDS),
    show: bool = False,
    minutes: float = 1e9,
    out: str | None = None,
) -> int | None:
    """Damages so many copies, or as many as there is time for, and counts what comes of them."""
    found = campaign(files, commands, seed, workers, listed(kinds), show, minutes)
    report("damage", seed, found, out)
    counts = found["counts"].values()
    return 1 if any(own[name] for own in counts for name in FORBIDDEN) else None


if __name__ == "__main__":
    sys.exit(script(main))
