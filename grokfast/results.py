"""Results: what a run has found, cell by cell; one HDF5 file that xarray opens as it is.

Layout (``grokfast-results``, version 2): a flat ``run`` axis of cells, dimension scales ``run``,
``step``, ``snapshot``, ``observed``, ``threshold`` and plain indices, hyperparameters and outcomes
``[run]``, crossings ``[run, threshold]``, curves ``[run, step]``, embeddings ``[run, snapshot,
token, component]``, other observables ``[run, observed, ...]``, trained parameters and buffers in
groups ``weights/<n>`` a bucket, and attributes of ``provenance``. Version 1 lacks thresholds,
observables, buffers, and the last and best accuracies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from grokfast.errors import UsageError
from grokfast.fields import short_name, value_text
from grokfast.files import open_hdf5, replacing
from grokfast.grid import Grid
from grokfast.observables import OBSERVABLES
from grokfast.outcomes import ACCURACIES, CROSSINGS, CURVES, PROGRESS, STEPS
from grokfast.phases import PHASES, PhaseRule, classify, counts

if TYPE_CHECKING:
    import pandas
    import torch
    import xarray

SCHEMA, SCHEMA_VERSION = "grokfast-results", 2
STATUS: tuple[str, ...] = ("pending", "running", "ok", "diverged")
PENDING, RUNNING, OK, DIVERGED = range(4)

#: Hyperparameters that every file has, whether or not they are an axis.
ALWAYS = ("optimizer.lr", "optimizer.weight_decay", "task.seed", "model.seed")

#: Dimensions with values of their own; the rest are plain indices.
COORDINATES = ("run", "step", "snapshot", "observed", "threshold")

#: Kept in the file so that a run can go on; no measurement.
_INTERNAL = tuple(x.in_file for x in PROGRESS if x.internal)

_UNITS = {
    **dict.fromkeys(("step", "snapshot", "observed", *CROSSINGS), STEPS),
    **{x.in_file: x.units for x in PROGRESS if x.units},
}
_LONG_NAMES = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "data_seed": "data seed",
    "model_seed": "model seed",
    **{x.in_file: x.label for x in PROGRESS},
    **{name: label for name, (_, label) in ACCURACIES.items()},
    **CROSSINGS,
    **CURVES,
}


@dataclass(eq=False)
class Results:
    """Outcomes of the cells of a grid (or of a shard of it), in memory.

    Attributes:
        grid: the experiment and its axes.
        variables: name -> (dimension names, array); every array has ``run`` first, except the
            :data:`COORDINATES`, which have their own dimension.
        weights: one dict per bucket: ``run`` (flat cell indices) and each parameter by its
            ``nn.Module`` name, ``[cells, ...]``; empty where not recorded.
        provenance: versions, device, engine, times; plain JSON values.
        complete: whether every cell of this file is done.
    """

    grid: Grid
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    weights: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of a variable, e.g. ``results["t_train"]`` (int64 ``[run]``).

        Raises:
            UsageError: no such variable.
        """
        if name not in self.variables:
            raise UsageError(f"no variable {name!r}; there are {', '.join(self.variables)}")
        return self.variables[name][1]

    def __contains__(self, name: str) -> bool:
        return name in self.variables

    def __len__(self) -> int:
        """Number of cells."""
        return len(self["run"])

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<Results of {self.grid.name}: {len(self)} cells, {state}, {self.counts()}>"

    @property
    def rule(self) -> PhaseRule:
        """Of the phases, as far as no part of it is an axis."""
        return self.grid.experiment.phase

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Short axis name -> values."""
        return {short_name(path): values for path, values in self.grid.axes.items()}

    def phases(self, budget: int | None = None) -> NDArray[np.int8]:
        """Phase code of each cell, int8 ``[run]``: index into ``phases.PHASES``, -1 unknown.

        Args:
            budget: read the diagram as of this many steps, at most what has been trained.
        """
        finished = np.isin(self["status"], (OK, DIVERGED))
        if budget is not None:
            finished = finished | (self["steps_done"] >= budget)
        rules = [self.grid.cells[run].phase for run in self["run"].tolist()]
        return classify(self["t_train"], self["t_val"], rules, finished=finished, budget=budget)

    def data_digests(self) -> dict[str, str]:
        """Identity of each data set of the run's cells -> its SHA-256; empty where not known."""
        known = self.provenance.get("data_sha256", [])
        digests = json.loads(known) if isinstance(known, str) else known
        cells = (self.grid.cells[run] for run in self["run"].tolist())
        identities = sorted({cell.data_identity() for cell in cells})
        same = isinstance(digests, list) and len(digests) == len(identities)
        return dict(zip(identities, digests, strict=True)) if same else {}

    def counts(self) -> dict[str, int]:
        """Cells per phase, all four always present."""
        return counts(self.phases())

    def on_grid(self, name: str | NDArray[Any]) -> NDArray[Any]:
        """A ``[run]`` variable (or any array over cells) as an array over the axes.

        Returns:
            Array of shape ``tuple(len(v) for v in axes.values()) + rest``; cells that this file
            does not hold are -1 for integers, NaN for floats, "" for text.
        """
        values = self[name] if isinstance(name, str) else np.asarray(name)
        shape = tuple(len(v) for v in self.grid.axes.values())
        empty: Any = {"f": np.nan, "i": -1, "u": 0, "b": False}.get(values.dtype.kind, "")
        full = np.full((self.grid.size, *values.shape[1:]), empty, values.dtype)
        full[self["run"]] = values
        return full.reshape(*shape, *values.shape[1:])

    def aligned(self, grid: Grid) -> Results:
        """These results with the grid's own values where the two are the same numbers (see
        :meth:`grokfast.Grid.aligned`)."""
        own = self.grid.aligned(grid)
        if own is self.grid:
            return self
        columns = hyperparameter_columns(own, self["run"].tolist())
        values = {name: (("run",), column) for name, column in columns.items()}
        return replace(self, grid=own, variables=self.variables | values)

    def find(self, **values: Any) -> int:
        """Position of the one cell nearest to the given axis values (numbers: nearest in value,
        relative to the spacing on a log scale where all are positive; text: equal).

        Raises:
            UsageError: no such axis, a number beyond its ends by more than a spacing, or values
                that still leave several cells.
        """
        chosen = np.ones(len(self), bool)
        for name, wanted in values.items():
            key = short_name(name)
            if key not in self.variables:
                raise UsageError(f"unknown axis {name!r}", hint=f"axes are {', '.join(self.axes)}")
            column = self[key]
            if column.dtype.kind in "fiu":
                chosen &= column == _nearest(column, wanted, name)
            else:
                chosen &= column.astype(str) == str(wanted)
        found = np.flatnonzero(chosen)
        if len(found) != 1:
            given = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UsageError(
                f"{len(found)} cells match {given or 'no values'}; "
                f"name one with all of {', '.join(self.axes)}"
            )
        return int(found[0])

    def module(self, **values: Any) -> torch.nn.Module:
        """The trained model of one cell as an ``nn.Module``, in evaluation mode.

        Args:
            values: axis values that name the cell, as for :meth:`find`.

        Raises:
            UsageError: the run did not record weights, or no such cell.
        """
        import torch

        run = int(self["run"][self.find(**values)])
        for bucket in self.weights:
            at = np.flatnonzero(bucket["run"] == run)
            if len(at):
                break
        else:
            raise UsageError(
                "this run kept no weights", hint="train with record.weights=True (--record=weights)"
            )
        tensors = {k: torch.from_numpy(v[at[0]].copy()) for k, v in bucket.items() if k != "run"}
        cell = self.grid.cells[run]
        with torch.random.fork_rng(devices=[]):  # initial values are drawn, and replaced
            module = cell.model.build(cell.model.shape_of(tensors))
        module.to(getattr(torch, cell.dtype)).load_state_dict(tensors)
        return module.eval()

    def to_xarray(self) -> xarray.Dataset:
        """An ``xarray.Dataset`` with dimensions ``run``, ``step``, ... and hyperparameters as
        coordinates of ``run``. Needs the extra ``grokfast[xarray]``."""
        import xarray

        coordinates = {*COORDINATES, *self.hyperparameters}
        data = {k: v for k, v in self.variables.items() if k not in coordinates}
        coords = {k: v for k, v in self.variables.items() if k in coordinates}
        return xarray.Dataset(data, coords, attrs={"title": self.grid.name})

    def columns(self) -> dict[str, NDArray[Any]]:
        """Column name -> one value a cell: hyperparameters and outcomes, phase and status by
        name."""
        columns = {
            name: values
            for name, (dims, values) in self.variables.items()
            if dims == ("run",) and name not in _INTERNAL
        }
        # "" for a cell whose phase is not known yet
        columns["phase"] = np.array([*PHASES, ""], object)[self.phases()]
        columns["status"] = np.array(STATUS, object)[self["status"]]
        first = ["run", *self.hyperparameters]
        return {n: columns[n] for n in (*first, *sorted(set(columns) - set(first)))}

    def to_pandas(self) -> pandas.DataFrame:
        """A ``pandas.DataFrame`` of :meth:`columns`. Needs the extra ``grokfast[parquet]``."""
        import pandas

        return pandas.DataFrame(self.columns())

    @property
    def hyperparameters(self) -> list[str]:
        """Short names of the per-cell hyperparameter variables."""
        return list(dict.fromkeys(short_name(p) for p in (*self.grid.axes, *ALWAYS)))

    def save(self, path: str | Path) -> None:
        """Writes the whole file, atomically: readers see the old one or the new one.

        Raises:
            EnvironmentProblem: the file cannot be written; the old one is as it was.
        """
        with replacing(Path(path)) as temporary, h5py.File(temporary, "w") as file:
            _write(file, self)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Reads a results file.

        Raises:
            UsageError: no such file, no grokfast results, or of a newer schema.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            if file.attrs.get("schema") != SCHEMA:
                raise UsageError(f"{path} holds no grokfast results")
            version = int(file.attrs["schema_version"])
            if version > SCHEMA_VERSION:
                raise UsageError(
                    f"{path} has schema version {version}; this grokfast reads up to "
                    f"{SCHEMA_VERSION}",
                    hint="upgrade grokfast",
                )
            try:
                return _read(file)
            except (KeyError, ValueError, OSError, RuntimeError) as error:  # RuntimeError: h5py
                raise UsageError(f"{path} is damaged: {error}") from error


