"""Curves and embedding trajectories of single cells."""

import numpy as np
import pytest

from grokfast.errors import UsageError
from grokfast.figures import curves, embedding_trajectories
from grokfast.figures.choice import choose
from grokfast.figures.trajectories import _colours, one_component
from grokfast.presets import preset
from grokfast.results import DIVERGED


def test_one_cell_of_each_phase_by_default(small):
    assert small.phases()[choose(small, None)].tolist() == [0, 1, 2, 3]


def test_phases_that_are_absent_are_left_out(letters):
    results = letters(["CCCCC", "CCCCC", "CCCMM", "CCCMM"])
    assert results.phases()[choose(results, None)].tolist() == [0, 2]


def test_a_healthy_cell_stands_for_its_phase(letters):
    results = letters(["CCCCC", "CCCCC", "CCCCC", "CCCXX"], diverged=[19])
    chosen = choose(results, None)
    assert results["status"][chosen].tolist() == [2, 2]


def test_named_cells(small):
    assert choose(small, [3, {"lr": 1e-5, "weight_decay": 0}, 3]) == [3, 0]
    with pytest.raises(UsageError, match="no cell 20"):
        choose(small, [20])
    with pytest.raises(UsageError, match="give 1 to 12"):
        choose(small, list(range(13)))


def test_nothing_to_choose_from(letters):
    with pytest.raises(UsageError, match="--cell=lr"):
        curves(letters(pending=range(20)))


def test_a_single_cell_needs_no_choice(make):
    grid = preset("addition-regression").grid(lr=1e-3, weight_decay=0.0)
    assert len(curves(make(grid, 10, 20)).axes) == 2


def test_curves_show_accuracy_loss_and_both_moments(small):
    figure = curves(small, [{"lr": 1e-5, "weight_decay": 6}])
    accuracy, loss = figure.axes
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss")
    assert accuracy.get_xscale() == "log"
    title = accuracy.get_title(loc="left")
    assert title.startswith("grokking")
    assert "T(train) 300, T(val) 20,000" in title
    train, val = accuracy.lines[:2]
    assert train.get_xdata()[-1] <= 20_000, "nothing after the cell stopped"
    assert np.isfinite(val.get_ydata()).all()
    for ax in (accuracy, loss):
        assert {300, 20_000} <= {line.get_xdata()[0] for line in ax.lines[2:]}


def test_curves_of_each_phase(small):
    assert len(curves(small).axes) == 8


def test_one_scale_is_labelled_at_the_left_only(small):
    for name in ("train_loss", "val_loss"):  # within a decade Matplotlib labels minor ticks, too
        small[name][:] = 0.01 * (1 + small[name])
    figure = curves(small)
    figure.draw_without_rendering()
    for k, ax in enumerate(figure.axes):
        labels = [*ax.get_yticklabels(), *ax.get_yticklabels(minor=True)]
        shown = any(label.get_visible() and label.get_text() for label in labels)
        assert shown == (k % 4 == 0), f"panel {k}"


def test_a_diverged_cell_says_when(letters):
    figure = curves(letters(diverged=[19]), [19])
    assert "diverged at 77" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    ("loss", "said"),
    [(np.nan, "no finite loss\nwas recorded"), (1e12, "beyond the axis:\n$10^{12}$ or more")],
)
def test_a_loss_panel_without_a_line_says_why(letters, loss, said):
    results = letters(diverged=[19])
    for name in ("train_loss", "val_loss"):
        results[name][19] = loss
    figure = curves(results, [0, 19])
    healthy, empty = figure.axes[1], figure.axes[3]
    assert [t.get_text() for t in empty.texts] == [said]
    assert not healthy.texts
    assert healthy.get_ylim()[1] < 10, "the diverged cell presses no other flat"


def test_losses_of_zero_are_drawn(small):
    for name in ("train_loss", "val_loss"):
        small[name][:] = 0.0
    _, loss = curves(small, [0]).axes
    assert loss.get_yscale() == "linear"
    assert not loss.texts


