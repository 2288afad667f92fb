"""Figures of the neurons of modular nets."""

import dataclasses

import numpy as np
import pytest

from grokfast import figures
from grokfast.analyses import solution
from grokfast.bucketing import initial_model
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.grid import Grid
from grokfast.models import Mlp
from grokfast.tasks import Modular
from grokfast.tasks.base import stand_in

P, WIDTH = 11, 60


@pytest.fixture
def modular(make):
    """``modular(operation)``: a cell that has learned, and one that is noise, with a BatchNorm
    that does nothing."""

    def build(operation="addition", **task):
        experiment = Experiment(
            task=Modular(p=P, operation=operation, **task),
            model=Mlp(width=WIDTH, depth=2, one_hot=True, bias=False, activation="square"),
            loss="mse",
            steps=1000,
        )
        grid = Grid(
            experiment=experiment, axes={"optimizer.weight_decay": (0.0, 5.0)}, name="modular"
        )
        results = make(grid, [60, 40], [150, -1])
        wave = solution(P, WIDTH, operation=operation).weights()
        rng = np.random.default_rng(0)
        weights = {k: np.stack((w, rng.normal(size=w.shape))) for k, w in wave.items()}
        ones, zeros = np.ones((2, WIDTH)), np.zeros((2, WIDTH))
        norm = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - 1e-5}
        results.weights = [
            {"run": np.arange(2), **weights} | {f"norms.0.{k}": v for k, v in norm.items()}
        ]
        results.variables["final_val_acc"] = (("run",), np.array([1.0, np.nan], np.float32))
        return results

    return build


@pytest.mark.parametrize("operation", ["addition", "multiplication"])
@pytest.mark.parametrize("kind", figures.NEURON_KINDS)
def test_every_kind_of_neurons(modular, kind, operation, tmp_path):
    out = tmp_path / "a.png"
    figures.draw(modular(operation, corruption=0.3), kind, out=out)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", [k for k in figures.NEURON_KINDS if k != "widths"])