def listed_digests(digests: dict[str, str]) -> list[str]:
    """What ``data_sha256`` of a file holds, to be read by :meth:`Results.data_digests`: one digest
    a data set in the order of their identities; none of so many that they exceed the 64 kB of an
    HDF5 attribute."""
    return [digests[identity] for identity in sorted(digests)] if len(digests) < 900 else []


def hyperparameter_columns(grid: Grid, indices: Iterable[int]) -> dict[str, NDArray[Any]]:
    """Short name -> value of each listed cell ``[run]``, for every axis and the usual four."""
    indices = list(indices)
    columns = {}
    for path in dict.fromkeys((*grid.axes, *ALWAYS)):
        values = grid.column(path, indices)
        if any(v is None for v in values):
            values = [np.nan if v is None else v for v in values]
        elif isinstance(values[0], tuple):
            values = [value_text(v) for v in values]
        array = np.array(values)
        columns[short_name(path)] = array.astype(object) if array.dtype.kind == "U" else array
    return columns


def _nearest(column: NDArray[Any], wanted: Any, name: str) -> Any:
    try:
        target = float(wanted)
    except (TypeError, ValueError):
        raise UsageError(f"{name}={wanted!r} is no number") from None
    values = np.unique(column)
    log = target > 0 and bool((values > 0).all())
    at, goal = (np.log(values), np.log(target)) if log else (values, target)
    widest = np.diff(at).max(initial=0.0) or (0.05 if log else 0.05 * abs(at[0]))
    nearest = int(np.abs(at - goal).argmin())
    if not abs(at[nearest] - goal) <= widest:
        raise UsageError(
            f"{short_name(name)} {target:g} is beyond the run's {values[0]:g} to {values[-1]:g}"
        )
    return values[nearest]


