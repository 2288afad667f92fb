"""The smooth diagram and the convergence steps."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm

from grokfast.errors import UsageError
from grokfast.figures import convergence_diagram, smooth_diagram
from grokfast.presets import preset


@pytest.fixture
def mixed(make):
    """T_val before T_train, short and long delay, memorised early and late, never, pending."""
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0, 4.0, 6.0])
    t_train = [500, 500, 500, 300, 90_000, -1, -1, 100]
    t_val = [400, 700, 50_500, -1, -1, -1, -1, -1]
    return make(grid, t_train, t_val, pending=[6], diverged=[7])


def shown(mesh):
    return np.ma.masked_invalid(mesh.get_array())


def test_the_two_scales_share_the_cells_between_them(mixed):
    panel, bar = smooth_diagram(mixed).axes
    delay, slow = panel.collections[:2]
    assert isinstance(delay.norm, LogNorm)
    assert isinstance(slow.norm, LogNorm)
    # [decay, lr]; cells 0 to 3 are the first learning rate
    assert shown(delay)[0, 0] == delay.norm.vmin, "T_val <= T_train is at the low end"
    assert (shown(delay)[1, 0], shown(delay)[2, 0]) == (200, 50_000)
    assert shown(delay).mask.sum() == 5
    slow_shown = shown(slow)
    assert (slow_shown[3, 0], slow_shown[0, 1], slow_shown[3, 1]) == (300, 90_000, 100)
    assert slow_shown.mask.sum() == 5, "a pending cell has neither, nor has one that never did"
    assert bar.get_ylabel() == "steps"


def hatches(ax):
    """Hatch -> cells ``(x, y)`` at the left of each hatched run."""
    found = {}
    for collection in ax.collections:
        if collection.get_hatch():
            lefts = [path.get_extents().min + 0.5 for path in collection.get_paths()]
            found[collection.get_hatch()] = {tuple(left.astype(int).tolist()) for left in lefts}
    return found


def test_never_has_a_hatch_and_no_colour(make, mixed):
    panel = smooth_diagram(mixed).axes[0]
    assert hatches(panel) == {"xxxx": {(1, 1)}, "......": {(1, 2)}, "//////": {(1, 3)}}
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0])
    figure = smooth_diagram(make(grid, [-1, 10, -1, -1], [-1, 20, -1, -1], diverged=[3]))
    assert hatches(figure.axes[0]) == {"xxxx": {(0, 0)}, "//////": {(1, 1)}}  # of two cells, of one
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts[1:] == ["never memorised", "diverged"]


def test_the_legend_says_what_occurs_and_the_bar_spans_it(mixed, make):
    figure = smooth_diagram(mixed)
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == [
        "generalised: T(val) \N{MINUS SIGN} T(train)",
        "only memorised: T(train)",
        "never memorised",
        "diverged",
        "not finished",
    ]
    _, bar = figure.axes
    assert bar.get_ylim() == (100, 90_000), "the data, no more"
    assert [m.norm.vmin for m in bar.collections] == [200, 100]
    assert [m.norm.vmax for m in bar.collections] == [50_000, 90_000]
    assert [t.get_text() for t in bar.texts] == ["≤ 0"]
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0])
    figure = smooth_diagram(make(grid, 10, [20, 30, 500, 4000]))
    assert len(figure.axes[1].collections) == 1, "no strip for what does not occur"
    assert len(figure.legends[0].get_texts()) == 1
    assert not figure.axes[1].texts


def test_regions_have_borders_and_names(small, published):
    panel = smooth_diagram(published).axes[0]
    assert {t.get_text() for t in panel.texts} == set(published.rule.phases)
    lines = [c for c in panel.collections if isinstance(c, LineCollection)][-1].get_segments()
    phase = published.on_grid(published.phases())
    differ = sum((np.diff(phase, axis=k) != 0).sum() for k in range(2))
    assert len(lines) == differ, "between any two phases"


def test_the_threshold_is_on_the_colour_bar(mixed):
    bar = smooth_diagram(mixed).axes[1]
    (line,) = [x for x in bar.lines if x.get_label() == "threshold"]
    assert set(line.get_ydata()) == {mixed.rule.gap}


def test_a_smooth_diagram_of_nothing_but_confusion(make):
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0])
    assert len(smooth_diagram(make(grid, -1, -1)).axes) == 1, "no bar for no colour"
    assert len(convergence_diagram(make(grid, -1, -1)).axes) == 3


def test_convergence_masks_what_was_never_reached(mixed):
    figure = convergence_diagram(mixed)
    train, val, bar = figure.axes
    assert [a.get_title(loc="left") for a in (train, val)] == ["T(train)", "T(val)"]
    meshes = [a.collections[0] for a in (train, val)]
    assert meshes[0].norm is meshes[1].norm
    assert np.ma.getmaskarray(meshes[0].get_array()).sum() == 2
    assert np.ma.getmaskarray(meshes[1].get_array()).sum() == 5
    assert bar.get_ylabel() == "steps"
    assert {c.get_hatch() for c in val.collections} >= {"xxxx", "......"}
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["never reached", "diverged", "not finished"]


def test_a_budget_forgets_later_steps(mixed):
    val = convergence_diagram(mixed, budget=10_000).axes[1]
    assert np.ma.getmaskarray(val.collections[0].get_array()).sum() == 6
    panel = smooth_diagram(mixed, budget=10_000).axes[0]
    assert np.ma.getmaskarray(panel.collections[0].get_array()).sum() == 6


def test_panels_of_a_third_axis(make):
    grid = preset("addition-regression").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0], data_seed=[1, 2, 3, 4, 5]
    )
    results = make(grid, 10, 20)
    assert len(smooth_diagram(results).axes) == 5 + 1
    figure = convergence_diagram(results)
    assert len(figure.axes) == 10 + 1
    assert figure.axes[9].get_title(loc="left") == "T(val)\ndata seed 5"


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({}, (1, 2)),
        ({"data_seed": 2}, (2, 2)),
        ({"data_seed": 4}, (2, 4)),
        ({"data_seed": 8}, (4, 4)),
        ({"data_seed": 4, "model_seed": 2}, (4, 4)),
        ({"data_seed": 2, "model_seed": 4}, (4, 4)),
    ],
)
def test_convergence_is_no_tower(make, axes, shape):
    axes = {name: list(range(count)) for name, count in axes.items()}
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0], **axes)
    t_train = 10 * (1 + np.arange(grid.size))
    *panels, _ = convergence_diagram(make(grid, t_train, 3 * t_train)).axes
    assert panels[0].get_subplotspec().get_gridspec().get_geometry() == shape
    for ax in panels:  # each shows what its title says
        moment, *_ = ax.get_title(loc="left").split("\n")
        twin = next(
            a
            for a in panels
            if a is not ax
            and a.get_title(loc="left").split("\n")[1:] == ax.get_title(loc="left").split("\n")[1:]
        )
        factor = 3 if moment == "T(val)" else 1 / 3
        np.testing.assert_allclose(shown(ax.collections[0]), factor * shown(twin.collections[0]))


@pytest.mark.parametrize("figure", [smooth_diagram, convergence_diagram])
def test_single_cells_are_refused(make, figure):
    grid = preset("addition-regression").grid(lr=1e-3, weight_decay=0.0)
    with pytest.raises(UsageError, match="needs an axis"):
        figure(make(grid, 10, 20))