def test_a_run_without_weights(modular, kind, tmp_path):
    results = modular()
    results.weights = []
    with pytest.raises(UsageError, match="kept no weights"):
        figures.draw(results, kind, out=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", figures.NEURON_KINDS)
def test_a_run_of_another_task(letters, kind, tmp_path):
    wanted = (
        "p and operation of the task modular" if kind == "widths" else "nets on the task modular"
    )
    with pytest.raises(UsageError, match=wanted):
        figures.draw(letters(), kind, out=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def heights(ax):
    (stairs,) = ax.patches
    return stairs.get_data().values


def test_ipr_histograms_count_the_neurons_of_each_cell(modular):
    learned, noise = figures.ipr_histograms(modular()).axes
    assert "weight decay 0" in learned.get_title(loc="left")
    assert "mean IPR 1.000" in learned.get_title(loc="left")
    assert heights(learned)[-1] == heights(noise).sum() == WIDTH
    assert heights(noise)[-1] == 0
    assert learned.get_ylim() == noise.get_ylim()


def test_multiplication_is_shown_over_discrete_logarithms(modular):
    figure = figures.ipr_histograms(modular("multiplication"), [0])
    assert heights(figure.axes[0])[-1] == WIDTH - 1, "all but the neuron of the symbol 0"
    assert "over discrete logarithms" in figure.get_supxlabel().replace("\n", " ")
    figure = figures.ipr_histograms(modular(), [0])
    assert "logarithms" not in figure.get_supxlabel()


def test_cells_whose_weights_are_zero_are_said_to_be(modular):
    results = modular()
    results.weights[0]["embedding.weight"][1] = 0
    results.weights[0]["layers.0.weight"][1] = 0
    for kind in (figures.ipr_histograms, figures.gamma_scatter):
        assert "all weights are zero" in kind(results).axes[1].get_title(loc="left")
    assert "0% within" in figures.phase_histograms(results).axes[1].get_title(loc="left")
    for kind in (figures.preactivation_maps, figures.pruning_curves):
        assert kind(results, [1]).axes


def test_gamma_has_a_dot_a_neuron(modular):
    results = modular()
    gamma = np.random.default_rng(1).normal(size=(2, WIDTH))
    results.weights[0]["norms.0.weight"] = gamma
    for k, ax in enumerate(figures.gamma_scatter(results).axes):
        dots = np.asarray(ax.collections[0].get_offsets())
        np.testing.assert_allclose(dots[:, 1], np.abs(gamma[k]))


def test_gamma_of_a_net_without_a_norm(modular):
    results = modular()
    results.weights = [{k: v for k, v in results.weights[0].items() if not k.startswith("norms.")}]
    with pytest.raises(UsageError, match="no norm, so no gamma"):
        figures.gamma_scatter(results)


def test_phase_sums_of_the_solution_are_zero(modular):
    learned, noise = figures.phase_histograms(modular()).axes
    middle = heights(learned)[19:21].sum()
    assert middle == heights(learned).sum() == WIDTH - len(range(0, WIDTH, P))
    assert heights(noise)[19:21].sum() < WIDTH / 4


def test_pruning_has_both_orders_a_cell_and_the_parts_that_there_are(modular):
    figure = figures.pruning_curves(modular(corruption=0.3))
    assert len(figure.axes) == 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training", "validation", "corrupted", "uncorrupted", "random orders"]
    for ax in figure.axes:
        assert len(ax.lines) == len(ax.collections) == 4
        for line in ax.lines:
            assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 1)
            # Without a neuron the first answer remains, right in about one of p.
            assert line.get_ydata()[-1] < 0.3
    figure = figures.pruning_curves(modular(), [0])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training", "validation", "uncorrupted", "random orders"]


def test_maps_of_the_named_neuron_and_output(modular):
    results = modular()
    figure = figures.preactivation_maps(results, [0], neuron=3, output=6)
    hidden, _, written, _ = figure.axes
    assert "hidden neuron 3" in hidden.get_title(loc="left")
    wave = solution(P, WIDTH)
    shown = hidden.images[0].get_array()  # n upwards, m to the right
    np.testing.assert_allclose(shown, (wave.u[3][:, None] + wave.v[3][None, :]).T)
    n, m = np.unravel_index(int(written.images[0].get_array().argmax()), (P, P))
    assert (m + n) % P == 6
    with pytest.raises(UsageError, match="no neuron 60; there are 60"):
        figures.preactivation_maps(results, [0], neuron=60)


def test_rows_before_and_after_training(modular):
    results = modular()
    figure = figures.neuron_rows(results, [0, 1], neuron=3)
    row, spectrum, other, _ = figure.axes
    assert "hidden neuron 3" in row.get_title(loc="left")
    before, after = row.lines
    net = initial_model(results.grid.cells[0].model, results.grid.cells[0].task.build()).module
    np.testing.assert_allclose(before.get_ydata(), net.embedding.weight[:P, 3].detach())
    np.testing.assert_allclose(after.get_ydata(), solution(P, WIDTH).u[3])
    for line, own in zip(spectrum.lines, row.lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.abs(np.fft.rfft(own.get_ydata())))
    assert row.get_ylim() == other.get_ylim(), "one scale of amplitudes"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["before training", "after training"]
    with pytest.raises(UsageError, match="no neuron 60; there are 60"):
        figures.neuron_rows(results, [0], neuron=60)


def test_rows_are_of_the_neuron_with_the_highest_ipr(modular):
    results = modular()
    results.weights[0]["embedding.weight"][1, :P, 7] = np.cos(2 * np.pi * np.arange(P) / P)
    results.weights[0]["embedding.weight"][1, P:, 7] = np.cos(4 * np.pi * np.arange(P) / P)
    row = figures.neuron_rows(results, [1]).axes[0]
    assert "hidden neuron 7" in row.get_title(loc="left")


def test_rows_of_multiplication_are_waves_over_discrete_logarithms(modular):
    figure = figures.neuron_rows(modular("multiplication"), [0], neuron=2)
    row, spectrum = figure.axes
    assert row.get_xlabel() == "discrete logarithm of m"
    power = spectrum.lines[1].get_ydata() ** 2
    assert power[2] / power.sum() == pytest.approx(1)


def test_width_curves_show_the_trained_cells_that_have_an_accuracy(modular):
    (ax,) = figures.width_accuracy(modular()).axes
    analytic, trained, _ = ax.lines
    assert analytic.get_ydata()[-1] == 1
    assert (trained.get_xdata().tolist(), trained.get_ydata().tolist()) == ([WIDTH], [1.0])


def with_task(results, task):
    experiment = dataclasses.replace(results.grid.experiment, task=task)
    results.grid = Grid(experiment=experiment, axes=results.grid.axes, name=results.grid.name)
    return results


def test_width_curves_want_one_operation_that_has_a_solution(modular):
    with pytest.raises(UsageError, match="no analytic solution of 'a - b'"):
        figures.width_accuracy(with_task(modular(), Modular(p=P, operation="a - b")))
    results = modular()
    results.grid = Grid(experiment=results.grid.experiment, axes={"task.p": (5, 7)}, name="modular")
    with pytest.raises(UsageError, match=r"these are of addition mod 5, addition mod 7"):
        figures.width_accuracy(results)


def test_pruning_wants_the_data_of_its_task(modular):
    results = with_task(modular(), stand_in("foreign", {"seed": 0}))
    with pytest.raises(UsageError, match="on the task modular; this cell's is foreign"):
        figures.pruning_curves(results, [0])