def _write(file: h5py.File, r: Results) -> None:
    file.attrs.update(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        Conventions="grokfast-1",
        title=r.grid.name,
        complete=int(r.complete),
        config_json=r.grid.experiment.to_json(),
        grid_json=r.grid.to_json(),
    )
    scales = {d for dims, _ in r.variables.values() for d in dims}
    for name, (dims, values) in r.variables.items():
        _write_variable(file, name, dims, values)
    for name in scales - set(r.variables):  # plain indices
        size = next(v.shape[d.index(name)] for d, v in r.variables.values() if name in d)
        file.create_dataset(name, data=np.arange(size))
    for name in scales:
        file[name].make_scale(name)
    coordinates = " ".join(r.hyperparameters)
    for name, (dims, _) in r.variables.items():
        dataset = file[name]
        if name in scales:
            continue
        for axis, dim in enumerate(dims):
            dataset.dims[axis].attach_scale(file[dim])
        if name not in r.hyperparameters:
            dataset.attrs["coordinates"] = coordinates
    _flag(file["status"], STATUS, first=0)
    _flag(file["phase"], ("unknown", *PHASES), first=-1)
    rule = r.rule
    file["phase"].attrs.update(
        threshold=rule.threshold,
        tolerance=rule.tolerance,
        strict=int(rule.strict),
        gap=rule.gap,
        gap_inclusive=int(rule.gap_inclusive),
    )
    for number, bucket in enumerate(r.weights):
        group = file.create_group(f"weights/{number}")
        for name, values in bucket.items():
            group.create_dataset(name, data=values)
    provenance = file.create_group("provenance")
    for name, value in r.provenance.items():
        provenance.attrs[name] = (
            value if isinstance(value, (str, int, float)) else json.dumps(value)
        )


