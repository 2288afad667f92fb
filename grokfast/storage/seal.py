"""The seal: the last bytes of a file, with a digest of all that comes before.

It lies behind the end that an HDF5 file itself states, where HDF5 and what is built on it do not
look. A file whose seal holds is bit for bit as it was written. 64 bytes: a mark, the length of what
is sealed (64 bits, little-endian), the SHA-256 of that and of mark and length.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO

MARK = b"\ngrokfast-seal-1\n\0\0\0\0\0\0\0"  # 24 bytes
SIZE = len(MARK) + 8 + 32

#: What is to be said of a file: as written, not as written, never sealed.
WHOLE, BROKEN, NONE = "whole", "broken", "none"

_BLOCK = 1 << 20


class Sealing:
    """The digest of bytes on their way into a file."""

    def __init__(self) -> None:
        self.length = 0
        self._digest = hashlib.sha256()

    def add(self, part: bytes | memoryview) -> None:
        view = memoryview(part)
        self.length += view.nbytes
        self._digest.update(view)

    def seal(self) -> bytes:
        """What closes the file."""
        end = MARK + self.length.to_bytes(8, "little")
        digest = self._digest.copy()
        digest.update(end)
        return end + digest.digest()


def sealed(file: IO[bytes]) -> str:
    """Whether a file that is open for reading is :data:`WHOLE`, :data:`BROKEN` or has no seal at
    its end (:data:`NONE`: an older one, or cut, or added to)."""
    size = file.seek(0, os.SEEK_END)
    if size < SIZE:
        return NONE
    file.seek(size - SIZE)
    seal = file.read(SIZE)
    if not seal.startswith(MARK):
        return NONE
    file.seek(0)
    digest, left = Sealing(), size - SIZE
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            return BROKEN
        digest.add(block)
        left -= len(block)
    return WHOLE if digest.seal() == seal else BROKEN
