"""Presets of sparse parity: every cell can be trained, as one bucket wherever shapes allow."""

from __future__ import annotations

import pytest

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.presets.parity import PRESETS

#: Cells, runs of each included, and buckets.
SIZES = {
    "parity-baseline": (5, 1),
    "parity-h1": (25, 1),
    "parity-h2": (50, 1),
    "parity-k3": (5, 1),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_published_ones_train_together(name):
    grid = gf.preset(name)
    buckets = make_buckets(grid.cells, range(grid.size))
    assert (grid.size, len(buckets)) == SIZES[name]
    (bucket,) = buckets
    assert len(set(bucket.init_index.tolist())) == 5  # one initial model a run
    assert bucket.curve_steps.tolist() == [e * bucket.steps_per_epoch for e in range(501)]
    assert bucket.cell.steps == 500 * bucket.steps_per_epoch


@pytest.mark.parametrize("name", sorted(set(PRESETS) - set(SIZES)))
def test_the_corners_of_the_diagrams_can_be_trained(name):
    grid = gf.preset(name)
    ends = {path: [values[0], values[-1]] for path, values in grid.axes.items()}
    corners = grid.grid(**ends)
    buckets = make_buckets(corners.cells, range(corners.size))
    assert sum(bucket.num_cells for bucket in buckets) == corners.size == 8
    assert all(bucket.cell.steps % bucket.steps_per_epoch == 0 for bucket in buckets)


def test_every_size_of_the_diagram_ends_an_epoch_with_the_budget():
    grid = gf.preset("parity-size")
    for size in grid.axes["task.train_size"]:
        assert size % 32 == 0 and grid.experiment.steps % (size // 32) == 0
