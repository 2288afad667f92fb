"""Progress tells the truth: of steps that were trained, not of those that early stops saved."""

import io
import sys

import pytest

import grokfast as gf
from grokfast import progress
from grokfast.progress import Bar, Lines, Rate, Silent, make_progress, rate_text


class Clock:
    """Seconds as a test says."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_rate_is_of_trained_steps(clock, capsys):
    lines = Lines()
    lines.start(total=100_000, done=20_000)
    for second in range(1, 21):
        clock.now += 1
        # Of 3,000 steps that need no more work 1,000 are trained, the rest is saved by a stop.
        lines.update(20_000 + 3000 * second, 1000 * second, {"grokking": second, "confusion": 0})
    told = capsys.readouterr().err
    assert told == " 65.0% of 100k cell-steps, 1.00k/s, 00:35 left; grokking 15\n"


def test_the_rate_is_of_the_last_minute(clock):
    rate, trained = Rate(), 0
    for _ in range(600):
        clock.now += 1
        trained += 100
        rate.of(trained)
    for _ in range(61):
        clock.now += 1
        trained += 10
    for _ in range(70):
        clock.now += 1
        trained += 10
        found = rate.of(trained)
    assert found == pytest.approx(10)
    assert len(rate._looks) < 70


def test_nothing_trained_is_no_rate(clock):
    rate = Rate()
    assert rate_text(rate.of(0), 500) == "0.00/s"
    clock.now += 2
    assert rate_text(rate.of(0), 500) == "0.00/s"
    assert rate_text(10.0, 600) == "10.0/s, 01:00 left"
    assert rate_text(10.0, 0) == "10.0/s"


def test_a_bar_shows_the_same(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = make_progress(None)
    assert isinstance(bar, Bar)
    bar.start(total=1000, done=0)
    clock.now += 10
    bar.update(900, 100, {"grokking": 2})
    bar.stop()
    told = terminal.getvalue()
    assert "10.0/s, 00:10 left; grokking 2" in told
    assert "90%" in told


def test_a_narrow_terminal_keeps_the_counts(clock, monkeypatch):
    """By letters, zeros too: at 80 columns names take what is left for the bar."""
    counts = {"comprehension": 5, "grokking": 4, "memorization": 9, "confusion": 0, "diverged": 0}
    letters = dict(zip(counts, "CGMXD", strict=True))
    for columns, says in ((80, "C5 G4 M9 X0 D0"), (200, "comprehension 5 grokking 4")):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(progress, "_columns", lambda columns=columns: columns)
        bar = Bar()
        bar.start(total=44_100_000, done=0, letters=letters)
        bar._bar.ncols, bar._bar.dynamic_ncols = columns, None
        clock.now += 10
        bar.update(22_000_000, 2_000_000, counts)
        bar.stop()
        drawn = terminal.getvalue().split("\r")[-1].rstrip("\n")
        assert len(drawn) <= columns
        assert f"{says}" in drawn and "left" in drawn


def test_the_trainer_tells_the_letters_of_its_rule(monkeypatch):
    told = {}

    class Listening(Silent):
        def start(self, total, done, letters=None):
            told.update(letters)

    monkeypatch.setattr("grokfast.trainer.make_progress", lambda wanted: Listening())
    grid = gf.preset("addition-classification").grid(lr=1e-2, weight_decay=0.0, width=4, steps=2)
    gf.run(grid, engine="reference", device="cpu", threads=1)
    assert told == dict(zip((*gf.PHASES, "diverged"), "CGMXD", strict=True))


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(None), Lines)
    assert isinstance(make_progress(False), Silent)


@pytest.mark.parametrize("kind", [Bar, Lines])
@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), BrokenPipeError(), ValueError()]
)
def test_a_terminal_that_has_gone_ends_no_run(kind, error, clock, monkeypatch):
    class Closed(Terminal):
        def write(self, text):
            raise error

        def flush(self):
            raise error

    monkeypatch.setattr(sys, "stderr", Closed())
    shown = kind()
    shown.note("engine: some")
    shown.start(total=10, done=0)
    clock.now += 100
    shown.update(5, 5, {"grokking": 1})
    shown.stop()


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_what_the_trainer_tells(engine, monkeypatch):
    """Cells that stop early: all of their budget is done, and what they trained is trained."""
    monkeypatch.setattr("grokfast.engines.compiled.CompiledEngine.eager", True)
    told = []

    class Listening(Silent):
        def update(self, done, trained, counts):
            told.append((done, trained))

    monkeypatch.setattr("grokfast.trainer.make_progress", lambda wanted: Listening())
    grid = gf.preset("addition-classification").grid(
        lr=[1e-2, 3e-3], weight_decay=0.0, width=24, steps=1500
    )
    r = gf.run(grid, engine=engine, device="cpu", threads=1)
    assert r["steps_done"].sum() < 3000
    assert told[-1] == (3000, r["steps_done"].sum())
    # Blocks are looked at every few passes: a cell that has stopped counts until then.
    assert all(trained <= r["steps_done"].sum() + 50 for _, trained in told)
