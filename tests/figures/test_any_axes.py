"""Diagrams over other axes than learning rate and weight decay, and by other rules."""

import numpy as np
import pytest

from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures import convergence_diagram, curves, phase_diagram, smooth_diagram
from grokfast.figures.facets import arrange
from grokfast.figures.style import palette
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.phases import InversionRule, rule_from_dict
from grokfast.tasks.base import stand_in

INVERSION = InversionRule()
ALPHA, XI = (0.3, 0.5, 0.7, 0.9), (0.1, 0.35, 0.6, 0.9)


def experiment(phase=INVERSION):
    task = {"p": 97, "fraction": 0.5, "corruption": 0.35, "batch": "full", "seed": 420}
    return Experiment(
        task=stand_in("pairs", task), model=Mlp(activation="square"), steps=2000, phase=phase
    )


@pytest.fixture
def inverted(make):
    """``inverted(axes)``: fraction decides validation, weight decay training."""

    def build(axes, phase=INVERSION):
        grid = Grid(experiment=experiment(phase), axes=axes, name="modular-corruption")
        val = np.array([1.0 if c.task.fraction > 0.4 else 0.1 for c in grid.cells])
        inversion = np.array([min(c.optimizer.weight_decay / 10, 1) for c in grid.cells])
        train = 1 - inversion * [c.task.corruption for c in grid.cells]
        results = make(grid, 60, np.where(val > 0.9, 400, -1))
        accuracies = {"final_train_acc": train, "final_val_acc": val, "best_val_acc": val}
        results.variables |= {n: (("run",), v.astype(np.float32)) for n, v in accuracies.items()}
        return results

    return build


def three(batch=None):
    third = {"task.batch": batch} if batch else {"optimizer.weight_decay": (0.0, 5.0, 10.0)}
    return third | {"task.fraction": ALPHA, "task.corruption": XI}


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def test_the_two_longest_axes_lie_along_x_and_y(inverted):
    figure = phase_diagram(inverted(three()))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "weight decay 0",
        "weight decay 5",
        "weight decay 10",
    ]
    first = figure.axes[0]
    assert first.get_xlabel() == r"training fraction $\alpha$"
    assert first.get_ylabel() == r"share of corrupted labels $\xi$"
    bottom, top = first.transData.transform([(0, 0), (0, 3)])[:, 1]
    assert bottom < top, "small corruption at the bottom"


def test_each_phase_of_the_rule_is_drawn_and_explained(inverted):
    figure = phase_diagram(inverted(three()))
    # rows are xi, columns alpha; weight decay 10 takes all corrupted labels from the training
    # accuracy, which is 1 - xi; xi = 0.1 counts as coexistence, tested first
    code = {name: k for k, name in enumerate(INVERSION.phases)}
    memorized, coexist, full = code["memorization"], code["coexistence"], code["full inversion"]
    shown = figure.axes[2].collections[0].get_array()
    assert shown[0].tolist() == [memorized, coexist, coexist, coexist]
    assert shown[1].tolist() == [code["confusion"], full, full, full]
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert [t.get_text() for t in legends[0].get_texts()] == list(INVERSION.phases)
    note = footnote(figure)
    assert "the first that holds: coexistence" in note
    assert "training < 1.05 \N{MINUS SIGN} ξ" in note


def test_an_axis_of_text_makes_panels_or_lies_along_a_side(inverted):
    results = inverted(three(("8", "64", "full")))
    titles = [ax.get_title(loc="left") for ax in phase_diagram(results).axes]
    assert titles == ["batch 8", "batch 64", "batch full"]
    assert results.find(**{"task.batch": 64.0, "task.fraction": 0.5, "task.corruption": 0.6}) == 22
    figure = phase_diagram(results, x="task.batch", y="task.corruption")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["8", "64", "full"]
    figure = phase_diagram(results, y="task.batch")
    top = figure.axes[0].transData.transform([(0, 0), (0, 2)])[:, 1]
    assert top[0] > top[1], "names read from top to bottom"
    chosen = curves(results, [{"task.batch": "full", "task.fraction": 0.5, "task.corruption": 0.1}])
    assert "batch full" in chosen.axes[0].get_title(loc="left")