def test_the_rise_at_the_end_is_drawn(small):
    cell = small.find(lr=1e-5, weight_decay=6)  # T_val 20,000 is no recorded step
    for with_last in (False, True):
        if with_last:
            for name in ("train", "val"):
                last = np.full(len(small), 0.95)
                small.variables[f"final_{name}_acc"] = (("run",), last)
        train, val = curves(small, [cell]).axes[0].lines[:2]
        assert val.get_xdata()[-1] == 20_000
        assert val.get_ydata()[-1] == (0.95 if with_last else small.rule.threshold)
        assert (train.get_xdata()[-1] == 20_000) == with_last, "its last value is not known else"
    small["status"][cell] = DIVERGED
    assert curves(small, [cell]).axes[0].lines[0].get_xdata()[-1] < 20_000


@pytest.mark.parametrize(("steps", "labels"), [(15, 2), (3, 2), (100_000, 3)])
def test_the_axis_ends_where_training_did(make, steps, labels):
    grid = preset("addition-regression").grid(lr=[1e-3, 1e-2], weight_decay=0.0)
    results = make(grid, steps, steps)
    figure = curves(results, [0, 1])
    figure.draw_without_rendering()
    for ax in figure.axes:
        assert ax.get_xlim() == (1, pytest.approx(1.12 * steps))
        assert not any(t.get_text() for t in ax.get_xticklabels(minor=True))
    low, high = figure.axes[-1].get_xlim()
    ticks = figure.axes[-1].get_xticks()
    assert ((low <= ticks) & (ticks <= high)).sum() >= labels


