"""The MNIST files: ``grokfast data fetch``, ``verify`` and ``path``, and ``--data-dir``."""

from __future__ import annotations

import os
from pathlib import Path

from grokfast.cli.boundary import ENVIRONMENT
from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.storage.files import check_folder, user_path


def fetch(data_dir: str | None = None) -> None:
    """Downloads what is missing and prints the folder."""
    from grokfast import data

    print(data.fetch_mnist(data_dir))


def verify(data_dir: str | None = None) -> int | None:
    """Checks every byte of the four files and prints what was found."""
    from grokfast import data

    folder = _folder(data_dir) or _found(None)
    statuses = data.verify_mnist(folder)
    for name, status in statuses.items():
        print(f"{name}: {status}")
    return None if all(s.state == "ok" for s in statuses.values()) else ENVIRONMENT


def path(data_dir: str | None = None) -> None:
    """Prints the folder that a run would read."""
    print(_found(_folder(data_dir)))


def look_in(data_dir: str, task: str, name: str) -> None:
    """Makes ``--data-dir`` the first folder in which the files are looked for.

    Args:
        data_dir: the folder.
        task: registered name of the task that is to be built.
        name: what the user called it.

    Raises:
        UsageError: the task reads no files, or there is no such folder.
    """
    if task != "mnist":
        raise UsageError(f"--data-dir: {name!r} reads no files")
    check_folder(user_path(data_dir), f"--data-dir={data_dir}")
    # The environment, not the experiment: where files lie does not change a result.
    os.environ["GROKFAST_DATA"] = data_dir


def _folder(data_dir: str | None) -> Path | None:
    folder = user_path(data_dir) if data_dir is not None else None
    if folder is not None:
        check_folder(folder)
    return folder


def _found(folder: Path | None) -> Path:
    """Where the files are; EnvironmentProblem, with every place that was looked at, if nowhere."""
    from grokfast import data

    found = data.find_mnist(folder)
    if found is not None:
        return found
    try:
        data.load_mnist(folder, download=False)
    except EnvironmentProblem as problem:
        hint = f"grokfast data fetch downloads it, or {problem.hint}"
        raise EnvironmentProblem(problem.message, hint) from None
    return _found(folder)  # somebody has put them there since
