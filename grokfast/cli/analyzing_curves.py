"""``grokfast analyze --curves``: crossings, dips and medians of accuracies; sharpness."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from grokfast.analyses.dips import REACHED, Signature, signature
from grokfast.cli import overrides, reading
from grokfast.cli.tables import number, print_table, without_nan
from grokfast.errors import UsageError
from grokfast.fields import value_text
from grokfast.models import Mlp
from grokfast.results import Results

#: Column -> heading and format; a step of -1 is none.
_COLUMNS = {
    "t_train": (f"T(train) {REACHED:.0%}", "{:,.0f}"),
    "t_val": (f"T(val) {REACHED:.0%}", "{:,.0f}"),
    "gap": ("gap", "{:.3g}"),
    "dips": ("dips", "{:.0f}"),
    "first_dip": ("first dip", "{:,.0f}"),
    "spacing": ("spacing", "{:,.0f}"),
    "below": (f"below {REACHED:.0%}", "{:.1%}"),
    "last_train": ("training", "{:.4f}"),
    "last_val": ("validation", "{:.4f}"),
    "every": ("recorded every", "{:,.0f}"),
}
#: More cells than this have no columns of windows side by side.
_MOST = 8


def chosen(file: str, curves: bool, of_neurons: dict[str, Any], of_curves: dict[str, Any]) -> bool:
    """Whether curves are to be analysed: where that is asked for, or the networks of the file have
    no neurons to analyse.

    Raises:
        UsageError: an option of one analysis with the other, or a file that cannot be read.
    """
    given, own = (
        next((name for name, value in options.items() if value), None)
        for options in (of_neurons, of_curves)
    )
    if not curves and given is None:
        curves = not isinstance(reading.load(file).grid.experiment.model, Mlp)
    if curves and given is not None:
        raise UsageError(f"--{given} belongs to the analysis of neurons; leave out --curves")
    if not curves and own is not None:
        raise UsageError(f"--{own} belongs to --curves")
    return curves


def analyze(file: str, cell: str | None, *, window: str | None, sharp: bool, as_json: bool) -> None:
    """Prints one row a cell, and the mean validation accuracies by window.

    Raises:
        UsageError: a malformed window, an unknown axis or cell, or a file without curves.
    """
    steps = overrides.parse_count("window", window, example=1000) or 1000
    wanted = overrides.parse_cells(cell)
    results = reading.load(file)
    reading.check_cells(wanted, results)
    cells = range(len(results)) if wanted is None else [results.find(**c) for c in wanted]
    found = {k: signature(results, k, window=steps) for k in dict.fromkeys(cells)}
    rows = [_row(results, k, one) for k, one in found.items()]
    columns = dict(_COLUMNS)
    if sharp:
        from grokfast.analyses.sharpness import sharpness_of_cell  # imports torch

        columns["sharpness"] = ("sharpness", "{:.4g}")
        for row, k in zip(rows, found, strict=True):
            row["sharpness"] = sharpness_of_cell(results, k)
    if as_json:
        for row, one in zip(rows, found.values(), strict=True):
            row["windows"] = one.windows.tolist()
            row["window_val"] = one.window_val.tolist()
        print(json.dumps([without_nan(row) for row in rows], indent=2))
        return
    axes = list(results.axes)
    table = [[*axes, *(heading for heading, _ in columns.values())]]
    for row in rows:
        numbers = [number(row[name], form) for name, (_, form) in columns.items()]
        table.append([*(value_text(row[axis]) for axis in axes), *numbers])
    print_table(table)
    print(f"below, training, validation: of the last {steps:,} steps; the latter two medians")
    if len(rows) <= _MOST:
        print()
        _print_windows(list(found.values()), steps)


def _row(results: Results, cell: int, found: Signature) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in _COLUMNS}
    for name in ("t_train", "t_val", "first_dip"):
        values[name] = np.nan if values[name] < 0 else values[name]
    axes = {name: results[name][cell : cell + 1].tolist()[0] for name in results.axes}
    return {"run": int(results["run"][cell]), **axes, **values}


def _print_windows(found: list[Signature], steps: int) -> None:
    """A row for each window, a column for each cell."""
    print(f"mean validation accuracy by {steps:,} steps, a column for each cell above")
    means = [dict(zip(one.windows.tolist(), one.window_val, strict=True)) for one in found]
    print_table(
        [
            [f"{begin:,}", *(number(one.get(begin, np.nan), "{:.4f}") for one in means)]
            for begin in sorted({begin for one in means for begin in one})
        ]
    )
