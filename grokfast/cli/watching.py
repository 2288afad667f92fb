"""A stop that is asked for comes: also where the main thread is busy with other people's code."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from grokfast.signals import STOPPING, handled

#: Seconds that the interpreter has to come out by itself.
GRACE = 1.5


class Terminated(BaseException):
    """A signal outside the trainer, which handles its own."""

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        known = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}
        return known.get(self.signum) or f"stopped by {signal.Signals(self.signum).name}"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Signals that ask for an end raise :class:`Terminated`, once, so that temporaries go.

    Python runs a handler between two of its own instructions, and what a handler raises may be
    caught by whoever is called just then (a loading library, a destructor). A thread hears of the
    signal from the system itself and ends the process where nothing has come of it. Within the
    trainer, whose handlers are other ones, it does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def handle(signum: int, frame: object) -> None:
        if not came:
            came.append(signum)
            raise Terminated(signum)

    def outside() -> bool:  # of the trainer
        return signal.getsignal(signal.SIGTERM) is handle

    read, write = os.pipe()
    os.set_blocking(write, False)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(read, over, outside), daemon=True)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        watcher.start()
        with handled(handle):
            yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(write)  # the watcher's end of file
        watcher.join()
        os.close(read)


def _watch(read: int, over: threading.Event, outside: Callable[[], bool]) -> None:
    while heard := os.read(read, 1):
        if heard[0] in STOPPING and outside() and not over.wait(GRACE) and outside():
            leave(Terminated(heard[0]))


def leave(stop: Terminated) -> None:
    """Ends the process as it is."""
    with contextlib.suppress(OSError):
        os.write(2, f"grokfast: {stop}\n".encode())
    os._exit(128 + stop.signum)


def end(code: int) -> int:
    """The exit code; but ends the process at once where a compiler still works in a thread for what
    nobody waits for any more."""
    main = threading.main_thread()
    if code >= 128 and any(not t.daemon and t is not main for t in threading.enumerate()):
        os._exit(code)
    return code
