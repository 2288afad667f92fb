"""``grokfast bench``: this machine's engines against the eager loop, side by side."""

from __future__ import annotations

import json

from grokfast.cli.overrides import parse_device
from grokfast.errors import UsageError

_TASKS = "addition-classification", "addition-regression"


def act(models: str, task: str, device: str, as_json: bool) -> int | None:
    """Checks every contender against float64, then times them in turn.

    Raises:
        UsageError: numbers of models that are none, or another task.
    """
    try:
        numbers = [int(n) for n in models.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise UsageError(f"--models={models!r} is no list of numbers", hint="an example: 1,8,66")
    if task not in _TASKS:
        raise UsageError(f"--task={task!r} is not measured", hint=f"give {' or '.join(_TASKS)}")
    where = parse_device(device)

    from grokfast.bench import BASIC, FEWER_BITS, Work, side_by_side
    from grokfast.engines.base import resolve_device

    on = resolve_device(where)
    rows = side_by_side(
        BASIC | FEWER_BITS if on.type == "cuda" else BASIC,
        [Work(task)],
        numbers,
        on,
        repetitions=3,
        seconds=0.5,
        say=(lambda line: None) if as_json else print,
    )
    measured = list(rows)
    if as_json:
        print(json.dumps(measured, indent=1))
    return None
