"""Refusals, checks of arguments, storage and schedule: what surrounds the kernel."""

import pytest
import torch
from grokfast.kernels.launch import evaluation_marks
from grokfast.kernels.layout import make_layout, pack, pack_rows, unpack, views
from hypothesis import given, settings
from hypothesis import strategies as st
from small_jobs import make_job

from grokfast import kernels

BASE = {
    "sizes": (1, 200, 200, 19),
    "activation": "tanh",
    "loss": "cross_entropy",
    "predict": "argmax",
    "num_train": 45,
    "num_val": 10,
    "batch_size": 45,
    "num_classes": 19,
    "embedding": (10, 1),
    "num_tokens": 2,
}


def test_supported():
    assert kernels.unsupported(kernels.Spec(**BASE)) is None


@pytest.mark.parametrize("field", kernels.SUPPORT)
def test_unknown_values_are_refused_with_the_known_ones(field):
    reason = kernels.unsupported(kernels.Spec(**{**BASE, field: "odd"}))
    known = ", ".join(map(str, kernels.SUPPORT[field]))
    assert reason == f"{field} 'odd': the triton engine knows {known}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activate_embedding": True, "embedding": None}, "no embedding"),
        ({"dtype": "float64", "precision": "tf32"}, "float64"),
        ({"sizes": (1, 2, 3, 4, 5, 6)}, "5 linear layers"),
        ({"sizes": (1, 200, 300), "num_classes": 300}, "300 outputs"),
        ({"embedding": (10, 2)}, "does not feed"),
        ({"batch_size": 7}, "does not divide"),
        ({"num_val": 0}, "validation"),
        ({"num_val": 2**23}, "1677730600 numbers"),
        ({"train_accuracy": "after", "num_train": 90}, "batches of 45 of 90"),
        ({"eps": 0.0}, "eps"),
    ],
)
def test_unsupported(change, says):
    assert says in kernels.unsupported(kernels.Spec(**{**BASE, **change}))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("activation", "cube", "activation 'cube'"),
        ("x_train", torch.zeros(2, 13, 2), "x_train"),
        ("y_val", torch.zeros(2, 5, dtype=torch.int64), "y_val"),
        ("lr", torch.zeros(7, 2), "float64"),
        ("step", torch.zeros(2, 3, dtype=torch.int64).T[0], "step"),
        ("until", 2**31, "until"),
        ("exp_avg", [], "exp_avg: 0 tensors"),
        ("train_loss", None, "train_loss is missing"),
        ("best_val_correct", torch.zeros(2), "best_val_correct: expected contiguous torch.int64"),
        ("need_val_more", torch.zeros(1, dtype=torch.int64), "need_val_more"),
        ("train_crossings", torch.zeros(2, 1, dtype=torch.int64), "train_crossings"),
        ("y_train", torch.full((2, 13), 7, dtype=torch.int32), "y_train: values from 7"),
        ("x_val", torch.full((2, 5, 2), -1, dtype=torch.int32), "x_val: values from -1"),
        ("data_index", torch.full((2,), 2, dtype=torch.int32), "data_index"),
        ("cells", torch.tensor([0, 1, 1]), "cells: each"),
    ],
)
def test_bad_arguments(field, value, says):
    with pytest.raises(ValueError, match=says):
        kernels.train(**{**make_job(), field: value})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"order": None}, "order is missing"),
        ({"first_epoch": 1}, "holds epochs 1 to 4, needed are 0 to 1"),
        ({"until": 17}, "holds epochs 0 to 3, needed are 0 to 4"),
    ],
)
def test_bad_order(change, says):
    job = make_job(sizes=(3, 5), embedding=None, train=12, batch_size=3, epochs=4, until=8)
    with pytest.raises(ValueError, match=says):
        kernels.train(**{**job, **change})


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=2, max_size=5).map(tuple),
    embedded=st.booleans(),
    bias=st.booleans(),
)
def test_pack_and_back(sizes, embedded, bias):
    """Packing keeps every number, aligns every row, pads with zeros."""
    embedding = (7, sizes[0]) if embedded else None
    job = make_job(sizes=sizes, embedding=embedding, bias=bias, cells=4)
    fields = {"sizes": sizes, "embedding": embedding, "bias": bias, "num_classes": sizes[-1]}
    spec = kernels.Spec(**{**BASE, **fields})
    layout = make_layout(spec)
    cells = torch.tensor([2, 0])
    packed = pack(job["params"], cells, layout)
    assert packed.count_nonzero() == sum(p[cells].count_nonzero() for p in job["params"])
    assert all(offset % 4 == 0 for offset in (*layout.offset, layout.size))
    back = [torch.full_like(p, 7) for p in job["params"]]
    unpack(packed, back, cells, layout)
    for one, view, other in zip(back, views(packed, layout), job["params"], strict=True):
        assert torch.equal(one[cells], other[cells]) and (one[[1, 3]] == 7).all()
        assert torch.equal(view, other[cells])


def test_pack_rows():
    rows = pack_rows(torch.ones(2, 3, 5), 2 * torch.ones(2, 4, 5), 8)
    assert rows.shape == (2, 7, 8) and rows[:, :3, :5].eq(1).all() and rows[:, 3:, :5].eq(2).all()
    assert rows[:, :, 5:].eq(0).all()


def test_evaluation_marks():
    spec = kernels.Spec(**{**BASE, "num_train": 6, "batch_size": 3})
    marks = evaluation_marks(spec, 1, 8, None, torch.tensor([4, 8]))
    assert marks.tolist() == [-1, -2, 0, -2, -1, -2, 1]
    marks = evaluation_marks(spec, 1, 8, torch.tensor([3, 4, 6]), torch.tensor([6]))
    assert marks.tolist() == [-2, -2, -1, -2, 0, -2, -2]
    assert evaluation_marks(spec, 0, 2, None, None).tolist() == [-2, -1]
