"""Which machines take part: all of one kind, so that a cell has the same bits on each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokfast import installation
from grokfast.cluster.engine import Machine
from grokfast.engines import facts
from grokfast.errors import EnvironmentProblem, UsageError


@dataclass(frozen=True)
class Choice:
    """Machines of one kind.

    Attributes:
        kind: ``engine``, ``device`` and ``engine_detail`` of all of them.
        why: which engine, and why, for people.
        others: those that are left out, and why.
    """

    kind: dict[str, str]
    machines: list[Machine]
    why: str
    others: dict[Machine, str]


def choose(told: Mapping[Machine, Mapping[str, Any]], was: Mapping[str, str], out: Path) -> Choice:
    """The machines to train on, of what each has told (:func:`grokfast.cluster.task.look`).

    Args:
        was: by what ``out`` was trained so far; nothing for a new run, of which the kind with most
            room is chosen.

    Raises:
        UsageError: the grid cannot be trained anywhere, or no machine is as those before.
        EnvironmentProblem: none of them can train it.
    """
    kinds: dict[str, list[Machine]] = {}
    others = {}
    version = installation.version()
    for machine, answer in told.items():
        if "kind" not in answer:
            if answer.get("final"):
                raise UsageError(answer["why"])
            others[machine] = answer["why"]
        elif answer["version"] != version:
            others[machine] = f"has grokfast {answer['version']}, not {version}"
        else:
            bits = {n: v for n, v in answer["kind"].items() if n != "device_name"}
            kinds.setdefault(json.dumps(bits, sort_keys=True), []).append(machine)
    if not kinds:
        some = next(iter(others), None)
        why = f": {some.host} {others[some]}" if some is not None else ""
        raise EnvironmentProblem(f"no machine of the Ray cluster can train this{why}")
    fitting = [kind for kind in kinds if not was or not _broken(was, json.loads(kind))]
    if not fitting:
        kind = json.loads(max(kinds, key=lambda kind: _room(kinds[kind])))
        raise UsageError(
            f"{out} was trained by another kind of machine than the Ray cluster has, which "
            f"{_differing(was, kind)}",
            hint="choose another --out",
        )
    chosen = max(fitting, key=lambda kind: _room(kinds[kind]))
    ours = json.loads(chosen)
    for kind, machines in kinds.items():
        if kind != chosen:
            others |= dict.fromkeys(machines, _differing(ours, json.loads(kind)))
    first = kinds[chosen][0]
    return Choice(ours, kinds[chosen], told[first]["choice"], others)


def _room(machines: list[Machine]) -> int:
    return sum(machine.slots for machine in machines)


def _broken(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of what decides the bits, and is not as it was."""
    changed = [name for name in ("engine", "device") if was[name] != now[name]]
    known = (facts.read(kind["engine_detail"]) for kind in (was, now))
    return changed or facts.broken(*known)


def _differing(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How a machine differs from those that take part."""
    names = _broken(was, now)
    before, here = ({**facts.read(k["engine_detail"]), **_plain(k)} for k in (was, now))

    def told(kind: facts.Facts) -> str:
        return ", ".join(f"{n} {' and '.join(kind.get(n, ('unknown',)))}" for n in names)

    return f"has {told(here)}, not {told(before)}: the bits would differ"


def _plain(kind: Mapping[str, str]) -> facts.Facts:
    return {name: (kind[name],) for name in ("engine", "device")}
