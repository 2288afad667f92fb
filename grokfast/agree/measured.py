"""Published measurements, losses and accuracies at steps, beside those of a run.

The JSON has the shape ``{"measured": [{"title", "fields", "tolerance", "rows"}]}``. ``fields`` says
of which cells: dotted name -> value, ``task.name`` among them; where several cells have these
values, their mean is compared. A row is one step: ``{"step": 100, "val_acc": 0.52, ...}`` with a
value for each column, named as in results files, observables among them; without ``step`` its
columns are of whole cells (``final_val_acc``), and ``fields`` of its own say what else the cells
have. Such a column may also be a first step (``t_val_0.99``) or a signature of the curves
(``curves.gap``, the attributes of :class:`grokfast.analyses.dips.Signature`): of several cells
their median is compared, and never is later than any step. ``tolerance`` is ``{"loss": ..., "acc":
...}``, by the end of the column's name, of the table or of a row; ``range`` in its place
``{"t_val_0.99": [5000, 25000]}``, from where to where ours agrees. A row with ``transition`` lies
where the curve is steep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.aggregate import quantile
from grokfast.analyses.dips import Signature, signature
from grokfast.fields import scalar_fields, short_name
from grokfast.grid import same_number
from grokfast.results import Results

#: What became of a published number, in words:
WITHIN, ONE_STEP, BETWEEN = "within", "within one step", "between recorded steps"
TRANSITION, APART, MISSING = "transition", "apart", "not recorded"

#: Keys of a row that are no columns.
_NO_COLUMNS = ("step", "fields", "tolerance", "range", "transition")

#: Columns that are signatures of the curves.
_SIGNATURE = "curves."
_KNOWN = tuple(f.name for f in fields(Signature) if f.type != "Steps" and f.type != "Floats")


class Malformed(Exception):
    """What in a reference is not as it should be."""


@dataclass(frozen=True)
class Point:
    """One published number."""

    column: str
    published: float
    tolerance: float
    step: int | None
    transition: bool
    fields: dict[str, Any]
    within: tuple[float, float]  # ours agrees from the first to the second


@dataclass(frozen=True)
class Measurements:
    """Published numbers of one run definition."""

    title: str
    source: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Row:
    """A published number beside ours.

    Attributes:
        ours, difference: NaN where not recorded; between recorded steps by linear interpolation.
        verdict: ``within`` the tolerance; ``within one step`` of it, for rows in a transition;
            ``between recorded steps``, where ours passes the published number; ``transition``:
            farther, but where the curve is so steep that nothing follows from it; ``apart``;
            ``not recorded``.
    """

    column: str
    step: int | None
    published: float
    ours: float
    difference: float
    tolerance: float
    verdict: str


@dataclass(frozen=True)
class MeasuredAgreement:
    """What :func:`grokfast.agree.agree` found for one table of measurements."""

    table: str
    source: str
    cells: int
    rows: tuple[Row, ...]

    @property
    def verdicts(self) -> dict[str, int]:
        """Rows per verdict that occurs."""
        order = (WITHIN, ONE_STEP, BETWEEN, APART, TRANSITION, MISSING)
        number = {v: sum(row.verdict == v for row in self.rows) for v in order}
        return {verdict: n for verdict, n in number.items() if n}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, null for what is not recorded or was never reached."""
        rows = [
            {
                k: None if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in asdict(r).items()
            }
            for r in self.rows
        ]
        return asdict(self) | {"rows": rows, "verdicts": self.verdicts}


def compare_measured(results: Results, table: Measurements) -> MeasuredAgreement | str:
    """The agreement with one table, or why there is nothing to compare."""
    rows: list[Row] = []
    used: set[int] = set()
    reason = "it has no rows"
    for point in table.points:
        cells = _cells_with(results, point.fields)
        if isinstance(cells, str):
            reason = cells
        else:
            used.update(cells.tolist())
            rows.append(_row(results, cells, point))
    if not rows:
        return reason
    return MeasuredAgreement(table.title, table.source, len(used), tuple(rows))


def _cells_with(results: Results, fields: dict[str, Any]) -> NDArray[np.int64] | str:
    """Positions of the cells that have these values, or what they lack."""
    experiment = results.grid.experiment
    name = fields.get("task.name", experiment.task.name)
    if name != experiment.task.name:
        return f"its task is {name}, the run's {experiment.task.name}"
    known = scalar_fields(experiment)
    cells = [results.grid.cells[run] for run in results["run"].tolist()]
    chosen = np.ones(len(cells), bool)
    for path, value in fields.items():
        if path == "task.name":
            continue
        if path not in known:
            return f"the run has no {path}"
        chosen &= [same_number(_plain(c.get(path)), _plain(value)) for c in cells]
        if not chosen.any():
            return f"its {short_name(path)} is {value}, which the run does not have"
    return np.flatnonzero(chosen)


def _plain(value: Any) -> Any:
    """Numbers as floats, whether they are written 5 or 5.0."""
    return float(value) if is_finite(value) else value


