"""Outcomes of cells against an axis, a line for each value of another."""

import numpy as np
import pytest

from grokfast import figures
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures import outcome_lines
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.tasks import Modular

FRACTION, SEEDS, STEPS = (0.8, 0.2, 0.5), (0, 1, 2), 1000
OPERATIONS = tuple(f"a + {k}*b" for k in range(8))
NEVER = -1


@pytest.fixture
def made(make):
    """``made(axes, t_val, best, ...)``: cells over further axes, the fraction and a seed."""

    def build(axes, t_val=50, best=None, crossings=None, **options):
        experiment = Experiment(
            task=Modular(p=11),
            model=Mlp(embedding_dim=8),
            steps=STEPS,
            stop="never",
        )
        if crossings is not None:
            experiment = experiment.replace(**{"evaluation.thresholds": (0.99,)})
        axes = {**axes, "task.fraction": FRACTION, "model.seed": SEEDS}
        results = make(Grid(experiment=experiment, axes=axes, name="power"), 10, t_val, **options)
        results.variables["steps_done"] = (("run",), np.full(len(results), STEPS))
        best = np.linspace(0, 1, len(results)) if best is None else np.asarray(best, float)
        results.variables["best_val_acc"] = (("run",), best.astype(np.float32))
        if crossings is not None:
            results.variables["threshold"] = (("threshold",), np.array([0.99]))
            for part in ("train", "val"):
                values = np.asarray(crossings, np.int64)[:, None]
                results.variables[f"{part}_crossings"] = (("run", "threshold"), values)
        return results

    return build


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def drawn(ax):
    return [line for line in ax.lines if len(line.get_xdata()) == len(FRACTION)]


def test_best_accuracy_against_the_fraction_with_a_line_for_each_name(made):
    together = made({"task.operation": OPERATIONS}).aggregate("model_seed")
    figure = outcome_lines(together)
    (ax,) = figure.axes
    assert ax.get_ylabel() == "highest validation accuracy"
    assert ax.get_xlabel() == r"training fraction $\alpha$"
    assert ax.get_ylim() == (-0.03, 1.03)
    order = np.argsort(FRACTION)
    means = together["best_val_acc"].reshape(len(OPERATIONS), len(FRACTION))[:, order]
    assert len(drawn(ax)) == len(OPERATIONS)
    for line, values in zip(drawn(ax), means, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), sorted(FRACTION))
        np.testing.assert_array_equal(line.get_ydata(), values)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(OPERATIONS)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn(ax)}
    assert len(looks) == len(OPERATIONS), "no two lines look the same"
    assert len(ax.collections) == 0, "bands of eight lines would hide each other"
    assert "Means over 3 model seeds. " in footnote(figure)


def test_few_lines_have_bands(made):
    together = made({"optimizer.weight_decay": (0.0, 1.0)}).aggregate("model_seed")
    figure = outcome_lines(together)
    ax, bar = figure.axes
    assert bar.get_ylabel() == "weight decay"
    assert len(ax.collections) == 2
    low = together["best_val_acc"][1] - together["best_val_acc_std"][1]
    assert ax.collections[0].get_paths()[0].vertices[1, 1] == pytest.approx(low)
    assert "bands: one standard deviation" in footnote(figure)


def test_steps_to_a_threshold_are_medians_and_never_later_than_the_budget(made):
    crossings = [100, 300, 900, 50, NEVER, NEVER, 60, 80, NEVER]
    results = made({}, crossings=crossings)
    figure = outcome_lines(results.aggregate("model_seed"), outcome="t_val_0.99")
    (ax,) = figure.axes
    assert ax.get_ylabel() == "steps to validation accuracy 0.99"
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(drawn(ax)[0].get_ydata(), [np.nan, 80, 300])
    bars = [bars[0] for bars in ax.containers]
    assert [(b.get_xdata().tolist(), b.get_ydata().tolist()) for b in bars] == [([0.2], [STEPS])]
    assert max(path.vertices[:, 1].max() for path in ax.collections[0].get_paths()) <= STEPS
    assert "Medians over 3 model seeds; bands: 25% to 75%." in footnote(figure)
    assert "Open, with an arrow: not reached" in footnote(figure)
    early = outcome_lines(results.aggregate("model_seed", budget=100), outcome="t_val_0.99")
    np.testing.assert_array_equal(drawn(early.axes[0])[0].get_ydata(), [np.nan, 80, np.nan])


def test_single_cells_and_further_axes_are_panels(made):
    axes = {"model.activation": ("relu", "tanh"), "optimizer.weight_decay": (0.0, 1.0)}
    figure = outcome_lines(made(axes), outcome="t_val", x="task.fraction", y="weight_decay")
    titles = [ax.get_title(loc="left") for ax in figure.axes[:-1]]
    assert titles == [f"{name}, model seed {k}" for name in ("relu", "tanh") for k in SEEDS]
    assert all(len(drawn(ax)) == 2 for ax in figure.axes[:-1])


def test_what_is_no_outcome_is_said(made, tmp_path):
    results = made({"task.operation": OPERATIONS})
    for outcome, says in (
        ("best_val_ac", "unknown outcome 'best_val_ac'; there are best_val_acc, t_train, t_val"),
        ("lr", "unknown outcome"),
    ):
        with pytest.raises(UsageError, match=says):
            outcome_lines(results, outcome=outcome)
    with pytest.raises(UsageError, match="known of the end alone, not as of 20 steps"):
        outcome_lines(results, budget=20)
    with pytest.raises(UsageError, match="phases has no outcome; outcome belongs to --kind=lines"):
        figures.draw(results, "phases", outcome="t_val", out=tmp_path / "a.png")
    figures.draw(results, "lines", over=["model_seed"], outcome="t_val", out=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
