"""Steps of memorising and generalising against an axis."""

import numpy as np
import pytest

from grokfast import figures
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures import grokking_times
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.tasks import Modular

ALPHA, STEPS = (0.2, 0.4, 0.6, 0.8), 1000
NEVER = -1


@pytest.fixture
def timed(make):
    """``timed(axes, t_val, ...)``: cells over the data fraction, which is the last axis."""

    def build(axes, t_val, t_train=10, **options):
        experiment = Experiment(task=Modular(p=11), model=Mlp(embedding_dim=8), steps=STEPS)
        grid = Grid(experiment=experiment, axes=axes | {"task.fraction": ALPHA}, name="modular")
        return make(grid, t_train, t_val, **options)

    return build


DECAYS = {"optimizer.weight_decay": (5.0, 0.0)}
T_VAL = [200, 100, 50, 40, NEVER, NEVER, 300, 150]


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def filled(ax):
    """The lines through what was reached, the first drawn first."""
    return [line for line in ax.lines if len(line.get_xdata()) == len(ALPHA)]


def open_markers(ax):
    """Position of each censored cell, by line."""
    return [
        list(zip(bars[0].get_xdata(), bars[0].get_ydata(), strict=True)) for bars in ax.containers
    ]


def test_a_line_for_each_value_of_the_second_axis(timed):
    figure = grokking_times(timed(DECAYS, T_VAL, range(10, 18)))
    train, val, bar = figure.axes
    assert [ax.get_title(loc="left") for ax in (train, val)] == ["T(train)", "T(val)"]
    assert (train.get_xlabel(), train.get_ylabel()) == (r"training fraction $\alpha$", "steps")
    assert train.get_yscale() == "log"
    assert train.get_ylim() == val.get_ylim()
    assert bar.get_ylabel() == "weight decay"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "5"]
    zero, five = filled(train)
    np.testing.assert_array_equal(zero.get_xdata(), ALPHA)
    np.testing.assert_array_equal(zero.get_ydata(), [14, 15, 16, 17])
    np.testing.assert_array_equal(five.get_ydata(), [10, 11, 12, 13])
    np.testing.assert_array_equal(filled(val)[0].get_ydata(), [np.nan, np.nan, 300, 150])
    assert zero.get_color().tolist() != five.get_color().tolist()


def test_what_was_never_reached_is_open_at_the_budget(timed):
    results = timed(DECAYS, T_VAL)
    figure = grokking_times(results)
    train, val, _ = figure.axes
    assert open_markers(train) == []
    assert open_markers(val) == [[(0.2, STEPS), (0.4, STEPS)]]
    assert val.get_ylim()[1] > 1.5 * STEPS, "room for the arrow"
    assert "Open, with an arrow: not reached" in footnote(figure)
    assert "Open" not in footnote(grokking_times(timed(DECAYS, range(20, 28))))
    figure = grokking_times(results, budget=160)
    assert open_markers(figure.axes[1]) == [[(0.2, 160), (0.4, 160), (0.6, 160)], [(0.2, 160)]]
    assert "As of 160 of 1,000 steps" in footnote(figure)


def test_open_markers_of_several_lines_do_not_hide_each_other(timed):
    figure = grokking_times(timed(DECAYS, NEVER))
    figure.draw_without_rendering()
    bars = [bars[0] for bars in figure.axes[1].containers]
    first, second = (b.get_transform().transform(b.get_xydata())[:, 0] for b in bars)
    assert (first < second).all()
    low, high = figure.axes[1].get_xlim()
    assert low < ALPHA[0]
    assert ALPHA[-1] < high


def test_one_axis_has_one_panel_with_both(timed):
    figure = grokking_times(timed({}, [NEVER, 100, 50, 40]))
    (ax,) = figure.axes
    train, val = filled(ax)
    assert train.get_ydata().tolist() == [10] * 4
    assert (train.get_linestyle(), val.get_linestyle()) == ("-", "--")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["T(train)", "T(val)"]