def test_the_legend_has_the_styles_of_the_panels(letters):
    figure = curves(letters(diverged=[19]), [3, 9, 10, 19])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    shown = {
        text.get_text(): (line.get_linestyle(), line.get_color(), line.get_alpha())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    drawn = {
        (line.get_linestyle(), line.get_color(), line.get_alpha())
        for ax in figure.axes
        for line in ax.lines
    }
    assert list(shown) == ["training", "validation", "T(train)", "T(val)", "diverged"]
    assert set(shown.values()) <= drawn
    for line in legend.get_lines()[2:]:
        assert len(set(line.get_xdata())) == 1, "upright as in the panels"


def test_titles_are_wrapped_to_their_panels(make):
    grid = preset("addition-regression").grid(
        lr=[1.2345e-4, 1e-3], weight_decay=[0.0, 12.5], data_seed=[1, 2], model_seed=[3, 4]
    )
    figure = curves(make(grid, 81_234, 91_234), [0, 1, 2, 3])
    figure.draw_without_rendering()
    rows = {ax.get_title(loc="left").count("\n") for ax in figure.axes[:4]}
    assert len(rows) == 1, "all first lines have one height"
    for ax in figure.axes[:4]:
        (title,) = [
            t
            for t in ax.get_children()
            if getattr(t, "get_text", str)() == ax.get_title(loc="left")
        ]
        assert title.get_window_extent().x1 <= ax.get_window_extent().x1 + 0.1 * figure.dpi


def test_epochs_along_x(make):
    grid = preset("addition-regression").grid(
        lr=1e-3, weight_decay=0.0, batch_size=15, steps=30_000, model_seed=[1, 2]
    )  # 45 training samples: three steps an epoch
    results = make(grid, 300, 20_000)
    figure = curves(results, [0], x="epochs")
    accuracy, loss = figure.axes
    assert loss.get_xlabel() == "epochs"
    assert accuracy.get_xlim() == (1, pytest.approx(1.12 * 20_000 / 3)), "what was trained"
    assert "T(train) 100, T(val) 6,667 epochs" in accuracy.get_title(loc="left")
    np.testing.assert_allclose(accuracy.lines[0].get_xdata()[:5], results["step"][:5] / 3)
    assert {100, 20_000 / 3} <= {line.get_xdata()[0] for line in accuracy.lines[2:]}
    together = results.aggregate("model_seed")
    assert curves(together, x="epochs").axes[0].get_xlim() == (1, pytest.approx(11_200))


def test_an_epoch_of_the_full_batch_is_a_step(small):
    steps, epochs = (curves(small, [3], x=x).axes[0] for x in ("steps", "epochs"))
    np.testing.assert_array_equal(steps.lines[0].get_xdata(), epochs.lines[0].get_xdata())


def test_epochs_of_several_lengths_are_not_put_together(small):
    with pytest.raises(UsageError, match="replicates over lr may have epochs of several lengths"):
        curves(small.aggregate("lr"), [0], x="epochs")


def test_curves_that_were_not_kept(letters):
    with pytest.raises(UsageError, match=r"--set=record\.curve_points=200"):
        curves(letters(points=0))


def test_trajectories_have_two_panels_a_cell(small):
    figure = embedding_trajectories(small)
    *panels, bar = figure.axes
    assert len(panels) == 8
    assert bar.get_ylabel() == "token"
    early, whole = panels[:2]
    assert early.get_xlim() == (0, 2000)
    assert whole.get_xlim() == (0, 3990)
    tokens = [line for line in whole.lines if len(line.get_xdata()) > 2]
    assert len(tokens) == 10
    chosen = choose(small, None)[0]
    expected = small["embeddings"][chosen, :, 7, 0]
    np.testing.assert_array_equal(tokens[7].get_ydata(), expected)


@pytest.mark.parametrize("snapshots", [50, 210])
def test_a_run_that_is_hardly_longer_than_the_early_panel_has_one(letters, snapshots):
    whole, _ = embedding_trajectories(letters(snapshots=snapshots), [0]).axes
    assert whole.get_xlim() == (0, 10 * (snapshots - 1))


def test_all_trajectories_have_the_same_axes(letters):
    results = letters(snapshots=400)
    results["embeddings"][0] *= 5
    results["embeddings"][6, 250:] = np.nan  # stopped earlier
    *panels, _ = embedding_trajectories(results, [0, 6]).axes
    assert len({ax.get_ylim() for ax in panels}) == 1
    assert [ax.get_xlim()[1] for ax in panels] == [2000, 3990] * 2


def test_neighbouring_tokens_of_many_are_told_apart():
    colours = _colours(26)(np.arange(26))[:, :3]
    assert len({tuple(c) for c in colours.tolist()}) == 26
    grey = colours @ [0.299, 0.587, 0.114]
    assert np.abs(np.diff(grey)).min() > 0.2, "in grey, too"
    assert grey.max() < 0.65, "dark enough for a line on white"


def test_embeddings_that_were_not_recorded(letters):
    with pytest.raises(UsageError, match=r"grokfast run addition-regression --record=embeddings"):
        embedding_trajectories(letters())
    results = letters(snapshots=10)
    results["embeddings"][3] = np.nan
    with pytest.raises(UsageError, match="no embeddings yet"):
        embedding_trajectories(results, [3])


def test_several_components_are_projected_on_the_last_principal_axis(letters):
    rng = np.random.default_rng(0)
    direction = np.array([0.6, 0.0, -0.8])
    coordinate = np.linspace(-2, 2, 10)
    embeddings = rng.normal(size=(5, 10, 3))
    embeddings[3] = coordinate[:, None] * direction + 0.001 * rng.normal(size=(10, 3))
    embeddings[4] = np.nan  # not reached
    values = one_component(embeddings)
    np.testing.assert_allclose(values[3], coordinate, atol=0.01)  # rising, whatever the SVD's sign
    np.testing.assert_allclose(values[0], embeddings[0] @ direction, atol=0.01)
    assert np.isnan(values[4]).all()
    figure = embedding_trajectories(letters(snapshots=20, dim=3), [0])
    assert figure.axes[0].get_ylabel() == "first principal axis"
