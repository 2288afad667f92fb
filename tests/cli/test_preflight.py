"""The wall in process: what passes, rewritten how; and fire behind it."""

import ast

import pytest

from grokfast.cli import Job, _inert
from grokfast.cli.commands import COMMANDS
from grokfast.cli.preflight import Call, Help, Version, preflight
from grokfast.cli.signatures import closest, read_command
from grokfast.errors import UsageError

COMMANDS_READ = {name: read_command(name, function) for name, function in COMMANDS.items()}


def passed(*argv):
    """Positional values and options that fire will see, evaluated as fire evaluates them."""
    call = preflight(list(argv), COMMANDS_READ)
    assert isinstance(call, Call)
    command, *rest = call.arguments
    values, options = [], {}
    for word in rest:
        name, equals, literal = word.partition("=")
        if word.startswith("--"):
            assert equals
            options[name] = ast.literal_eval(literal)
        else:
            values.append(ast.literal_eval(word))
    return command, values, options


def refused(*argv):
    with pytest.raises(UsageError) as error:
        preflight(list(argv), COMMANDS_READ)
    return str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "1e5",
        "-1",
        "run#2.h5",
        "{a:b}",
        "a,b",
        "'",
        '"',
        "\\",
        "a b",
        "None",
        "True",
        "()",
        "ä\n\udc80",
    ],
)
def test_every_value_arrives_as_typed(text):
    assert passed("run", "p", f"--out={text}")[2] == {"--out": text}
    if not text.startswith("-"):
        assert passed("run", "p", "--out", text)[2] == {"--out": text}
        assert passed("info", text)[1] == [text]


@pytest.mark.parametrize("text", ["-1", "-1e-3", "-.5", "-inf"])
def test_negative_numbers_are_values(text):
    assert passed("run", "p", "--lr", text)[2] == {"--lr": text}


def test_underscores_are_dashes():
    assert passed("run", "p", "--weight_decay=1")[2] == {"--weight_decay": "1"}
    assert passed("run", "p", "--weight-decay=1")[2] == {"--weight_decay": "1"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--dry-run", True), ("--dry-run=yes", True), ("--dry-run=1", True),
        ("--dry-run=False", False), ("--dry-run=0", False), ("--no-dry-run", False),
        ("--nodry-run", False), ("--no-dry-run=no", True),
    ],
)  # fmt: skip
def test_switches(flag, value):
    assert passed("run", "p", flag)[2] == {"--dry_run": value}


def test_a_switch_takes_no_argument():
    assert passed("run", "--dry-run", "p")[1] == ["p"]


def test_options_may_come_first():
    command, values, options = passed("export", "--out", "x.csv", "a.h5", "--long")
    assert (command, values) == ("export", ["a.h5"])
    assert options == {"--out": "x.csv", "--long": True}


def test_set_and_cell_may_be_repeated():
    assert passed("run", "p", "--set=a=1,2", "--set=b=3")[2] == {"--set": "a=1,2,b=3"}
    assert passed("plot", "f", "--cell=lr:1", "--cell=lr:2")[2] == {"--cell": "lr:1;lr:2"}


def test_several_files_become_one_list():
    assert passed("merge", "a", "b#1", "--out=m")[1] == [["a", "b#1"]]
    assert "needs A B ..." in refused("merge", "--out=m")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["run", "p", "--learning-rate=1"], "did you mean --lr?"),
        (["run", "p", "--wd=1"], "did you mean --weight-decay?"),
        (["run", "p", "--weigth-decay=1"], "did you mean --weight-decay?"),
        (["run", "p", "--width=1"], "did you mean --set=width=...?"),
        (["run", "p", "--optimizer.beta2=1"], "did you mean --set=optimizer.beta2=...?"),
        (["run", "p", "--beta2=1"], "did you mean --set=beta2=...?"),
        (["plot", "f", "-o", "x.png"], "did you mean --out?"),
        (["plot", "f", "--output=x.png"], "did you mean --out?"),
        (["plot", "f", "--zzz=1"], "grokfast plot --help lists them"),
        (["PLOT"], "did you mean plot?"),
        (["comp"], "did you mean completion?"),
        (["agree", "a.h5", "b", "c"], "unexpected argument 'c' for 'agree'; it takes FILE [REF"),
        (["info", ""], "'info' needs FILE"),
        (["presets", "x"], "unexpected argument 'x' for 'presets'; it takes options only"),
        (["run", "p", "-1"], "unexpected argument '-1'"),
    ],
)
def test_refusals_say_what_would_be_right(argv, says):
    assert says in refused(*argv)


def test_help_and_version_win_over_what_is_wrong():
    assert preflight([], COMMANDS_READ) == Help(None)
    assert preflight(["--help"], COMMANDS_READ) == Help(None)
    assert preflight(["run", "--lrr=3", "-h"], COMMANDS_READ) == Help("run")
    assert preflight(["run", "--lrr=3", "--version"], COMMANDS_READ) == Version()
    assert "unknown command" in refused("rum", "--help")


def test_debug_is_accepted_everywhere():
    assert passed("--debug", "info", "f") == passed("info", "--debug", "f") == ("info", ["f"], {})


@pytest.mark.parametrize("command", list(COMMANDS))
def test_signatures_keep_the_rules(command):
    """No parameter of fire's pitfalls, and a description of each."""
    from fire import docstrings

    function, read = COMMANDS[command], COMMANDS_READ[command]
    parameters = {p.parameter for p in (*read.positionals, *read.options.values())}
    assert not any(p.startswith("no") or p in ("help", "debug", "version") for p in parameters)
    told = {a.name: a.description for a in docstrings.parse(function.__doc__).args or ()}
    assert set(told) == parameters, "a continuation line with a colon reads as a new argument"
    assert all(text and text.rstrip().endswith(".") for text in told.values())


def test_behind_the_wall_fire_finds_nothing_to_chain_into():
    """Without the preflight too, a stray word fails before the work starts."""
    import fire

    begun = []

    def work(x="1"):
        begun.append(x)

    def start(job):
        job._start()

    commands = {"work": _inert(work)}
    for stray in ("upper", "_start", "__class__", "extra"):
        with pytest.raises(SystemExit) as exit:
            fire.Fire(commands, command=["work", "--x=2", stray], name="t", serialize=start)
        assert exit.value.code == 2
    assert begun == []
    fire.Fire(commands, command=["work", "--x='2'"], name="t", serialize=start)
    assert begun == ["2"]
    assert dir(Job(work)) == []


@pytest.mark.parametrize(
    ("word", "expected"), [("phasse", "phases"), ("emb", "embeddings"), ("xyz", None), ("p", None)]
)
def test_closest(word, expected):
    assert closest(word, ("phases", "smooth", "embeddings")) == expected
