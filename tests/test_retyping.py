"""A hint that names a command names one that can be typed, and gives what it says."""

import shlex

import pytest

import grokfast as gf
from grokfast.cli.commands import run
from grokfast.cli.overrides import build_grid
from grokfast.cli.preflight import preflight
from grokfast.cli.signatures import read_command
from grokfast.retyping import OPTIONS, again, command

GRIDS = {
    "as it is": gf.preset("addition-classification"),
    "axes and fields": gf.preset("addition-regression").grid(
        lr=[1e-4, 3e-3], weight_decay=5.0, model_seed=[1, 2], steps=200, stop="never"
    ),
    "fields without an option": gf.preset("modular-corruption").grid(
        **{"task.p": 11, "optimizer.beta2": [0.9, 0.98], "evaluation.thresholds": (0.5, 0.99)}
    ),
    "a setting": gf.preset("modular-minibatch").grid(batch=["8", "full"]),
    "one of one's own": gf.preset("modular-addition").setting(
        "batch", {"8": {"batch_size": 8, "lr": 1e-3}, "full": {"batch_size": 0}}
    ),
    "records": gf.preset("addition-regression").grid(
        **{
            "record.curve_points": 50,
            "record.embeddings": 5,
            "record.weights": True,
            "record.observables": ("norms", "spectral_norm:100"),
        }
    ),
    "less than the preset": gf.preset("power-division").grid(
        **{"record.weights": False, "record.observables": (), "record.curves": "log-spaced"}
    ),
    "curves at every evaluation": gf.preset("addition-regression").grid(
        **{"record.curves": "evaluated"}
    ),
}


def typed(line):
    """The grid that ``grokfast run`` makes of a command line."""
    words = shlex.split(line)
    assert words[:2] == ["grokfast", "run"]
    read = read_command("run", run)
    preflight(words[1:], {"run": read})  # raises
    given: dict[str, str] = {}
    for word in words[3:]:
        name, _, value = word.removeprefix("--").partition("=")
        joined = read.options[name].joined
        given[name] = f"{given[name]}{joined}{value}" if name in given else value
    fields = {name: given.get(name.replace("_", "-")) for name in OPTIONS}
    rest = {name: given.get(name) for name in ("set", "record", "setting")}
    return build_grid(words[2], fields, rest["set"], rest["record"], rest["setting"])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_command_gives_the_grid(grid):
    line = command(grid, out="NEW.h5")
    assert line.endswith(" --out=NEW.h5")
    assert typed(line).cells == grid.cells


def test_what_is_as_in_the_preset_is_not_typed():
    assert command(GRIDS["as it is"], out="x.h5") == (
        "grokfast run addition-classification --out=x.h5"
    )


def test_options_are_those_of_run():
    assert set(OPTIONS) < set(read_command("run", run).function.__annotations__)


def test_a_hint_keeps_what_was_asked_for():
    told = again(GRIDS["axes and fields"], **{"record.weights": True})
    line = told.removeprefix("run it again into a new file: ")
    assert typed(line) == GRIDS["axes and fields"].grid(**{"record.weights": True})


def test_of_what_cannot_be_typed_the_fields_are_named():
    own = gf.Grid(experiment=GRIDS["as it is"].experiment, name="mine")
    assert again(own, **{"record.weights": True}) == (
        "train the grid again, with record.weights=true, into a new file"
    )
    other = gf.Grid(experiment=GRIDS["a setting"].experiment, name="addition-regression")
    assert command(other, out="x.h5") is None
