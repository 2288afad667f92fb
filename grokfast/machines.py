"""Which machines took part in a run, and whether all of them compute the same bits.

A results file lists them under ``machines``, those of a kind together: ``engine``, ``device``,
``device_name``, ``engine_detail`` (facts, see :mod:`grokfast.engines.facts`) and ``hosts``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

#: Values by name; a merged file may have several of one.
Facts = dict[str, tuple[str, ...]]

#: What machines of a kind share.
_KIND = ("engine", "device", "device_name", "engine_detail")


def read(detail: str) -> Facts:
    """The facts of a ``detail``: names and values, ``level avx2, draws 3f9a12cd``."""
    found: Facts = {}
    for part in filter(None, detail.split(", ")):
        name, _, value = part.partition(" ")
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), value)))
    return found


def engine_and_device(provenance: Mapping[str, Any]) -> Facts:
    """Engine and device, ``cuda:1`` as ``cuda``: they compute alike."""
    return {
        name: tuple(
            dict.fromkeys(
                part.partition(":")[0] for part in str(provenance.get(name, "")).split(", ")
            )
        )
        for name in ("engine", "device")
    }


def machines(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The machines of a run, by kind; of older files, which name no hosts, the kinds alone."""
    listed = provenance.get("machines")
    if listed is not None:
        return json.loads(listed) if isinstance(listed, str) else list(listed)
    shards = [json.loads(text) for name, text in provenance.items() if name.startswith("shard_")]
    if shards:
        return together(map(machines, shards))
    return [{name: str(provenance.get(name, "")) for name in _KIND} | {"hosts": []}]


def together(parts: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The machines of several runs, each kind and each host once."""
    hosts: dict[tuple[str, ...], dict[str, None]] = {}
    for kind in (kind for part in parts for kind in part):
        own = hosts.setdefault(tuple(kind[name] for name in _KIND), {})
        own |= dict.fromkeys(kind["hosts"])
    return [dict(zip(_KIND, kind, strict=True)) | {"hosts": [*h]} for kind, h in hosts.items()]


def differing(kinds: Iterable[Mapping[str, Any]]) -> Facts:
    """Facts that decide the bits and have several values; of what some do not tell (older files
    tell less), nothing is said."""
    kinds = list(kinds)
    by_engine = [engine_and_device(kind) for kind in kinds]
    if all(facts == by_engine[0] for facts in by_engine):
        by_engine = [read(str(kind["engine_detail"])) for kind in kinds]
    found: Facts = {}
    for name, values in (pair for facts in by_engine for pair in facts.items()):
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *values)))
    return {name: values for name, values in found.items() if len(values) > 1}


def told(facts: Facts) -> str:
    """``level avx2 and avx512, libm a and b``."""
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in facts.items())
