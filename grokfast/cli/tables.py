"""Tables of what analyses found, as text, and rows as JSON has them."""

from __future__ import annotations

from typing import Any

import numpy as np


def number(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "-"


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}


def print_table(table: list[list[str]]) -> None:
    """Columns aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
