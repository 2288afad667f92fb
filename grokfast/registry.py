"""Registries: names that stand for code, in files, presets and on the command line.

Tasks, models, losses, optimizers, phase rules and observables are each an entry in one of them. A
package outside grokfast adds its own with the decorators that ``grokfast`` exports.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from grokfast.errors import UsageError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Name -> what is registered under it; an unknown name is refused with the closest one.

    Args:
        kind: what an entry is called in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._foreign: set[str] = set()

    def __getitem__(self, name: str) -> T:
        """The entry.

        Raises:
            UsageError: no such name.
        """
        if name not in self._entries:
            hint = f"register your own with @grokfast.{self.kind} first"
            close = difflib.get_close_matches(name, self._entries, n=1)
            raise UsageError(
                f"unknown {self.kind} {name!r}; known are {', '.join(self._entries)}",
                hint=f"did you mean {close[0]}?" if close else hint,
            )
        return self._entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or the default where there is none."""
        return self._entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def add(self, name: str, entry: T) -> T:
        self._entries[name] = entry
        self._foreign.discard(name)
        return entry

    def decorator(self, name: str) -> Callable[[T], T]:
        """``@registry.decorator("name")`` registers what it decorates."""
        return lambda entry: self.add(name, entry)

    def tolerate(self, name: str) -> None:
        """From now on an experiment may carry this name, though nothing is registered under it:
        what a file holds can be read and drawn, but not trained."""
        if name not in self._entries:
            self._foreign.add(name)

    def admits(self, name: object) -> bool:
        """Whether an experiment may carry this name."""
        return name in self._entries or name in self._foreign
