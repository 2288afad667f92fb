"""Progress of a run: a bar over cell-steps on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from tqdm import tqdm

#: Seconds between plain lines where there is no terminal.
LINE_EVERY = 15.0


class Progress(Protocol):
    """What the trainer tells. ``done`` counts cell-steps that need no more work."""

    def note(self, line: str) -> None: ...
    def start(self, total: int, done: int) -> None: ...
    def update(self, done: int, counts: dict[str, int] | None) -> None: ...
    def stop(self) -> None: ...


def make_progress(wanted: bool | None) -> Progress:
    """Nothing for False; else a bar where stderr is a terminal, plain lines where not."""
    if wanted is False:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


class Silent:
    def note(self, line: str) -> None:
        pass

    def start(self, total: int, done: int) -> None:
        pass

    def update(self, done: int, counts: dict[str, int] | None) -> None:
        pass

    def stop(self) -> None:
        pass


def _counts_text(counts: dict[str, int]) -> str:
    return " ".join(f"{name} {n}" for name, n in counts.items() if n)


class Bar(Silent):
    """tqdm over cell-steps: rate in cell-steps/s, ETA, live counts per phase."""

    def note(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def start(self, total: int, done: int) -> None:
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.05,
            file=sys.stderr,
        )

    def update(self, done: int, counts: dict[str, int] | None) -> None:
        if counts is not None:
            self._bar.set_postfix_str(_counts_text(counts), refresh=False)
        self._bar.update(max(0, done - self._bar.n))

    def stop(self) -> None:
        self._bar.close()


class Lines(Silent):
    """One line every few seconds: percent, rate, time left, counts per phase."""

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def start(self, total: int, done: int) -> None:
        self._total, self._first = total, done
        self._begun = self._last = time.monotonic()
        self._counts: dict[str, int] = {}
        self._done = done

    def update(self, done: int, counts: dict[str, int] | None) -> None:
        self._counts = counts or self._counts
        self._done = max(self._done, done)
        if time.monotonic() - self._last >= LINE_EVERY:
            self._print()

    def stop(self) -> None:
        self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = (self._done - self._first) / max(1e-9, self._last - self._begun)
        left = (self._total - self._done) / rate if rate else float("inf")
        eta = (
            ""
            if self._done >= self._total
            else f", {tqdm.format_interval(left)} left"
            if rate
            else ""
        )
        found = _counts_text(self._counts)
        self.note(
            f"{self._done / self._total:6.1%} of {tqdm.format_sizeof(self._total)} cell-steps, "
            f"{tqdm.format_sizeof(rate)}/s{eta}{'; ' * bool(found)}{found}"
        )
