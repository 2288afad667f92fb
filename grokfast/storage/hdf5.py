"""An HDF5 file -> plain arrays and attributes, piece by piece.

Refuses what a crafted file could use to reach other files, to load code or to fill the memory.
Imports nothing but NumPy and h5py, as it also runs in a process of its own (see
:mod:`grokfast.storage.guarded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

#: What deflate can pack a byte into, at best; and what small data sets may take beside that.
_BEST_RATIO, _SLACK = 1032, 1 << 16

#: Filters that HDF5 has built in; another would be looked for in libraries on this machine.
_FILTERS = {"deflate": 1, "shuffle": 2, "fletcher32": 3, "szip": 4, "lzf": 32000}

#: What is asked before a step that may not end: how many bytes it will read.
Watch = Callable[[int], None]


class Refused(Exception):
    """A link to elsewhere, or data that are kept elsewhere."""


@dataclass(frozen=True, eq=False)
class Group:
    """The attributes of a group that are text or single numbers.

    Attributes:
        path: ``/`` for the file's own.
        foreign: whether they were written in another way than grokfast does.
    """

    path: str
    attributes: dict[str, Any]
    foreign: bool


@dataclass(frozen=True, eq=False)
class Dataset:
    """Values of a data set.

    Attributes:
        path: with all its groups.
        dims: names of its dimensions, "" for one without a scale.
        scale: whether it is itself a dimension scale.
        crc32: the attribute of this name.
        values: integers, floating-point numbers, or text as ``str`` objects.
    """

    path: str
    dims: tuple[str, ...]
    scale: bool
    crc32: int | None
    values: NDArray[Any]


@dataclass(frozen=True)
class Unread:
    """Something in the file that is of no kind that grokfast writes."""

    path: str


Piece = Group | Dataset | Unread


def pieces(file: h5py.File, depth: int, watch: Watch) -> Iterator[Piece]:
    """The file's own group and all that is in it, down to ``depth`` groups below.

    Raises:
        Refused: links, external or virtual data.
        Exception: a foreign filter, a size that cannot be, whatever h5py says of a damaged file.
    """
    watch(0)
    yield from _pieces(file, depth, watch, set())


def _pieces(group: h5py.Group, depth: int, watch: Watch, above: set[int]) -> Iterator[Piece]:
    address = h5py.h5o.get_info(group.id).addr
    if address in above:
        raise ValueError(f"group {group.name} is within itself")
    watch(0)
    yield _attributes(group)
    for name in group:
        watch(0)
        where = f"{group.name.rstrip('/')}/{name}"
        if (
            group.id.links.get_info(name.encode(errors="surrogateescape")).type
            != h5py.h5l.TYPE_HARD
        ):
            raise Refused(f"{where} is a link to elsewhere; refused")
        item = group[name]
        if isinstance(item, h5py.Group) and depth:
            yield from _pieces(item, depth - 1, watch, above | {address})
        elif isinstance(item, h5py.Dataset):
            yield _dataset(item, where, watch)
        else:
            yield Unread(where)


def _attributes(group: h5py.Group) -> Group:
    found: dict[str, Any] = {}
    foreign = False
    for name in group.attrs:
        value = _single(group.attrs[name])
        if value is None:
            foreign = True
            continue
        found[name], odd = value
        foreign |= odd or name == "_NCProperties"
    return Group(group.name, found, foreign)


def _single(value: Any) -> tuple[str | int | float | bool, bool] | None:
    """An attribute as a plain value, and whether it came as an array of one or as bytes."""
    odd = isinstance(value, np.ndarray | bytes)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            return None
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, np.generic):
        value = value.item()
    return (value, odd) if isinstance(value, str | int | float) else None


def _dataset(dataset: h5py.Dataset, where: str, watch: Watch) -> Piece:
    created = dataset.id.get_create_plist()
    if created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL:
        raise Refused(f"{where} keeps its data in another file; refused")
    dtype = dataset.dtype
    text = h5py.check_string_dtype(dtype) is not None
    if dataset.shape is None or not (text or (dtype.kind in "iuf" and dtype.itemsize <= 8)):
        return Unread(where)
    size = _declared(dataset, created, where)
    watch(size)
    values = dataset.asstr()[...] if text else dataset[...]
    if text:
        values = np.array([str(v) for v in values.ravel()], object).reshape(values.shape)
    scale = bool(h5py.h5ds.is_scale(dataset.id))
    crc32 = int(dataset.attrs["crc32"]) if h5py.h5a.exists(dataset.id, b"crc32") else None
    dims = (where.strip("/"),) if scale else _dims(dataset, values.ndim)
    return Dataset(where, dims, scale, crc32, values)


def _dims(dataset: h5py.Dataset, ndim: int) -> tuple[str, ...]:
    if not h5py.h5a.exists(dataset.id, b"DIMENSION_LIST"):
        return ("",) * ndim
    return tuple(_scale_name(dataset, k) for k in range(ndim))


def _scale_name(dataset: h5py.Dataset, k: int) -> str:
    scales: list[Any] = []
    if h5py.h5ds.get_num_scales(dataset.id, k):
        h5py.h5ds.iterate(dataset.id, k, scales.append, 0)
    if not scales:
        return ""
    name = h5py.h5i.get_name(scales[0])
    if name is None:
        raise ValueError("a dimension has a scale without a name")
    return str(name.decode()).strip("/")


def _declared(dataset: h5py.Dataset, created: Any, where: str) -> int:
    """Bytes of the values, which must have a place in the file."""
    stored, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    packed = created.get_layout() == h5py.h5d.CHUNKED
    for k in range(created.get_nfilters()):
        if (code := created.get_filter(k)[0]) not in _FILTERS.values():
            raise ValueError(f"{where} is packed by an unknown filter, {code}")
    if declared > (stored * _BEST_RATIO + _SLACK if packed else max(stored, _SLACK)):
        raise ValueError(f"{where} declares {declared} bytes, of which there are {stored}")
    return int(declared)
