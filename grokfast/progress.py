"""Progress of a run: a bar over cell-steps on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

from tqdm import tqdm

#: Seconds between plain lines where there is no terminal.
LINE_EVERY = 15.0

#: Seconds that the rate is a mean over, at most and between two looks.
_WINDOW, _LOOK = 60.0, 1.0

#: Columns of a bar beside its text: percent, a few of the bar itself, steps, time.
_AROUND = 36

#: Seconds between two drawings of the bar, at least: some engines tell of every step.
_REDRAW = 0.1


class Progress(Protocol):
    """What the trainer tells: cell-steps that need no more work (``done``), and those of them that
    this run has trained. An early stop makes many steps done, and none of them trained. ``letters``
    stand for the names of the counts where there is little room."""

    def note(self, line: str) -> None: ...
    def start(self, total: int, done: int, letters: Mapping[str, str] | None = None) -> None: ...
    def update(self, done: int, trained: int, counts: dict[str, int] | None) -> None: ...
    def stop(self) -> None: ...


def make_progress(wanted: bool | Progress | None) -> Progress:
    """One that is made already; nothing for False; else a bar where stderr is a terminal that can
    go back in a line, plain lines where not."""
    if not isinstance(wanted, bool | None):
        return wanted
    if wanted is False or sys.stderr is None:
        return Silent()
    moves = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Bar() if moves else Lines()


class Silent:
    def note(self, line: str) -> None:
        pass

    def start(self, total: int, done: int, letters: Mapping[str, str] | None = None) -> None:
        pass

    def update(self, done: int, trained: int, counts: dict[str, int] | None) -> None:
        pass

    def stop(self) -> None:
        pass


class Rate:
    """Trained cell-steps a second, over the last minute."""

    def __init__(self) -> None:
        self._looks = deque([(time.monotonic(), 0)])

    def of(self, trained: int) -> float:
        """The rate when so many have been trained."""
        now = time.monotonic()
        if now - self._looks[-1][0] >= _LOOK:
            self._looks.append((now, trained))
        while len(self._looks) > 2 and now - self._looks[1][0] > _WINDOW:
            self._looks.popleft()
        since, before = self._looks[0]
        return max(0, trained - before) / max(1e-9, now - since)


def rate_text(rate: float, left: int) -> str:
    """``8.50k/s, 02:10 left``: the time at most, if no cell stopped before its budget."""
    told = f"{tqdm.format_sizeof(rate)}/s"
    seconds = left / rate if rate else math.inf
    # Beyond this a number of seconds is no time that anybody waits for.
    return f"{told}, {tqdm.format_interval(seconds)} left" if left and seconds < 1e10 else told


def _counts_text(counts: dict[str, int]) -> str:
    return " ".join(f"{name} {n}" for name, n in counts.items() if n)


def _short_text(counts: dict[str, int], letters: Mapping[str, str]) -> str:
    """``C5 G4 M9 X0``."""
    return " ".join(f"{letters[name]}{n}" for name, n in counts.items() if name in letters)


def _columns() -> float:
    """Of the terminal behind stderr; infinity where nothing is known of it."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or math.inf
    return math.inf


@contextlib.contextmanager
def _heard_or_not() -> Iterator[None]:
    """A terminal that has been closed, a full disk behind a log: no reason to end a run."""
    with contextlib.suppress(OSError, ValueError):
        yield


class Shown(Silent):
    """What bar and lines have in common."""

    def start(self, total: int, done: int, letters: Mapping[str, str] | None = None) -> None:
        self.letters = letters or {}
        self.total, self.done, self.trained = total, done, 0
        self.counts: dict[str, int] = {}
        self.rate = Rate()
        self.begin()

    def update(self, done: int, trained: int, counts: dict[str, int] | None) -> None:
        self.done, self.trained = max(self.done, done), trained
        self.counts = self.counts if counts is None else counts
        self.show()

    def begin(self) -> None:
        pass

    def show(self) -> None:
        raise NotImplementedError

    def text(self, room: float = math.inf) -> str:
        """Rate, time left, and cells by phase: by letter where names take more columns than there
        is room for."""
        rate = rate_text(self.rate.of(self.trained), self.total - self.done)
        found = _counts_text(self.counts)
        if len(rate) + 2 + len(found) > room:
            found = _short_text(self.counts, self.letters) or found
        return f"{rate}{'; ' * bool(found)}{found}"


class Bar(Shown):
    """tqdm over cell-steps, with the rate of those that were trained."""

    def note(self, line: str) -> None:
        with _heard_or_not():
            tqdm.write(line, file=sys.stderr)

    def begin(self) -> None:
        self._drawn = 0.0
        self._bar: tqdm | None = None
        with _heard_or_not():
            self._bar = tqdm(
                total=self.total,
                initial=self.done,
                unit_scale=True,
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
                file=sys.stderr,
            )

    def show(self) -> None:
        soon = self.done < self.total and time.monotonic() - self._drawn < _REDRAW
        if soon or self._bar is None:
            return
        self._drawn = time.monotonic()
        with _heard_or_not():
            self._bar.set_postfix_str(self.text(_columns() - _AROUND), refresh=False)
            self._bar.update(max(0, self.done - self._bar.n))

    def stop(self) -> None:
        if self._bar is None:
            return
        with _heard_or_not():
            self._bar.refresh()
            self._bar.close()


class Lines(Shown):
    """One line every few seconds: percent, rate, time left, counts per phase."""

    def note(self, line: str) -> None:
        with _heard_or_not():
            print(line, file=sys.stderr, flush=True)

    def begin(self) -> None:
        self._last = time.monotonic()

    def show(self) -> None:
        self.rate.of(self.trained)
        if time.monotonic() - self._last >= LINE_EVERY:
            self._print()

    def stop(self) -> None:
        self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        share = self.done / self.total if self.total else 1.0
        self.note(f"{share:6.1%} of {tqdm.format_sizeof(self.total)} cell-steps, {self.text()}")
