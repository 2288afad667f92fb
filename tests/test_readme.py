"""What the README tells a newcomer to type works, and what it claims is measured."""

import re
import shlex
from pathlib import Path

import pytest

import grokfast as gf
from grokfast.agree import agree
from grokfast.cli.commands import COMMANDS
from grokfast.cli.preflight import Call, preflight
from grokfast.cli.signatures import read_command
from grokfast.tasks import TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
SHELL = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("grokfast ")])
def test_commands_pass_the_wall(line):
    commands = {name: read_command(name, function) for name, function in COMMANDS.items()}
    assert isinstance(preflight(shlex.split(line, comments=True)[1:], commands), Call)


def test_commands_and_names_that_are_named_exist():
    inside = " ".join(re.findall(r"`([^`\n]+)`", README))
    named = set(re.findall(r"grokfast ([a-z]+)\b", inside))
    assert named
    assert not named - set(COMMANDS)
    names = set(re.findall(r"\bgf\.(\w+)", README))
    assert len(names) > 10
    assert not [name for name in names if not hasattr(gf, name)]


def test_a_task_of_ones_own_is_trained(monkeypatch):
    monkeypatch.setitem(TASKS, "xor", None)  # so that it is gone afterwards
    exec(PYTHON[1], scope := {"gf": gf, "__name__": __name__})
    assert scope["r"].phases().tolist() != [-1]


def test_links_and_pictures_are_there():
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)]+)\)", README)]
    assert len(targets) > 8
    assert not [t for t in targets if not (ROOT / t).exists()]


def measured(name):
    return agree(gf.Results.load(ROOT / "bench" / "results" / f"{name}.h5"))


def test_claims_are_those_of_the_committed_files():
    for task in ("classification", "regression"):
        shares = measured(f"addition-{task}")[0].phases
        assert f"{shares['overall'].fraction:.1%} of {shares['overall'].of} published" in README
        assert shares["interior"].of - shares["interior"].agree == (task == "classification")
    shares = measured("mnist-original")[0].phases
    assert f"{shares['overall'].agree} of {shares['overall'].of} published phases" in README
    exact = measured("mnist-original.2500-steps.float64")[0].steps
    assert exact["both equal, where both published up to 2500"].fraction == 1
    for name, claim in (
        ("modular-corruption", "{} of {} printed losses"),
        ("parity-baseline", "{} of {} numbers of the published curves"),
        ("power-division", "{} of {} numbers of division modulo 97"),
    ):
        found = [a for a in measured(name) if name != "parity-baseline" or "Figures 1" in a.table]
        rows = [row.verdict for a in found for row in a.rows]
        assert claim.format(rows.count("within"), len(rows)) in README
