"""``grokfast analyze``: what the neurons of trained modular nets have learned."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from grokfast.analyses import (
    Neurons,
    Pruning,
    frobenius,
    is_multiplicative,
    neuron_ipr,
    pruning_of_cell,
)
from grokfast.analyses.neurons import no_weights
from grokfast.cli import overrides, reading
from grokfast.cli.tables import number, print_table, without_nan
from grokfast.export import check_target, write_csv
from grokfast.fields import value_text
from grokfast.results import Results
from grokfast.storage.files import user_path

#: A neuron with a higher IPR counts as periodic.
_PERIODIC = 0.5
#: Numbers of removed neurons at which a pruned net is judged: none, tenths, all.
_LOOKS = 11
_PARTS = {
    "train": "training",
    "val": "validation",
    "corrupted": "corrupted",
    "uncorrupted": "uncorrupted",
}
#: Column -> heading and format.
_COLUMNS = {
    "ipr": ("IPR", "{:.4f}"),
    "periodic": ("> 0.5", "{:.1%}"),
    "norm_u": ("|U|", "{:.4g}"),
    "norm_v": ("|V|", "{:.4g}"),
    "norm_w": ("|W|", "{:.4g}"),
    "final_train_acc": ("training", "{:.4f}"),
    "final_val_acc": ("validation", "{:.4f}"),
}


def analyze(
    file: str,
    cell: str | None,
    *,
    prune: bool,
    neurons: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Prints one row a cell, and tables of pruning; writes one row a neuron.

    Raises:
        UsageError: a target that cannot be, an unknown axis or cell, a file without weights, or
            nets of another kind.
    """
    if neurons is not None:
        check_target(neurons, formats=("csv",), overwrite=overwrite)
    chosen = overrides.parse_cells(cell)
    results = reading.load(file)
    reading.check_cells(chosen, results)
    if not results.weights:
        raise no_weights(results)
    cells = range(len(results)) if chosen is None else [results.find(**c) for c in chosen]
    nets = {k: Neurons.of_cell(results, k) for k in dict.fromkeys(cells)}
    ipr = {k: neuron_ipr(n, multiplicative=is_multiplicative(results, k)) for k, n in nets.items()}
    rows = [_row(results, k, nets[k], ipr[k]) for k in nets]
    pruned = [pruning_of_cell(results, k, looks=_LOOKS) for k in nets] if prune else []
    if as_json:
        for row, one in zip(rows, pruned, strict=False):
            row["pruning"] = _as_dict(one)
        print(json.dumps([without_nan(row) for row in rows], indent=2))
    else:
        _print_rows(rows, list(results.axes))
        for row, one in zip(rows, pruned, strict=False):
            print()
            _print_pruning(_name(row, list(results.axes)), one)
    if neurons is not None:
        write_csv(_per_neuron(results, nets, ipr), user_path(neurons))
        if not as_json:
            print(neurons)


def _row(results: Results, cell: int, net: Neurons, ipr: np.ndarray) -> dict[str, Any]:
    """What is told of one cell; accuracies that the file does not have are NaN."""
    alive = ipr[np.isfinite(ipr)]
    return {
        "run": int(results["run"][cell]),
        **{name: results[name][cell : cell + 1].tolist()[0] for name in results.axes},
        "ipr": float(alive.mean()) if len(alive) else np.nan,
        "periodic": float((alive > _PERIODIC).sum() / net.width),
        **{f"norm_{name.lower()}": value for name, value in frobenius(net).items()},
        **{
            name: float(results[name][cell]) if name in results else np.nan
            for name in ("final_train_acc", "final_val_acc")
        },
    }


def _print_rows(rows: list[dict[str, Any]], axes: list[str]) -> None:
    table = [[*axes, *(heading for heading, _ in _COLUMNS.values())]]
    table += [
        [
            *(value_text(row[axis]) for axis in axes),
            *(number(row[name], form) for name, (_, form) in _COLUMNS.items()),
        ]
        for row in rows
    ]
    print_table(table)


def _print_pruning(name: str, pruned: Pruning) -> None:
    random = f"random ({len(pruned.controls)} orders)"
    for part, label in _PARTS.items():
        if part not in pruned.ascending.accuracy:
            continue
        print(f"{name}{label} accuracy with neurons removed")
        spread = np.array([control.accuracy[part] for control in pruned.controls])
        table = [["removed", "lowest IPR first", "highest IPR first", random]]
        for k, removed in enumerate(pruned.ascending.removed.tolist()):
            low, high = spread[:, k].min(), spread[:, k].max()
            table.append(
                [
                    f"{removed} of {pruned.width}",
                    f"{pruned.ascending.accuracy[part][k]:.4f}",
                    f"{pruned.descending.accuracy[part][k]:.4f}",
                    f"{spread[:, k].mean():.4f} ({low:.4f} to {high:.4f})",
                ]
            )
        print_table(table)


def _as_dict(pruned: Pruning) -> dict[str, Any]:
    """Accuracies by order and part; of the random orders one list each."""
    return {
        "removed": pruned.ascending.removed.tolist(),
        "lowest_first": {p: a.tolist() for p, a in pruned.ascending.accuracy.items()},
        "highest_first": {p: a.tolist() for p, a in pruned.descending.accuracy.items()},
        "random": [{p: a.tolist() for p, a in c.accuracy.items()} for c in pruned.controls],
    }


def _per_neuron(
    results: Results, nets: dict[int, Neurons], ipr: dict[int, np.ndarray]
) -> dict[str, np.ndarray]:
    """Columns with one value a neuron; gamma is NaN where a net has no norm."""
    widths = [net.width for net in nets.values()]
    at = np.repeat(list(nets), widths)
    gamma = [
        np.full(net.width, np.nan) if net.norm is None else np.abs(net.norm.gamma)
        for net in nets.values()
    ]
    return {
        "run": results["run"][at],
        **{name: results[name][at] for name in results.axes},
        "neuron": np.concatenate([np.arange(width) for width in widths]),
        "ipr": np.concatenate(list(ipr.values())),
        "gamma": np.concatenate(gamma),
    }


def _name(row: dict[str, Any], axes: list[str]) -> str:
    named = ", ".join(f"{axis} {value_text(row[axis])}" for axis in axes)
    return f"{named}: " if named else ""
