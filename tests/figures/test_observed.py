"""Observables of single cells against steps."""

import numpy as np
import pytest

from grokfast.analyses import neuron_ipr, solution
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures import observables
from grokfast.figures.observed import LINES
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.observables import OBSERVABLES, observable
from grokfast.tasks import Modular

PARAMETERS = [
    "embedding.weight",
    *(f"layers.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")),
]


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def measured(results, name, *shape, dims=()):
    """The results with a variable of made-up values ``[run, observed, *shape]``."""
    size = (len(results), len(results["observed"]), *shape)
    values = np.random.default_rng(3).uniform(0.2, 0.9, size).astype(np.float32)
    results.variables[name] = (("run", "observed", *dims), values)
    return values


def series(ax):
    """The lines that are no marks."""
    return [line for line in ax.lines if len(line.get_xdata()) > 2]


def test_each_parameter_is_a_line_below_the_curves(small):
    accuracy, loss, norms = observables(small, [3]).axes
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss")
    assert norms.get_ylabel().replace("\n", " ") == "Frobenius norm of a parameter tensor"
    assert norms.get_xscale() == "log"
    assert norms.get_xlim() == accuracy.get_xlim()
    lines = series(norms)
    assert [line.get_label() for line in lines] == PARAMETERS
    assert [text.get_text() for text in norms.get_legend().get_texts()] == PARAMETERS
    for k, line in enumerate(lines):  # neither step 0 nor the last one, which is unknown
        np.testing.assert_array_equal(line.get_xdata(), small["observed"][1:-1])
        np.testing.assert_array_equal(line.get_ydata(), small["norms"][3, 1:-1, k])


def test_all_cells_have_one_scale_and_one_legend(small):
    figure = observables(small, [0, 3])
    first, second = figure.axes[4:]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < 0 < first.get_ylim()[1]
    assert second.get_legend() is None


def test_without_curves_there_are_observables_alone(letters):
    figure = observables(letters(points=0, observed=9), [0])
    (ax,) = figure.axes
    assert "coexist" not in ax.get_title(loc="left")
    assert ax.get_title(loc="left").startswith("comprehension")
    assert not {"training", "validation"} & {t.get_text() for t in figure.legends[0].get_texts()}


def test_many_entries_are_their_median_and_quartiles(small):
    values = measured(small, "neuron_ipr", LINES + 1, dims=("neuron",))
    figure = observables(small, [2])
    ax = figure.axes[3]
    (line,) = series(ax)
    np.testing.assert_allclose(line.get_ydata(), np.median(values[2, 1:], axis=1), rtol=1e-6)
    (band,) = ax.collections
    low, high = np.percentile(values[2, 1:], (25, 75), axis=1)
    drawn = band.get_paths()[0].vertices[:, 1]
    assert drawn.min() == pytest.approx(low.min())
    assert drawn.max() == pytest.approx(high.max())
    assert "Bands: quartiles" in footnote(figure)
    few = measured(small, "neuron_ipr", LINES, dims=("neuron",))
    assert len(series(observables(small, [2]).axes[3])) == few.shape[2]


def test_an_observable_of_a_user(small, monkeypatch):
    monkeypatch.setattr(OBSERVABLES, "_entries", dict(OBSERVABLES))  # forgets it afterwards

    @observable("largest", label="largest weight", units="1/s")
    def largest(cells):
        raise AssertionError("drawing measures nothing")

    values = measured(small, "largest")
    unknown = measured(small, "the_$users$", 2, dims=("side",))
    figure = observables(small, [1])
    ax, foreign = figure.axes[3:]
    assert ax.get_ylabel() == "largest weight [1/s]"
    np.testing.assert_array_equal(series(ax)[0].get_ydata(), values[1, 1:])
    assert ax.get_legend() is None
    assert foreign.get_ylabel() == r"the \$users\$"
    assert [line.get_label() for line in series(foreign)] == ["side 0", "side 1"]
    np.testing.assert_array_equal(series(foreign)[1].get_ydata(), unknown[1, 1:, 1])


def test_more_values_than_parameters_are_numbered(small):
    measured(small, "norms", 9, dims=("parameter",))
    labels = [line.get_label() for line in series(observables(small, [0]).axes[2])]
    assert labels == [f"parameter {k}" for k in range(9)]


def test_an_explosion_is_drawn_on_a_log_scale(small):
    values = measured(small, "norms", 7, dims=("parameter",))
    values[0, 5] = 1e9
    assert observables(small, [0, 1]).axes[2].get_yscale() == "log"
    assert observables(small, [1]).axes[2].get_yscale() == "linear"
    values[0, 5] = np.inf
    assert observables(small, [0]).axes[2].get_yscale() == "linear"


def test_nothing_measured_yet(small):
    measured(small, "norms", 7, dims=("parameter",))[4] = np.nan
    measured(small, "neuron_ipr", 50, dims=("neuron",))[4] = np.nan
    assert series(observables(small, [4]).axes[2]) == []


@pytest.mark.parametrize("operation", ["addition", "multiplication", "a - b"])
def test_mean_ipr_has_that_of_the_analytic_solution(make, operation):
    p, width = 11, 40
    experiment = Experiment(
        task=Modular(p=p, operation=operation),
        model=Mlp(width=width, depth=2, one_hot=True, bias=False, activation="square"),
        loss="mse",
        steps=1000,
    )
    results = make(Grid(experiment=experiment, name="modular"), 60, 150, observed=9, points=0)
    del results.variables["norms"]
    measured(results, "ipr")
    figure = observables(results)
    (ax,) = figure.axes
    dashed = [
        line.get_ydata()[0]
        for line in ax.lines
        if line.get_linestyle() == "--" and list(line.get_xdata()) == [0, 1]
    ]
    if operation == "a - b":
        assert dashed == []
        assert "Dashed" not in footnote(figure)
        return
    wanted = neuron_ipr(solution(p, width, operation=operation)).mean()
    assert dashed == [pytest.approx(wanted)]
    assert (wanted == pytest.approx(1)) == (operation == "addition")
    assert ax.get_ylim()[1] > 1
    assert "Dashed: mean IPR of the analytic solution." in footnote(figure)


def test_a_run_without_observables(letters):
    with pytest.raises(UsageError, match=r"grokfast run addition-regression .*--record=norms"):
        observables(letters(snapshots=10))
