"""How this package came to be here: its version, and whether it is whole."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from grokfast.errors import EnvironmentProblem

_PACKAGE = Path(__file__).parent


def version() -> str:
    """Of the installed package; ``unknown`` in a source tree that is not installed."""
    try:
        return importlib.metadata.version("grokfast")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def absent(engine: str, error: ImportError, otherwise: str) -> EnvironmentProblem:
    """Why a part of an engine that is made when the package is installed cannot be imported.

    Args:
        error: what importing it raised.
        otherwise: what to do where the package is installed.
    """
    tree = _PACKAGE.parent
    if (tree / "setup.py").is_file():
        return EnvironmentProblem(
            f"the {engine} engine is missing: this grokfast is the source tree {tree}, not an "
            "installation",
            hint="make setup there installs it; start Python in another folder, or with -P",
        )
    return EnvironmentProblem(f"the {engine} engine was not built ({error})", hint=otherwise)
