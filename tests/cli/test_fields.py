"""``grokfast fields``: what it says of a field is what the checks and the classes have."""

import json
import math
from dataclasses import dataclass

import pytest

import grokfast as gf
from grokfast.bounds import bounded
from grokfast.cli import main
from grokfast.cli.fieldlist import chosen, parts
from grokfast.fields import SHORT_NAMES, scalar_fields
from grokfast.models import MODELS
from grokfast.phases import PHASE_RULES
from grokfast.presets import PRESETS
from grokfast.tasks import TASKS

EXPERIMENTS = [gf.preset(name).experiment for name in PRESETS]


REGISTERED = {"task": TASKS, "model": MODELS, "phase": PHASE_RULES}


def described():
    """Part and field of all that grokfast itself registers: other tests register more."""
    for part in parts():
        owner, name = part.names[0], part.names[-1]
        cls = REGISTERED[owner][name] if owner in REGISTERED else gf.Experiment
        if cls.__module__.startswith("grokfast."):
            yield from ((part.title, f) for f in part.fields)


def test_every_field_of_every_preset_is_there_with_a_meaning():
    known = {f.path for _, f in described()}
    assert all(set(scalar_fields(e)) <= known for e in EXPERIMENTS)
    assert not [f"{title}: {f.path}" for title, f in described() if not f.meaning]


def test_every_number_has_bounds():
    numbers = [f for _, f in described() if "number" in f.kind]
    assert len(numbers) > 40
    assert not [f.path for f in numbers if not f.bounds]


def parts_with_bounds():
    """An experiment, a number among its fields, and its bounds; each field once."""
    seen = set()
    for e in EXPERIMENTS:
        for path in scalar_fields(e):
            owner, _, leaf = path.rpartition(".")
            cls = type(e.get(owner)) if owner else type(e)
            bounds = bounded(cls).get(leaf)
            if bounds is not None and (cls, leaf) not in seen:
                seen.add((cls, leaf))
                yield pytest.param(e, path, bounds, id=f"{cls.__name__}.{leaf}")


@pytest.mark.parametrize(("experiment", "path", "bounds"), list(parts_with_bounds()))
def test_bounds_are_what_is_checked(experiment, path, bounds):
    several = isinstance(experiment.get(path), tuple)
    step = 1 if "int" in str(scalar_fields(experiment)[path]) else 1e-3
    outside = []
    if math.isfinite(bounds.low):
        outside.append(bounds.low if bounds.above else bounds.low - step)
    if math.isfinite(bounds.high):
        outside.append(bounds.high if bounds.below else bounds.high + step)
    if step != 1:
        outside += [math.nan, math.inf]
    assert outside
    for value in outside:
        with pytest.raises(gf.UsageError, match=path.rpartition(".")[2]) as error:
            experiment.replace(**{path: (value,) if several else value})
        assert "; give " in error.value.message


def test_a_field_declared_anew_keeps_its_bounds():
    @dataclass(frozen=True, kw_only=True)
    class Own(gf.Task):
        seed: int = 7

    with pytest.raises(gf.UsageError, match=r"data_seed is -1; give a finite value of 0 or more"):
        gf.Experiment(task=Own(seed=-1))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("weight-decay", ["optimizer.weight_decay"]),
        ("optimizer.beta2", ["optimizer.beta2"]),
        ("beta2", ["optimizer.beta2"]),
        ("corruption", ["task.corruption"]),
        ("parity", ["task.seed", "task.n", "task.k"]),
        ("phase", ["phase.threshold", "phase.tolerance"]),
        ("experiment", ["loss", "predict", "batch_size"]),
    ],
)
def test_fields_are_found_by_their_names_and_those_of_their_parts(name, first):
    paths = [f.path for part in chosen(name) for f in part.fields]
    assert paths[: len(first)] == first


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("optimiser", "did you mean optimizer?"),
        ("weight_decya", "did you mean weight_decay?"),
        ("xyzzy", "grokfast fields lists them all"),
    ],
)
def test_an_unknown_name_is_one_line(name, guess, capsys):
    assert main(["fields", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no field or part {name!r}" in err
    assert guess in err


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_are_as_wide_as_the_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["fields"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert width - 10 < max(map(len, lines)) <= width


def test_what_is_said_of_a_field(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["fields", "model.norm"]) == 0
    out = capsys.readouterr().out
    assert "model.norm: one of none, batch, layer; default none" in out
    assert "batch, layer: engine reference, compiled only" in out
    assert "model.norm: one of post, pre, none; default post" in out
    assert main(["fields", "lr", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["path"] == SHORT_NAMES["lr"]
    assert (row["kind"], row["bounds"], row["default"]) == ("number", "0.0 or more", "0.001")
