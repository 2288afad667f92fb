"""Data sets that come as files: MNIST, found on the machine or downloaded, always verified."""

from grokfast.data.mnist import (
    FileStatus,
    MnistArrays,
    fetch_mnist,
    find_mnist,
    load_mnist,
    verify_mnist,
)

__all__ = [
    "FileStatus",
    "MnistArrays",
    "fetch_mnist",
    "find_mnist",
    "load_mnist",
    "verify_mnist",
]
