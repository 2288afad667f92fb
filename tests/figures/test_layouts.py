"""Clouds of points laid out in panels, whatever they are points of."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from grokfast.analyses import tsne
from grokfast.errors import UsageError
from grokfast.figures.layouts import NAMED, Cloud, draw_clouds, label_bar

pytest.importorskip("sklearn")


def cloud(labels, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 5, (labels, 8))
    label = np.arange(40) % labels
    return Cloud(centres[label] + rng.normal(0, 0.1, (40, 8)), label, f"cloud {seed}")


def dots(ax):
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def test_each_cloud_is_its_own_layout_with_a_colour_and_a_mark_a_label():
    clouds = [cloud(3), cloud(3, 1)]
    axes = Figure().subplots(1, 2)
    handles = draw_clouds(axes, clouds, ["a", "b", "c"], seed=4)
    assert [h.get_label() for h in handles] == ["a", "b", "c"]
    assert len({h.get_color() for h in handles}) == len({h.get_marker() for h in handles}) == 3
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[1].get_ylim()
    for ax, own in zip(axes, clouds, strict=True):
        flat = tsne(own.points, 4)
        assert ax.get_title() == own.title
        for label, collection in enumerate(ax.collections):
            np.testing.assert_allclose(collection.get_offsets(), flat[own.labels == label])
        assert np.abs(dots(ax)).max() < ax.get_xlim()[1]


def test_many_labels_have_a_colour_bar():
    figure = Figure()
    ax = figure.subplots()
    names = [str(k) for k in range(NAMED + 11)]
    assert draw_clouds([ax], [cloud(NAMED + 11)], names) == []
    assert len(ax.collections) == 1
    label_bar(figure, ax, names, "residue")
    bar = figure.axes[1]
    assert bar.get_ylabel() == "residue"
    assert [t.get_text() for t in bar.get_yticklabels()] == names[::2]


def test_a_label_without_a_name():
    with pytest.raises(UsageError, match=r"labels are not in 0\.\.1"):
        draw_clouds([Figure().subplots()], [cloud(3)], ["a", "b"])


def test_points_that_coincide_are_one_dot():
    ax = Figure().subplots()
    draw_clouds([ax], [Cloud(np.ones((40, 3)), np.zeros(40, int))], ["a"])
    assert not dots(ax).any()
    assert ax.get_xlim() == (-1, 1)