def test_a_named_setting_is_an_axis_and_what_it_stands_for_is_not_fixed(make):
    batch = {
        "8": {"batch_size": 8, "optimizer.lr": 0.002, "steps": 64_000},
        "full": {"batch_size": 0, "optimizer.lr": 0.01, "steps": 2000},
    }
    grid = Grid(
        experiment=experiment(),
        axes={"batch": ("8", "full"), "task.fraction": ALPHA, "task.corruption": XI},
        settings={"batch": batch},
    )
    half = np.full(grid.size, 0.5, np.float32)
    results = make(grid, 60, 400)
    accuracies = ("final_train_acc", "final_val_acc", "best_val_acc")
    results.variables |= dict.fromkeys(accuracies, (("run",), half))
    figure = phase_diagram(results)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["batch 8", "batch full"]
    assert "2,000 to 64,000 steps; weight decay 0, data seed 420" in footnote(figure)
    together = phase_diagram(results.aggregate("batch"))
    assert "Phase of most of 2 values of batch" in footnote(together)
    assert "learning rate" not in footnote(together)


def test_axes_can_be_chosen(inverted):
    results = inverted(three())
    facets = arrange(results, x="weight_decay", y="task.fraction")
    assert (facets.x.name, facets.y.name, facets.panels) == ("weight_decay", "task.fraction", 4)
    assert arrange(results, y="optimizer.weight_decay").downward
    with pytest.raises(UsageError, match=r"x='width' is no axis .* there are weight_decay, task"):
        arrange(results, x="width")
    with pytest.raises(UsageError, match="cannot be both"):
        arrange(results, x="weight_decay", y="weight_decay")


def test_axes_that_were_put_together_are_named(inverted):
    figure = phase_diagram(inverted(three()).aggregate("task.corruption"))
    assert r"Phase of most of 4 values of $\xi$, of equal votes" in footnote(figure)


def test_fraction_lies_along_x_whatever_the_order(inverted):
    axes = {"task.corruption": XI, "task.fraction": ALPHA}
    assert arrange(inverted(axes)).x.name == "task.fraction"


def test_steps_are_drawn_by_any_rule(inverted):
    results = inverted(three())
    assert len(convergence_diagram(results).axes) == 6 + 1
    panel = smooth_diagram(results).axes[0]
    delay, slow = (np.ma.masked_invalid(c.get_array()) for c in panel.collections[:2])
    assert delay[0].tolist() == [None, 340, 340, 340]
    assert slow[0].tolist() == [60, None, None, None]


def test_final_accuracies_are_not_read_as_of_an_earlier_budget(inverted):
    with pytest.raises(UsageError, match="none as of 500 of 2000 steps"):
        phase_diagram(inverted(three()), budget=500)


def test_phases_of_an_unknown_rule_are_hatched(inverted):
    rule = rule_from_dict({"name": "somebody's", "threshold": 0.9})
    results = inverted(three(), rule)
    figure = phase_diagram(results)
    legend = next(ax.get_legend() for ax in figure.axes if ax.get_legend())
    assert [t.get_text() for t in legend.get_texts()] == ["phase not known"]
    assert "The phase of 48 cells is not known." in footnote(figure)
    assert palette(results.rule.phases) == ()


def test_a_long_caption_does_not_take_the_room_of_the_panels(inverted):
    axes = {"optimizer.weight_decay": (0.0, 5.0), "task.fraction": ALPHA}
    figure = phase_diagram(inverted(axes))
    assert footnote(figure)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    label = ax.yaxis.label.get_window_extent()
    panel = ax.get_window_extent()
    assert label.height <= panel.height + 1, "the label is not longer than its axis"