def _row(results: Results, cells: NDArray[np.int64], point: Point) -> Row:
    ours, low, high, bracketed = math.nan, math.nan, math.nan, False
    if point.step is None and _is_median(results, point.column):
        ours = low = high = _median(results, cells, point.column)
    elif point.column in results:
        values = results[point.column][cells].astype(float)
        if point.step is None and values.ndim == 1:
            ours = low = high = float(values.mean())
        elif point.step is not None and values.ndim == 2:
            there = np.isfinite(values).all(axis=0)
            along = results.variables[point.column][0][1]  # observables have steps of their own
            steps, curve = results[along][there], values[:, there].mean(axis=0)
            if len(steps) and steps[0] <= point.step <= steps[-1]:
                ours, low, high, bracketed = _around(steps, curve, point)
    difference = ours - point.published
    if math.isnan(difference):
        verdict = MISSING
    elif point.within[0] <= ours <= point.within[1]:
        verdict = WITHIN
    elif point.step is not None and (
        low - point.tolerance <= point.published <= high + point.tolerance
    ):
        verdict = BETWEEN if bracketed else ONE_STEP
    else:
        verdict = TRANSITION if point.transition else APART
    return Row(
        column=point.column,
        step=point.step,
        published=point.published,
        ours=ours,
        difference=difference,
        tolerance=point.tolerance,
        verdict=verdict,
    )


def _is_median(results: Results, column: str) -> bool:
    moments = ("t_train", "t_val", *results.crossings)
    return column in moments or column.startswith(_SIGNATURE)


def _median(results: Results, cells: NDArray[np.int64], column: str) -> float:
    """Median over cells, of those that have a value; inf where most never come to a step."""
    if not column.startswith(_SIGNATURE):
        return float(quantile(results.moments(column)[cells], 0.5))
    if "train_acc" not in results:
        return math.nan
    name = column.removeprefix(_SIGNATURE)
    values = [float(getattr(signature(results, k), name)) for k in cells.tolist()]
    return float(quantile(np.array(values), 0.5))


def _around(
    steps: NDArray[Any], curve: NDArray[np.float64], point: Point
) -> tuple[float, float, float, bool]:
    """The curve at a step, its least and largest value near there, and whether the step itself is
    missing. Near is between the recorded steps around it, in a transition one step farther."""
    assert point.step is not None
    before, after = steps[steps <= point.step][-1], steps[steps >= point.step][0]
    slack = 1 if point.transition else 0
    places = [point.step, before, after, point.step - slack, point.step + slack]
    near = np.interp(places, steps, curve)
    return float(near[0]), float(near.min()), float(near.max()), bool(before != after)


def read_measured(data: dict[str, Any]) -> list[Measurements]:
    """The tables of a file.

    Raises:
        Malformed: what is not as it should be, and where.
    """
    tables = data["measured"]
    if not isinstance(tables, list) or not tables:
        raise Malformed("measured is no list, or empty")
    return [_measurements(table, f"measured[{k}]", data) for k, table in enumerate(tables)]


def _measurements(table: Any, where: str, file: dict[str, Any]) -> Measurements:
    rows = table.get("rows") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Malformed(f"{where}.rows is no list of objects, or empty")
    points = [p for k, row in enumerate(rows) for p in _points(row, f"{where}.rows[{k}]", table)]
    title, source = table.get("title", where), table.get("source", file.get("source", ""))
    return Measurements(str(title), str(source), tuple(points))


def is_finite(value: Any) -> bool:
    """Whether this is a number that can be calculated with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond floating point
        return False


def _merged(name: str, table: dict[str, Any], row: dict[str, Any], where: str) -> dict[str, Any]:
    """What a table says of all its rows, and what a row says of itself."""
    both = table.get(name, {}), row.get(name, {})
    if not all(isinstance(part, dict) for part in both):
        raise Malformed(f"{where}: {name} is no object")
    return both[0] | both[1]


def _points(row: dict[str, Any], where: str, table: dict[str, Any]) -> Iterator[Point]:
    fields, tolerance = (_merged(name, table, row, where) for name in ("fields", "tolerance"))
    ranges = _merged("range", table, row, where)
    step = row.get("step")
    whole = isinstance(step, int) and not isinstance(step, bool)
    if step is not None and not (whole and 0 <= step < 2**62):
        raise Malformed(f"{where}.step is {step!r}, not a step")
    for column, value in row.items():
        if column in _NO_COLUMNS:
            continue
        name = column.removeprefix(_SIGNATURE)
        if name != column and name not in _KNOWN:
            raise Malformed(f"{where}.{column} is no signature; there are {', '.join(_KNOWN)}")
        within = ranges.get(column)
        allowed = next((t for end, t in tolerance.items() if column.endswith(end)), None)
        if within is not None:
            numbers = within if isinstance(within, list) else []
            if len(numbers) != 2 or not all(map(is_finite, [value, *numbers])):
                raise Malformed(f"{where}.range.{column} is {within!r:.40}, not two numbers")
            allowed = max(abs(value - end) for end in within)
        for name, number in (("", value), ("'s tolerance", allowed)):
            if not is_finite(number):
                raise Malformed(f"{where}.{column}{name} is {number!r:.40}, not a number")
        assert allowed is not None
        yield Point(
            column=column,
            published=float(value),
            tolerance=float(allowed),
            step=step,
            transition=bool(row.get("transition")),
            fields=fields,
            within=tuple(within or (value - allowed, value + allowed)),
        )
