"""The signals that ask a process to stop, of users, terminals and schedulers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_NAMES = (
    *("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"),  # Ctrl+C, kill, a closed terminal, Ctrl+\
    *("SIGUSR1", "SIGUSR2"),  # Grid Engine's -notify, Slurm's --signal
    *("SIGXCPU", "SIGALRM", "SIGVTALRM", "SIGPROF"),  # limits of time
    *("SIGPWR", "SIGLOST", "SIGIO"),  # a power cut, a lost lock
)

#: What by itself would end the process without a save, where this system has it.
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

Handler = Callable[[int, Any], None]


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Has every signal of :data:`STOPPING` call ``handler``; afterwards all is as before.

    A SIGHUP that is ignored stays so: ``nohup`` asks for that. Outside the main thread, where
    Python has no say in signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    try:
        for signum in STOPPING:
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                before[signum] = signal.signal(signum, handler)
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)
