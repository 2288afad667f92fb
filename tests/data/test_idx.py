"""The reader of IDX files: every type, every way to be damaged."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from grokfast.data.idx import BadFile, parse_idx, read_bytes

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def read_idx(path: Path) -> np.ndarray:
    """As the reader of MNIST does it: what is wrong with the bytes is told of the file."""
    content = read_bytes(path, max_bytes=1 << 28)
    try:
        return parse_idx(content)
    except ValueError as error:
        raise BadFile(path, str(error)) from None


def idx(values: np.ndarray) -> bytes:
    code = CODES[values.dtype.str[1:]]
    header = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 2, 4), (0, 28)])
@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_was_written(tmp_path: Path, kind: str, shape: tuple, packed: bool) -> None:
    values = np.random.default_rng(0).integers(-100, 100, shape).astype(kind)
    path = tmp_path / "x"  # no suffix: gzip is told by its bytes
    path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    read = read_idx(path)
    assert read.dtype == values.dtype and read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, values)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too few for a header"),
        (GOOD[:3], "too few for a header"),
        (GOOD[:10], "too few for a header"),
        (GOOD[:-1], "truncated: 39 bytes, the header promises 40"),
        (GOOD + b"\0", "too long: 41 bytes, the header promises 40"),
        (b"\x00\x00\x07" + GOOD[3:], "wrong magic number 0x00000703"),
        (b"\x01" + GOOD[1:], "wrong magic number"),
        (b"\x00\x00\x08\x00", "wrong magic number"),
        (b"\x00\x00\x08\xff" + b"\xff" * 1020, "truncated"),
        (b"\x00\x00\x0e\x04" + b"\xff" * 16, "the header promises"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n  <html>", "HTML"),
        (PACKED[:-9], "gzip stream ends early"),
        (PACKED[:15] + b"\xff\xff\xff" + PACKED[18:], "damaged gzip"),
        (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "damaged gzip"),
        (PACKED + b"junk", "damaged gzip"),
        (b"\x1f\x8b", "gzip stream ends early"),
    ],
)
def test_damaged_files_are_refused_by_name_and_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(BadFile) as caught:
        read_idx(path)
    assert caught.value.path == path and str(path) in str(caught.value)
    assert reason in caught.value.reason
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1 << 26)))
    assert path.stat().st_size < 100_000
    with pytest.raises(BadFile, match="more than 1000 bytes"):
        read_bytes(path, max_bytes=1000)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(PACKED)
    assert read_bytes(path, max_bytes=len(GOOD)) == GOOD


def test_absent_folders_and_pipes_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(BadFile, match="not a regular file"):
        read_idx(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadFile, match="not a regular file"):  # and does not wait for ever
            read_idx(tmp_path / "pipe")


def test_parse_is_of_bytes() -> None:
    assert parse_idx(GOOD).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="magic"):
        parse_idx(b"PK\x03\x04....")
