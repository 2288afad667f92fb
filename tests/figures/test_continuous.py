"""The smooth diagram and the convergence steps."""

import numpy as np
import pytest
from matplotlib.colors import LogNorm, to_hex

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


def test_the_two_scales_share_the_cells_between_them(mixed):
    panel, slow_bar, delay_bar = smooth_diagram(mixed).axes
    delay, slow = panel.collections[:2]
    assert isinstance(delay.norm, LogNorm)
    assert isinstance(slow.norm, LogNorm)
    # [decay, lr]; cells 0 to 3 are the first learning rate
    shown = np.ma.masked_invalid(delay.get_array())
    assert shown[0, 0] == delay.norm.vmin, "T_val <= T_train is at the low end"
    assert (shown[1, 0], shown[2, 0]) == (200, 50_000)
    assert shown.mask.sum() == 5
    slow_shown = np.ma.masked_invalid(slow.get_array())
    assert (slow_shown[3, 0], slow_shown[0, 1], slow_shown[3, 1]) == (300, 90_000, 100)
    assert to_hex(slow.to_rgba(slow_shown[1, 1])) == "#000000", "never memorised is black"
    assert slow_shown.mask.sum() == 4, "a pending cell has neither"
    assert slow_bar.get_ylabel() == "T(train), steps;\nnever generalised"
    assert delay_bar.get_ylabel().endswith("T(train), steps")


def test_the_threshold_is_on_the_colour_bar(mixed):
    delay_bar = smooth_diagram(mixed).axes[2]
    (line,) = [x for x in delay_bar.lines if x.get_label() == "threshold"]
    assert set(line.get_ydata()) == {mixed.rule.gap}
    assert delay_bar.get_ylim()[0] < mixed.rule.gap < delay_bar.get_ylim()[1]


def test_a_smooth_diagram_of_nothing_but_confusion(make):
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 2.0])
    assert len(smooth_diagram(make(grid, -1, -1)).axes) == 3
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
    assert len(smooth_diagram(results).axes) == 5 + 2
    figure = convergence_diagram(results)
    assert len(figure.axes) == 10 + 1
    assert figure.axes[9].get_title(loc="left") == "T(val)\ndata seed 5"


@pytest.mark.parametrize("figure", [smooth_diagram, convergence_diagram])
def test_single_cells_are_refused(make, figure):
    grid = preset("addition-regression").grid(lr=1e-3, weight_decay=0.0)
    with pytest.raises(UsageError, match="needs an axis"):
        figure(make(grid, 10, 20))