def test_further_axes_make_rows(timed):
    axes = {"task.corruption": (0.0, 0.3), **DECAYS}
    figure = grokking_times(timed(axes, range(20, 36)), x="task.fraction")
    titles = [ax.get_title(loc="left") for ax in figure.axes[:-1]]
    assert titles == [
        f"{moment}\nweight decay {decay}" for decay in (0, 5) for moment in ("T(train)", "T(val)")
    ]
    assert [line.get_ydata().tolist() for line in filled(figure.axes[3])] == [
        [20, 21, 22, 23],
        [28, 29, 30, 31],
    ]


def test_the_longest_axis_of_numbers_lies_along_x(timed):
    def along_x(axes, **options):
        return grokking_times(timed(axes, 50), **options).axes[-2]  # the last is the colour bar

    fraction = r"training fraction $\alpha$"
    seeds = {"model.seed": tuple(range(6)), **DECAYS}
    assert along_x(seeds).get_xlabel() == fraction
    assert along_x({"task.corruption": (0.0, 0.1, 0.2, 0.3)}).get_xlabel() == fraction
    rates = {"optimizer.lr": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)}
    assert along_x(rates).get_xlabel() == "learning rate"
    assert along_x(rates).get_xscale() == "log"
    with_zero = {"optimizer.weight_decay": (0.0, 1e-3, 1e-2, 1e-1, 1.0)}
    assert along_x(with_zero).get_xscale() == "symlog"
    assert along_x(rates, x="task.fraction").get_xlabel() == fraction


def test_names_lie_along_x_where_asked_for(timed):
    kinds = {"model.activation": ("relu", "tanh")}
    ax = grokking_times(timed(kinds, 50), x="activation").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["relu", "tanh"]


def test_replicates_are_medians_with_bands(timed):
    seeds = {"model.seed": (1, 2, 3, 4)}
    t_val = np.array([[100, 110, 120, 130]] * 4).T  # the fraction makes no difference
    t_val[:, 0] = [100, 200, NEVER, NEVER]
    together = timed(seeds, t_val.ravel()).aggregate("model_seed")
    figure = grokking_times(together)
    (ax,) = figure.axes
    val = filled(ax)[1]
    np.testing.assert_array_equal(val.get_ydata(), [np.nan, 115, 115, 115])
    (band,) = ax.collections[:1]
    drawn = band.get_paths()[0].vertices
    first, rest = drawn[drawn[:, 0] == 0.2, 1], drawn[drawn[:, 0] == 0.4, 1]
    assert (first.min(), first.max()) == (175, STEPS), "censored above"
    assert (rest.min(), rest.max()) == (107.5, 122.5)
    assert open_markers(ax) == [[(0.2, STEPS)]]
    assert "Medians over 4 model seeds; bands: 25% to 75%." in footnote(figure)


def test_cells_that_are_not_finished_are_left_out(timed):
    figure = grokking_times(timed({}, 50, pending=[2]))
    np.testing.assert_array_equal(filled(figure.axes[0])[1].get_ydata(), [50, 50, np.nan, 50])
    assert open_markers(figure.axes[0]) == []
    assert "1 of 4 cells are not finished." in footnote(figure)


def test_without_an_axis_of_numbers(make, timed, tmp_path):
    grid = timed({}, 50).grid
    named = Grid(experiment=grid.experiment, axes={"model.activation": ("relu", "tanh")})
    with pytest.raises(UsageError, match="an axis of several numbers"):
        grokking_times(make(named, 10, 20))
    with pytest.raises(UsageError, match="x='alpha' is no axis"):
        grokking_times(timed({}, 50), x="alpha")
    with pytest.raises(UsageError, match="times has no y"):
        figures.draw(timed({}, 50), "times", y="task.fraction", out=tmp_path / "a.png")
