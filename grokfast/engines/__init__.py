"""Engines: what trains. Each is imported only when asked for."""

from grokfast.engines.base import (
    ENGINE_NAMES,
    Engine,
    Tick,
    choose_engine,
    make_engine,
    resolve_device,
)

__all__ = ["ENGINE_NAMES", "Engine", "Tick", "choose_engine", "make_engine", "resolve_device"]
