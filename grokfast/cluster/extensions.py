"""A user's own tasks, models and rules: their files travel, and workers import them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.grid import Grid
from grokfast.losses import LOSSES
from grokfast.models import MODELS
from grokfast.observables import OBSERVABLES
from grokfast.optimizers import OPTIMIZERS
from grokfast.phases import PHASE_RULES
from grokfast.storage.files import write_whole
from grokfast.tasks.base import TASKS

_REGISTRIES: tuple[Mapping[str, Any], ...] = (
    TASKS, MODELS, LOSSES, OPTIMIZERS, OBSERVABLES, PHASE_RULES,
)  # fmt: skip


def pack(grid: Grid, folder: Path) -> list[str]:
    """Copies the files of all that a grid names and grokfast does not have.

    Returns:
        Their names in ``folder``.

    Raises:
        UsageError: something that was made outside of a file.
    """
    names = []
    for module in _outside(grid):
        file = Path(getattr(module, "__file__", None) or "")
        if not file.is_file():
            raise UsageError(
                f"what {module.__name__} registers is in no file, and cannot be sent to workers",
                hint="put it into a file of its own, and import that",
            )
        content = file.read_bytes()
        mark = hashlib.sha256(content).hexdigest()[:12]
        names.append(f"{file.stem}.{mark}.py")
        write_whole(folder / names[-1], [content])
    return names


def _outside(grid: Grid) -> Iterator[ModuleType]:
    text, seen = grid.to_json(), set()
    for registry in _REGISTRIES:
        for name, entry in registry.items():
            home = _home(entry)
            own = home.partition(".")[0] == "grokfast" or home not in sys.modules
            # An observable is named as norms or norms:100.
            if not own and home not in seen and f'"{name}' in text:
                seen.add(home)
                yield sys.modules[home]


def _home(entry: Any) -> str:
    """The module that an entry was made in: a class, an instance, or a function and its notes."""
    if isinstance(entry, type):
        return entry.__module__
    functions = [v for v in getattr(entry, "__dict__", {}).values() if hasattr(v, "__module__")]
    homes = [type(entry).__module__, *(str(f.__module__) for f in functions)]
    return next((h for h in homes if h.partition(".")[0] != "grokfast"), homes[0])


def unpack(folder: Path, names: list[str]) -> None:
    """Imports the files that :func:`pack` has left; each once a process.

    Raises:
        EnvironmentProblem: one cannot be imported here.
    """
    for name in names:
        stem, mark, _ = name.rsplit(".", 2)
        if getattr(sys.modules.get(stem), "__grokfast_mark__", None) == mark:
            continue
        spec = importlib.util.spec_from_file_location(stem, folder / name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[stem] = module  # where dataclasses look for their own
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[stem]
            raise EnvironmentProblem(
                f"{stem}.py cannot be imported: {type(error).__name__}: {error}"
            ) from error
        vars(module)["__grokfast_mark__"] = mark
