"""The image of an HDF5 file: what HDF5 itself would have written, with nothing large held twice."""

import tracemalloc

import h5py
import numpy as np
import pytest

from grokfast.storage.image import Image

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(300, 700)).astype("f4"),  # more than a block
    "small": np.arange(3, dtype="f8"),
    "integers": np.arange(20_000, dtype="i8"),
    "big-endian": np.arange(5, dtype=">f4"),
    "strided": RNG.normal(size=(40, 50))[::3, ::7],
    "one": np.array([True, False]).astype("u1"),
    "nothing": np.empty((0, 4), "f4"),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f.h5"


def write(path, arrays):
    image = Image()
    with h5py.File(image, "w") as file:
        file.attrs["title"] = "x" * 3000
        group = file.create_group("weights")
        for name, values in arrays.items():
            file[f"copied {name}"] = values
            image.place(group, name, values)
            group.attrs[name] = "after"
    with path.open("wb") as out:
        for part in image.parts():
            out.write(part)


def test_hdf5_reads_what_was_placed(path):
    write(path, ARRAYS)
    with h5py.File(path) as file:
        assert file.attrs["title"] == "x" * 3000
        for name, values in ARRAYS.items():
            for where in (f"weights/{name}", f"copied {name}"):
                assert file[where].shape == values.shape
                np.testing.assert_array_equal(file[where][...], values)


def test_the_file_is_no_longer_than_hdf5s_own(path, tmp_path):
    write(path, ARRAYS)
    own = tmp_path / "own.h5"
    with h5py.File(own, "w") as file:
        file.attrs["title"] = "x" * 3000
        for name, values in ARRAYS.items():
            file[f"copied {name}"] = values
            file[f"weights/{name}"] = values
            file["weights"].attrs[name] = "after"
    assert abs(path.stat().st_size - own.stat().st_size) < 4096


def test_large_arrays_are_not_copied(path):
    large = {name: np.ones((2000, 1000), "f4") for name in "abcd"}  # 32 MB
    image = Image()
    tracemalloc.start()
    try:
        with h5py.File(image, "w") as file:
            for name, values in large.items():
                image.place(file, name, values)
        size = sum(len(part) for part in image.parts())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 32_000_000
    assert peak < 1_000_000
