"""Results -> tables that other programs read: CSV, Parquet, JSON, netCDF."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.results import STATUS, Results
from grokfast.retyping import again
from grokfast.storage.files import replacing, user_path, writable, write_whole

FORMATS = ("csv", "parquet", "nc", "json")

#: The target that is no file.
STDOUT = "-"

#: Columns of first steps, -1 for never.
_STEPS = re.compile(r"(t_train|t_val)(_[\d.]+)?|diverged_at|final_loss_step")


def check_target(
    out: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    long: bool = False,
    overwrite: bool = False,
    stdout: bool = False,
) -> str:
    """The format of a file name, one of ``formats``, checked before anything is read.

    Args:
        stdout: whether ``-`` stands for it, as CSV.

    Raises:
        UsageError: an unknown suffix, no such folder, or a file that exists.
    """
    if stdout and str(out) == STDOUT:
        return "csv"
    out = user_path(out)
    suffix = out.suffix.removeprefix(".").lower()
    if suffix not in formats:
        raise UsageError(
            f"cannot tell the format of {out}",
            hint="end its name in "
            + ", ".join(f".{f}" for f in formats)
            + (", or give - for CSV on standard output" if stdout else ""),
        )
    if long and suffix == "nc":
        raise UsageError("a .nc file has every step anyway, as dimension step; leave out --long")
    writable(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists", hint="choose another name, or --overwrite")
    return suffix


def export(
    results: Results, out: str | Path, *, long: bool = False, overwrite: bool = False
) -> Path:
    """Writes one table, atomically; the suffix of ``out`` chooses the format.

    Args:
        results: what to export.
        out: ``.csv``, ``.parquet`` and ``.json`` hold one row a cell, or with ``long`` one row for
            each cell and recorded step; ``.nc`` holds all variables as they are (for xarray). ``-``
            is CSV on standard output. In CSV a step that never came is NA, what is not known yet an
            empty field. Tables of one row a cell have every constant field of the experiment, too;
            JSON has it once, as ``experiment``.
        long: see ``out``.
        overwrite: replace an existing file.

    Returns:
        The path written.

    Raises:
        UsageError: an unknown suffix, an existing file, or ``long`` without recorded curves.
        EnvironmentProblem: a library is not installed, or the file cannot be written.
    """
    kind = check_target(out, long=long, overwrite=overwrite, stdout=True)
    out = user_path(out)
    if kind == "nc":
        _write_netcdf(results, out)
        return out
    columns = long_columns(results) if long else results.columns()
    if kind == "json":
        _write_json(results, columns, out)
        return out
    columns |= {} if long else results.constants()
    if kind == "parquet":
        _write_parquet(columns, out)
    else:
        write_csv(columns if long else _with_never(results, columns), out)
    return out


def _with_never(results: Results, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Steps that never came as NA; those that may still come as nothing."""
    finished = results.finished()
    return {
        name: np.where(values >= 0, values.astype(object), np.where(finished, "NA", ""))
        if _STEPS.fullmatch(name)
        else values
        for name, values in columns.items()
    }


def long_columns(results: Results) -> dict[str, NDArray[Any]]:
    """Column name -> one value for each cell and step at which something was measured.

    Raises:
        UsageError: the run kept no curves.
    """
    curves = {n: v for n, (dims, v) in results.variables.items() if dims == ("run", "step")}
    if not curves:
        raise UsageError(
            "this run kept no curves",
            hint=f"leave out --long, or {again(results.grid, **{'record.curve_points': 200})}",
        )
    cell, step = np.nonzero(np.any([~np.isnan(v) for v in curves.values()], axis=0))
    columns = {"run": results["run"][cell]}
    columns |= {name: results[name][cell] for name in results.hyperparameters}
    columns["step"] = results["step"][step]
    return columns | {name: values[cell, step] for name, values in curves.items()}


def _rows(columns: dict[str, NDArray[Any]], missing: Any) -> Iterator[list[Any]]:
    """Python values row by row, ``missing`` for NaN. Floats keep the digits that their precision
    has: float32 0.9 is 0.9, not 0.8999999761581421."""

    def plain(values: NDArray[Any]) -> list[Any]:
        if values.dtype.kind != "f":
            return values.tolist()
        return [missing if np.isnan(v) else float(str(v)) for v in values]

    lists = [plain(v) for v in columns.values()]
    for row in zip(*lists, strict=True):
        yield list(row)


def write_csv(columns: dict[str, NDArray[Any]], out: Path) -> None:
    """Writes equally long columns by name, NaN as an empty field; text that a spreadsheet would
    take for a formula begins with an apostrophe. The path ``-`` is standard output."""
    with text_target(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_inert, columns))
        writer.writerows(map(_inert, row) for row in _rows(columns, missing=""))


@contextlib.contextmanager
def text_target(out: Path) -> Iterator[TextIO]:
    """A text file that takes the place of ``out`` if the block succeeds; or standard output."""
    if str(out) == STDOUT:
        yield sys.stdout
        return
    with (
        replacing(out) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


def _inert(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _write_json(results: Results, columns: dict[str, NDArray[Any]], out: Path) -> None:
    grid = results.grid
    rows = [dict(zip(columns, row, strict=True)) for row in _rows(columns, missing=None)]
    for row in rows:  # JSON has no infinity
        for name, value in row.items():
            if isinstance(value, float) and not np.isfinite(value):
                row[name] = str(value)
    data = {
        "name": grid.name,
        "experiment": grid.experiment.to_dict(),
        "axes": {name: list(values) for name, values in results.axes.items()},
        "complete": results.complete,
        "rows": rows,
    }
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_parquet(columns: dict[str, NDArray[Any]], out: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise _missing("pyarrow", "parquet") from error
    with replacing(out) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def _write_netcdf(results: Results, out: Path) -> None:
    for library in ("xarray", "h5netcdf"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise _missing(library, "xarray") from error
    dataset = results.to_xarray()
    dataset.attrs |= {
        "config_json": results.grid.experiment.to_json(),
        "grid_json": results.grid.to_json(),
    }
    names = ("unknown", *results.rule.phases)
    dataset["phase"].attrs = {
        "flag_values": np.arange(-1, len(names) - 1),
        "flag_meanings": " ".join(name.replace(" ", "_") for name in names),
    }
    dataset["status"].attrs = {
        "flag_values": np.arange(len(STATUS)),
        "flag_meanings": " ".join(STATUS),
    }
    # Packed in memory, as a full disk must not be met within HDF5.
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    packed = io.BytesIO()
    with h5netcdf.File(packed, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file))
    write_whole(out, [packed.getbuffer()])


def _missing(library: str, extra: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"this format needs {library}, which is not installed",
        hint=f"pip install 'grokfast[{extra}]'",
    )
