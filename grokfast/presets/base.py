"""What a preset is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grokfast.grid import Grid

LIU = "Liu et al. 2022 (arXiv 2205.10343)"
SHABALIN = "Shabalin, Sadrtdinov, Shabalin 2023"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named grid: what it reproduces, where it comes from, and how to build it."""

    title: str
    source: str
    build: Callable[[], Grid]