def _write_variable(
    file: h5py.File, name: str, dims: tuple[str, ...], values: NDArray[Any]
) -> None:
    options: dict[str, Any] = {}
    if values.ndim >= 2 and values.size:
        chunk = (min(values.shape[0], 256), *values.shape[1:])
        if values.ndim > 2:  # one cell's trajectory is what is read at a time
            chunk = (1, *values.shape[1:])
        options = {
            "chunks": chunk,
            "compression": "gzip",
            "compression_opts": 1,
            "shuffle": True,
            "fletcher32": True,
        }
    if values.dtype.kind == "O":
        options["dtype"] = h5py.string_dtype()
    dataset = file.create_dataset(name, data=values, **options)
    label = OBSERVABLES[name].label if name in OBSERVABLES else name.replace("_", " ")
    dataset.attrs["long_name"] = _LONG_NAMES.get(name, label)
    dataset.attrs["units"] = _UNITS.get(name, "1")


def _flag(dataset: h5py.Dataset, names: tuple[str, ...], first: int) -> None:
    """CF-style meaning of integer codes."""
    codes = np.arange(first, first + len(names)).astype(dataset.dtype)
    dataset.attrs.update(flag_values=codes, flag_meanings=" ".join(names))


#: What every file holds of each cell.
_OUTCOME = ("run", "t_train", "t_val", "steps_done", "status", "phase")


def _read(file: h5py.File) -> Results:
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
    for name, item in file.items():
        if not isinstance(item, h5py.Dataset) or (item.is_scale and name not in COORDINATES):
            continue
        dims = (name,) if item.is_scale else tuple(d[0].name.strip("/") for d in item.dims)
        values = item.asstr()[...].astype(object) if item.dtype.kind == "O" else item[...]
        variables[name] = (dims, values)
    for name in _OUTCOME:
        if name not in variables:
            raise ValueError(f"it holds no variable {name!r}")
        if variables[name][1].shape != variables["run"][1].shape:
            raise ValueError(f"variable {name!r} does not hold one value a cell")
    weights = [
        {name: dataset[...] for name, dataset in group.items()}
        for _, group in sorted(file.get("weights", {}).items(), key=lambda kv: int(kv[0]))
    ]
    return Results(
        grid=Grid.from_json(file.attrs["grid_json"]),
        variables=variables,
        weights=weights,
        provenance={
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in file["provenance"].attrs.items()
        },
        complete=bool(file.attrs["complete"]),
    )
