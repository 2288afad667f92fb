"""Runs of a second, whole or with their bytes compared, for all tests of runs."""

from __future__ import annotations

import pytest

import grokfast as gf


def small(**changes):
    """Six cells of every kind of ending, in a second."""
    options = {
        "lr": [1e-3, 1e-2],
        "weight_decay": [0.0, 1.0, 10.0],
        "width": 24,
        "steps": 600,
        "record.embeddings": 50,
        "record.weights": True,
    } | changes
    return gf.preset("addition-classification").grid(**options)


def run(grid, engine="native", **kw):
    if engine == "native":
        pytest.importorskip("grokfast._native")
    kw.setdefault("threads", 2 if engine == "native" else 1)
    return gf.run(grid, engine=engine, device="cpu", progress=False, **kw)


def assert_same_arrays(a, b):
    """Every array of two results, byte for byte."""
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        x, y = a[name], b[name]
        assert x.dtype == y.dtype, name
        assert x.tobytes() == y.tobytes() if x.dtype.kind != "O" else (x == y).all(), name
    for p, q in zip(a.weights, b.weights, strict=True):
        assert all(p[k].tobytes() == q[k].tobytes() for k in p | q)
