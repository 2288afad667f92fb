"""Errors that a user can act on: a message, a hint, an exit code; and numbers in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``2 cells``, ``12,000 steps``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class GrokfastError(Exception):
    """Base: ``message`` says what is wrong, ``hint`` what would be right."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class UsageError(GrokfastError):
    """A wrong argument: nothing has run."""

    exit_code = 2


class EnvironmentProblem(GrokfastError):
    """Something the machine lacks: data, a library, disk space, permissions."""

    exit_code = 3


class Damaged(EnvironmentProblem):
    """A file that is not as it was written: nothing in it can be relied upon."""

    def __init__(self, path: object, reason: object) -> None:
        super().__init__(f"{path} is damaged: {reason}")
