"""The layout of results files: one HDF5 file that xarray opens as it is, and its seal.

``grokfast-results``, version 3: a flat ``run`` axis of cells, dimension scales ``run``, ``step``,
``snapshot``, ``observed``, ``threshold`` and plain indices, hyperparameters and outcomes ``[run]``,
crossings ``[run, threshold]``, curves ``[run, step]``, embeddings ``[run, snapshot, token,
component]``, other observables ``[run, observed, ...]``, trained parameters and buffers in groups
``weights/<n>`` a bucket, and attributes of ``provenance``. The attributes ``checksums`` hold a
checksum of everything that is read (:mod:`grokfast.storage.checksums`), and behind HDF5's own end
lies a digest of the whole file (:mod:`grokfast.storage.seal`). Version 2 has neither; version 1
also lacks thresholds, observables, buffers, and the last and best accuracies.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from grokfast.errors import Damaged, UsageError
from grokfast.grid import Grid
from grokfast.observables import OBSERVABLES
from grokfast.outcomes import ACCURACIES, CROSSINGS, CURVES, PROGRESS, STATUS, STEPS
from grokfast.storage import checksums, guarded, seal
from grokfast.storage.hdf5 import Dataset, Group, Piece, Unread
from grokfast.storage.image import Image

if TYPE_CHECKING:
    from grokfast.results import Results

SCHEMA, SCHEMA_VERSION = "grokfast-results", 3

#: Dimensions with values of their own; the rest are plain indices.
COORDINATES = ("run", "step", "snapshot", "observed", "threshold")

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


def packed(results: Results) -> Iterator[memoryview | bytes]:
    """The bytes of the file, in parts; those of the weights as they lie in memory."""
    image, sealing = Image(), seal.Sealing()
    with h5py.File(image, "w") as file:
        _write(file, results, image)
    for part in image.parts():
        sealing.add(part)
        yield part
    yield sealing.seal()


def _write(file: h5py.File, r: Results, image: Image) -> None:
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
    _flag(file["phase"], ("unknown", *r.rule.phases), first=-1)
    rule = {
        name: int(value) if isinstance(value, bool) else value
        for name, value in r.rule.to_dict().items()
        if all(one.to_dict()[name] == value for one in r.rules)
    }
    file["phase"].attrs.update(rule, definition=r.definition)
    sums: dict[str, Any] = {
        "attributes": _attributes_sum(file.attrs),
        "variables": {name: checksums.of_values(name, *v) for name, v in r.variables.items()},
        "provenance": _write_provenance(file.create_group("provenance"), r.provenance),
    }
    if r.weights:
        sums["weights"] = _write_weights(file.create_group("weights"), r.weights, image)
    file.attrs["checksums"] = json.dumps(sums)


def _write_weights(group: h5py.Group, weights: list[dict[str, NDArray[Any]]], image: Image) -> str:
    """The checksum of all of them."""
    sums = []
    for number, bucket in enumerate(weights):
        own = group.create_group(str(number))
        for name, values in bucket.items():
            image.place(own, name, values)
        sums.append(checksums.of_group(bucket))
        own.attrs["checksums"] = json.dumps(sums[-1])
    return checksums.of_plain(sums)


def _write_provenance(group: h5py.Group, provenance: dict[str, Any]) -> str:
    """The checksum of all of it."""
    plain = {
        name: value if isinstance(value, (str, int, float)) else json.dumps(value)
        for name, value in provenance.items()
    }
    group.attrs.update(plain)
    group.attrs["checksums"] = json.dumps(list(plain))  # of these names; others may be added
    return checksums.of_plain(plain)


#: Attributes of the file that are read.
_READ = ("schema", "schema_version", "complete", "grid_json")


def _attributes_sum(attributes: Any) -> str:
    return checksums.of_plain({name: _plain(attributes.get(name)) for name in _READ})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


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
    """CF-style meaning of integer codes, one word each."""
    codes = np.arange(first, first + len(names)).astype(dataset.dtype)
    meanings = " ".join(name.replace(" ", "_") for name in names)
    dataset.attrs.update(flag_values=codes, flag_meanings=meanings)


@dataclass(frozen=True, eq=False)
class Content:
    """What a results file holds.

    Attributes:
        sure: whether all of it is known to be as it was written.
    """

    grid: Grid
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    weights: list[dict[str, NDArray[Any]]]
    provenance: dict[str, Any]
    complete: bool
    sure: bool


def read(path: Path, reader: guarded.Reader | None = None) -> Content:
    """What a results file holds, as far as checksums can tell.

    Raises:
        UsageError: no such file, no grokfast results, or of a newer schema.
        Damaged: it is not as it was written.
    """
    state, pieces = guarded.read(path, 2, reader)
    try:
        file = _File.of(pieces)
    except (ValueError, KeyError) as error:
        raise Damaged(path, error) from error
    version = _version(path, file, state)
    has_sums = version >= 3 or "checksums" in file.attributes or state != seal.NONE
    try:
        if has_sums:
            lost = "" if state == seal.WHOLE else _check_sums(file)
            if state != seal.WHOLE:
                warnings.warn(
                    f"{path} has been changed since by another program{lost}", stacklevel=4
                )
        elif file.foreign:
            warnings.warn(f"{path} has been changed since by another program", stacklevel=4)
        return Content(
            grid=_grid(file, sure=has_sums),
            variables=file.variables,
            weights=file.weights,
            provenance=file.provenance,
            complete=bool(file.attributes["complete"]),
            sure=has_sums,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(path, error) from error


def _version(path: Path, file: _File, state: str) -> int:
    schema = file.attributes.get("schema")
    if schema != SCHEMA:
        if state == seal.NONE and "grid_json" not in file.attributes:
            raise UsageError(f"{path} holds no grokfast results")
        raise Damaged(path, f"its schema is {schema!r}")
    version = file.attributes.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise Damaged(path, f"its schema version is {version!r}")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema version {version}; this grokfast reads up to {SCHEMA_VERSION}",
            hint="upgrade grokfast",
        )
    return version


def _grid(file: _File, *, sure: bool) -> Grid:
    try:
        return Grid.from_json(file.attributes["grid_json"])
    except UsageError as error:
        if sure:  # written so, by a grokfast that has what this one lacks
            raise
        raise ValueError(f"its grid cannot be: {error}") from error
    except RecursionError as error:
        raise ValueError("its grid is nested too deeply") from error


@dataclass(frozen=True, eq=False)
class _File:
    """The pieces of a file by what they are for.

    Attributes:
        attributes: of the file.
        variables: data sets with dimensions, but those that are plain indices.
        weights, provenance: see :class:`grokfast.Results`; empty where there are none.
        names_of_provenance: those that the checksum is of, as JSON.
        sums_of_weights: of each bucket, as JSON.
        foreign: whether something in it is not written as grokfast does.
    """

    attributes: dict[str, Any]
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    weights: list[dict[str, NDArray[Any]]]
    provenance: dict[str, Any]
    names_of_provenance: str
    sums_of_weights: list[str]
    groups: frozenset[str]
    foreign: bool

    @classmethod
    def of(cls, pieces: list[Piece]) -> _File:
        groups = {p.path.strip("/"): p for p in pieces if isinstance(p, Group)}
        datasets = [p for p in pieces if isinstance(p, Dataset)]
        at_top = {p.path.strip("/"): p for p in datasets if p.path.count("/") == 1}
        variables = {
            name: (p.dims, p.values)
            for name, p in at_top.items()
            if p.dims and all(p.dims) and (not p.scale or name in COORDINATES)
        }
        numbers = sorted(
            int(name.removeprefix("weights/")) for name in groups if name.startswith("weights/")
        )
        weights: dict[str, dict[str, NDArray[Any]]] = {f"weights/{n}": {} for n in numbers}
        for p in datasets:
            where, _, name = p.path.strip("/").rpartition("/")
            if where in weights:
                weights[where][name] = p.values
        provenance = groups["provenance"].attributes if "provenance" in groups else {}
        known = {"", "provenance", "weights", *weights}
        notes = {n for n, p in at_top.items() if not p.scale} - set(variables)
        return cls(
            attributes=groups[""].attributes,
            variables=variables,
            weights=list(weights.values()),
            provenance={k: v for k, v in provenance.items() if k != "checksums"},
            names_of_provenance=provenance.get("checksums", "[]"),
            sums_of_weights=[groups[w].attributes.get("checksums", "{}") for w in weights],
            groups=frozenset(groups),
            foreign=bool(
                notes
                or groups[""].foreign
                or set(groups) - known
                or any(isinstance(p, Unread) for p in pieces)
            ),
        )


def _check_sums(file: _File) -> str:
    """Looks at every checksum, and forgets what has none.

    Returns:
        What another program has left out, in words.

    Raises:
        ValueError: what is not as it was written.
    """
    sums = json.loads(file.attributes["checksums"])
    if sums["attributes"] != _attributes_sum(file.attributes):
        raise ValueError("checksum of its attributes")
    for name, wanted in sums["variables"].items():
        if name not in file.variables:
            raise ValueError(f"it holds no variable {name!r}")
        if checksums.of_values(name, *file.variables[name]) != wanted:
            raise ValueError(f"checksum of {name}")
    for name in set(file.variables) - set(sums["variables"]):
        del file.variables[name]
    lost = [name for name in ("provenance", "weights") if name in sums and name not in file.groups]
    if "provenance" not in lost:
        known = json.loads(file.names_of_provenance)
        for name in set(file.provenance) - set(known):
            del file.provenance[name]
        if checksums.of_plain(file.provenance) != sums["provenance"]:
            raise ValueError("checksum of its provenance")
    if "weights" in sums and "weights" not in lost:
        _check_weights(file, sums["weights"])
    else:
        file.weights.clear()
    return f", and has lost its {' and '.join(lost)}" if lost else ""


def _check_weights(file: _File, wanted: str) -> None:
    all_sums = [json.loads(text) for text in file.sums_of_weights]
    if checksums.of_plain(all_sums) != wanted:
        raise ValueError("checksum of its weights")
    for number, (bucket, sums) in enumerate(zip(file.weights, all_sums, strict=True)):
        for name in set(bucket) - set(sums):
            del bucket[name]
        if checksums.of_group(bucket) != sums:
            raise ValueError(f"checksum of weights/{number}")
