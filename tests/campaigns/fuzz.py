"""Hostile input to the command line, in process: ``make campaign-fuzz``.

    python tests/campaigns/fuzz.py [--number=10000] [--seed=1] [--out=FILE]

Command lines, ranges, fields, cells, experiments and tables as no user would write them, drawn by
hypothesis from their grammar and from what is near it. Each must end in 0, 2 or 3, with one line on
stderr where that is not 0. What would train ends once it has been checked.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import unittest.mock
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from children import report

import grokfast as gf
from grokfast.cli import main as grokfast
from grokfast.cli import running, script
from grokfast.cli.commands import COMMANDS
from grokfast.cli.signatures import read_command
from grokfast.data import mirrors
from grokfast.fields import SHORT_NAMES, scalar_fields
from grokfast.presets import PRESETS

# ---- what is drawn

NASTY = st.sampled_from(
    ["", "-", "--", "-1", "0", "1e309", "-1e309", "nan", "inf", "None", "True", "[", "]", "{}",
     "()", "'", '"', "\\", "\n", "\x00", "\x1b[31m", "\udc80", "ä", "٣", "\uff11", "²", "a" * 5000,
     "9" * 400, "1_000", "0x10", "1e-400", "__class__", "lambda: 1", "~", "~nobody/x", "..", "/",
     "/dev/null", "/dev/stdin", "/proc/self/mem", ".", "*", "$HOME", "%s", "{0}",
     ":", ";", ",", "=", "+", "|"]
)  # fmt: skip
NUMBER = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.integers(-3, 50).map(str),
    st.floats().map(repr),
    st.floats(1e-6, 10).map(repr),
    NASTY,
)
RANGE = st.one_of(
    st.builds(
        lambda word, parts: ":".join([word, *parts]),
        st.sampled_from(["logspace", "linspace", "range", "Range", ""]),
        st.lists(NUMBER, max_size=4),
    ),
    st.lists(NUMBER, max_size=5).map(",".join),
    NUMBER,
)
FIELDS = sorted(
    {*SHORT_NAMES, *(f for name in PRESETS for f in scalar_fields(gf.preset(name).experiment))}
)
FIELD = st.one_of(st.sampled_from(FIELDS), NASTY, st.text(max_size=8))
WORD = st.sampled_from(
    ["tanh", "relu", "both", "never", "none", "true", "after", "running", "adamw", "sgd", "mse",
     "cross_entropy", "argmax", "nearest", "float64", "addition", "a+b", "a*a*b", "a+", "weights",
     "curves:all", "embeddings:3", "norms", "ipr:2", "0.5+0.99", "1+2+"]
)  # fmt: skip
VALUE = st.one_of(RANGE, WORD, st.text(max_size=12))
ASSIGNED = st.lists(
    st.builds(lambda f, v: f"{f}={v}", FIELD, VALUE), min_size=1, max_size=3
).map(",".join)  # fmt: skip
SETTING = st.builds(
    lambda name, parts: f"{name}={';'.join(parts)}",
    FIELD,
    st.lists(st.builds(lambda v, fields: f"{v}:{fields}", VALUE, ASSIGNED), max_size=3),
)
CELL = st.lists(st.builds(lambda f, v: f"{f}:{v}", FIELD, VALUE), max_size=3).map(",".join)
RECORD = st.lists(st.builds(lambda w, n: f"{w}:{n}", WORD, NUMBER) | WORD, max_size=3).map(",".join)
PRESET = st.one_of(st.sampled_from(sorted(PRESETS)), st.text(max_size=10), NASTY)
SPECIFIC = {"set": ASSIGNED, "setting": SETTING, "cell": CELL, "record": RECORD}
OPTIONS = {name: list(read_command(name, function).options) for name, function in COMMANDS.items()}


@st.composite
def command_lines(draw: Any) -> list[str]:
    """Mostly right words in mostly right places."""
    command = draw(st.sampled_from(sorted(COMMANDS)) | NASTY)
    words = [command]
    if command == "run":
        words.append(draw(PRESET))
    elif command in COMMANDS:
        words += draw(st.lists(st.sampled_from(["r.h5", "t.json", "x.h5", "list"]), max_size=2))
    known = OPTIONS.get(command, [])
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(known) if known else NASTY)
        if draw(st.integers(0, 19)) == 0:
            name = draw(st.text(max_size=8))
        value = draw(SPECIFIC.get(name.replace("-", "_"), VALUE))
        words.append(f"--{name}={value}" if draw(st.booleans()) else f"--{name}")
        if draw(st.integers(0, 9)) == 0:
            words.append(draw(VALUE))
    return words


@st.composite
def runs(draw: Any) -> list[str]:
    """A run with one to three options of the kind that make a grid."""
    words = ["run", draw(st.sampled_from(sorted(PRESETS)))]
    for name in draw(st.lists(st.sampled_from(OPTIONS["run"]), min_size=1, max_size=3)):
        words.append(f"--{name}={draw(SPECIFIC.get(name, RANGE))}")
    return words


LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), WORD,
    st.just(10**400),
)  # fmt: skip
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3)
)


@st.composite
def changed(draw: Any, whole: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, or repeated deeply."""
    data = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        at, key, here = None, None, data
        while isinstance(here, dict | list) and here and draw(st.integers(0, 4)):
            keys = sorted(here) if isinstance(here, dict) else range(len(here))
            at, key = here, draw(st.sampled_from(keys))
            here = at[key]
        if at is None:
            data = draw(JSON)
        elif draw(st.integers(0, 4)) == 0:
            del at[key]
        else:
            at[key] = draw(JSON)
    return data


