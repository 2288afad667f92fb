"""IDX files, the format of MNIST: a magic number, big-endian sizes, raw values.

Format: LeCun, Cortes and Burges, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokfast.errors import EnvironmentProblem

GZIP_MAGIC = b"\x1f\x8b"

#: Third byte of the magic number -> type of the values.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class BadFile(EnvironmentProblem):
    """A file that is there but is not what its name promises; says which file, and why."""

    def __init__(self, path: Path, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """The content of a file, unpacked where it is gzip (told by its bytes, not by its name).

    Args:
        path: a regular file.
        max_bytes: most bytes of unpacked content that are accepted, whatever the file claims: a
            file of a few kB can unpack to many GB.

    Raises:
        BadFile: unreadable, an HTML page, truncated or damaged gzip, or too large.
    """
    path = Path(path)
    try:
        # Opening a pipe or a device would wait forever or read without end.
        if path.exists() and not path.is_file():
            raise BadFile(path, "not a regular file")
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            if start.lstrip()[:1] == b"<":
                raise BadFile(path, "an HTML or XML page, not data (saved from a login page?)")
            packed = start.startswith(GZIP_MAGIC)
            # One byte more than allowed tells "too large" from "exactly at the limit".
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(max_bytes + 1)
    except EOFError:
        raise BadFile(path, "truncated: the gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(path, f"damaged gzip stream ({error})") from None
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from error
    if len(content) > max_bytes:
        raise BadFile(path, f"wrong size: more than {max_bytes} bytes unpacked")
    return content


def idx_header(content: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and offset of the values in the content of an IDX file.

    Raises:
        ValueError: wrong magic number, or more or fewer bytes than the header promises.
    """
    if len(content) < 4:
        raise ValueError(f"truncated: {len(content)} bytes, too few for a header")
    zero, code, ndim = struct.unpack(">HBB", content[:4])
    if zero != 0 or code not in _DTYPES or ndim == 0:
        raise ValueError(f"wrong magic number 0x{content[:4].hex()}, not an IDX file")
    offset = 4 + 4 * ndim
    if len(content) < offset:
        raise ValueError(f"truncated: {len(content)} bytes, too few for a header")
    shape = struct.unpack(f">{ndim}I", content[4:offset])
    dtype = np.dtype(_DTYPES[code])
    # Python integers: a crafted shape cannot overflow, and nothing is allocated from it.
    expected = offset + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise ValueError(f"{what}: {len(content)} bytes, the header promises {expected}")
    return dtype, shape, offset


def parse_idx(content: bytes) -> NDArray[Any]:
    """The array in the content of an IDX file: a writable copy in the machine's byte order.

    Raises:
        ValueError: as ``idx_header``.
    """
    dtype, shape, offset = idx_header(content)
    values = np.frombuffer(content, dtype, offset=offset).reshape(shape)
    return values.astype(dtype.newbyteorder("="))
