"""An HDF5 file that is built in memory, but for arrays that lie there already.

HDF5 never sees a disk, which may be full, and nothing large is held twice.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class Image(io.RawIOBase):
    """A file in memory for ``h5py.File(image, "w")``. What is never written takes no memory."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._arrays: dict[int, NDArray[np.generic]] = {}
        self._position = self._size = 0

    def place(self, group: h5py.Group, name: str, values: NDArray[np.generic]) -> None:
        """Makes a data set of numbers whose values stay where they are until :meth:`parts`."""
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind = h5py.h5t.py_create(values.dtype, logical=True)
        space = h5py.h5s.create_simple(values.shape)
        dataset = h5py.h5d.create(group.id, name.encode(), kind, space, reserved)
        if values.size:
            self._arrays[dataset.get_offset()] = values

    def parts(self) -> Iterator[memoryview]:
        """The bytes of the closed file, from its beginning to its end."""
        at = 0
        for start, values in sorted(self._arrays.items(), key=lambda pair: pair[0]):
            yield from self._between(at, start)
            yield values.reshape(-1).data.cast("B")
            at = start + values.nbytes
        yield from self._between(at, self._size)

    def _between(self, start: int, stop: int) -> Iterator[memoryview]:
        """These bytes, block by block."""
        while start < stop:
            number, inside = divmod(start, _BLOCK)
            length = min(_BLOCK - inside, stop - start)
            yield memoryview(self._blocks.get(number, _ZEROS))[inside : inside + length]
            start += length

    # What HDF5 asks of a file.

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        done = 0
        stop = min(self._position + len(buffer), self._size)
        for part in self._between(self._position, stop):
            buffer[done : done + len(part)] = part
            done += len(part)
        self._position += done
        return done

    def write(self, part: memoryview) -> int:  # type: ignore[override]
        start, left = self._position, memoryview(part).cast("B")
        while left:
            number, inside = divmod(self._position, _BLOCK)
            here = left[: _BLOCK - inside]
            block = self._blocks.setdefault(number, bytearray(_BLOCK))
            block[inside : inside + len(here)] = here
            self._position += len(here)
            left = left[len(here) :]
        self._size = max(self._size, self._position)
        return self._position - start