# ---- what is done with it


class Campaign:
    """What came out, by kind of input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codes: dict[str, Counter[int]] = {}
        self.bad: dict[str, str] = {}  # message -> an input that ends so
        self.slowest = 0.0
        os.chdir(folder)
        os.environ |= {"GROKFAST_DATA": "", "XDG_CACHE_HOME": str(folder / "cache")}
        os.environ["GROKFAST_MNIST_MIRROR"] = "http://127.0.0.1:9/"  # nobody listens there
        mirrors.MIRRORS = ()
        grid = gf.preset("addition-classification").grid(
            lr=[1e-3, 1e-2], weight_decay=[0.0, 5.0], width=4, steps=6
        )
        gf.run(grid, out="r.h5", engine="reference", device="cpu", progress=False)
        self.grid, self.results = grid.to_dict(), gf.Results.load("r.h5")
        self.table = {
            "diagrams": [
                {"task": "addition-classification", "learning_rate": [1e-3], "weight_decay": [0, 5],
                 "phases": ["F", "C"]}
            ]
        }  # fmt: skip

    def command(self, kind: str, words: list[str]) -> None:
        """Runs one command line and judges how it ends."""
        if words[:1] == ["bench"]:  # minutes, where nothing is wrong with it
            words = [*words, "--models=-1"]
        out, err = io.StringIO(), io.StringIO()
        begun = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = grokfast(words)
            except BaseException as error:  # the boundary lets nothing through
                code = -1
                err.write(f"{type(error).__name__}: {error}")
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.codes.setdefault(kind, Counter())[code] += 1
        told = err.getvalue()
        errors = [line for line in told.splitlines() if line.startswith("grokfast: error: ")]
        plain = all(c.isprintable() or c in "\n" for c in told)
        right = code in (0, 2, 3) and len(errors) == (code != 0) and plain
        if (code == 3 and words[:1] == ["doctor"]) or words[:2] == ["data", "verify"]:
            right = True  # what they print is the answer
        if not right:
            self.bad.setdefault(told[-200:], f"{kind}: {words!r} -> {code}")

    def experiment(self, data: Any) -> None:
        """A results file that says so of its grid."""
        with unittest.mock.patch.object(gf.Grid, "to_json", lambda grid: json.dumps(data)):
            self.results.save("fuzzed.h5")
        self.command("experiment", ["info", "fuzzed.h5"])

    def reference(self, data: Any) -> None:
        """A table to compare with."""
        Path("t.json").write_text(json.dumps(data))
        self.command("table", ["agree", "r.h5", "t.json"])


def _each(drawn: st.SearchStrategy[Any], judge: Callable[[Any], None], number: int, seed: int):
    @hypothesis.seed(seed)
    @settings(
        max_examples=number, database=None, deadline=None, derandomize=False,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn)
    def one(value: Any) -> None:
        judge(value)

    one()


def fuzz(number: int, seed: int, folder: Path) -> Campaign:
    """Draws so many inputs, and does with each what its user would."""
    campaign = Campaign(folder)
    kinds = [
        (0.35, command_lines(), lambda words: campaign.command("command line", words)),
        (0.35, runs(), lambda words: campaign.command("run", words)),
        (0.15, changed(campaign.grid), campaign.experiment),
        (0.15, changed(campaign.table), campaign.reference),
    ]
    started = running.run, running.dry_run
    running.run = running.dry_run = lambda job: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for share, drawn, judge in kinds:
                _each(drawn, judge, max(1, round(share * number)), seed)
    finally:
        running.run, running.dry_run = started
    return campaign


def main(number: int = 10_000, seed: int = 1, out: str | None = None) -> int | None:
    """Draws so many inputs and counts how they end."""
    begun, before = time.monotonic(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        campaign = fuzz(number, seed, Path(folder))
        os.chdir(before)
    for told, example in campaign.bad.items():
        print(f"{example}\n    {told}", file=sys.stderr)
    codes: Counter[int] = sum(campaign.codes.values(), Counter())
    found = {
        "inputs": codes.total(),
        "codes": dict(sorted(codes.items())),
        "by_kind": {kind: dict(sorted(own.items())) for kind, own in campaign.codes.items()},
        "wrong": len(campaign.bad),
        "slowest_seconds": round(campaign.slowest, 2),
        "seconds": round(time.monotonic() - begun, 1),
    }
    report("fuzz", seed, found, out)
    return 1 if campaign.bad else None


if __name__ == "__main__":
    sys.exit(script(main))
