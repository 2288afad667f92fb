"""``grokfast data``: the MNIST files."""

from __future__ import annotations

from pathlib import Path

from grokfast.cli.boundary import ENVIRONMENT
from grokfast.cli.signatures import closest
from grokfast.errors import EnvironmentProblem, UsageError

_ACTIONS = ("fetch", "verify", "path")


def act(action: str, folder: Path | None) -> int | None:
    """Does one of ``fetch``, ``verify`` and ``path``.

    Raises:
        UsageError: another action.
        EnvironmentProblem: the files are not here, or damaged.
    """
    if action not in _ACTIONS:
        close = closest(action, _ACTIONS)
        raise UsageError(
            f"unknown action {action!r} for 'data'",
            hint=f"did you mean {close}?" if close else f"there are {', '.join(_ACTIONS)}",
        )
    from grokfast import data

    if action != "fetch" and folder is not None and not folder.expanduser().is_dir():
        raise UsageError(f"no such folder: {folder}")
    if action == "fetch":
        print(data.fetch_mnist(folder))
        return None
    if folder is None or action == "path":
        found = data.find_mnist(folder)
        if found is None:
            _say_where_it_was_looked_for(folder)
        if action == "path":
            print(found)
            return None
        folder = found
    assert folder is not None
    statuses = data.verify_mnist(folder)
    for name, status in statuses.items():
        print(f"{name}: {status}")
    return None if all(s.state == "ok" for s in statuses.values()) else ENVIRONMENT


def _say_where_it_was_looked_for(folder: Path | None) -> None:
    from grokfast import data

    try:
        data.load_mnist(folder, download=False)
    except EnvironmentProblem as problem:
        hint = f"grokfast data fetch downloads it, or {problem.hint}"
        raise EnvironmentProblem(problem.message, hint) from None
