"""Figures of replicates put together."""

import numpy as np
import pytest

from grokfast import figures
from grokfast.errors import UsageError
from grokfast.figures import convergence_diagram, curves, phase_diagram, smooth_diagram
from grokfast.figures.style import palette
from grokfast.phases import PHASES
from grokfast.presets import preset

NEVER = -1


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


@pytest.fixture
def replicated(make):
    """2 learning rates x 2 decays x 4 seeds: unanimous, 3 to 1, 2 to 2 (tie), never."""
    grid = preset("addition-regression").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0], model_seed=[1, 2, 3, 4]
    )
    t_val = [
        *(200, 300, 400, 500),  # lr 1e-4, decay 0: comprehension
        *(5000, 6000, 7000, NEVER),  # decay 5: grokking, once memorization
        *(NEVER, NEVER, 9000, 9000),  # lr 1e-3, decay 0: memorization, grokking
        *(NEVER,) * 4,  # decay 5: memorization
    ]
    return make(grid, 100, t_val, observed=9)


def squares(ax):
    """Left, bottom, right and top of the partly coloured cells."""
    (collection,) = [c for c in ax.collections if type(c).__name__ == "PatchCollection"]
    return [path.get_extents().extents.tolist() for path in collection.get_paths()]


def test_the_area_of_a_cell_is_its_share_of_the_votes(replicated):
    figure = phase_diagram(replicated.aggregate("model_seed"))
    (ax,) = figure.axes
    shown = ax.collections[0].get_array()
    assert np.ma.getmaskarray(shown).tolist() == [[False, True], [True, False]]
    wanted = [(1, 0, 0.5), (0, 1, 0.75)]  # x, y and share of lr 1e-3, decay 0; of lr 1e-4, decay 5
    for (left, bottom, right, top), (x, y, share) in zip(squares(ax), wanted, strict=True):
        assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx((x, y))
        assert (right - left) * (top - bottom) == pytest.approx(share)
    letters = {line.get_label()[1:]: len(line.get_xdata()) for line in ax.lines}
    assert letters == {"C": 1, "G": 2, "M": 1, "X": 0}  # of equal votes the first in the legend
    assert "Phase of most of 4 model seeds" in footnote(figure)
    assert "model seed 102" not in footnote(figure)


def test_single_cells_are_drawn_in_full(replicated):
    assert all(squares(ax) == [] for ax in phase_diagram(replicated).axes)


def test_convergence_shows_medians_and_never_for_those_beyond_the_budget(replicated):
    figure = convergence_diagram(replicated.aggregate("model_seed"))
    train, val = (np.ma.masked_invalid(ax.collections[0].get_array()) for ax in figure.axes[:2])
    assert (train == 100).all()
    assert val[:, 0].tolist() == [350, 6500]
    assert np.ma.getmaskarray(val)[:, 1].all()  # the median of two of four is beyond the budget
    assert "Medians over 4 model seeds." in footnote(figure)
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["never reached"]


def test_smooth_shows_median_delays(replicated):
    panel = smooth_diagram(replicated.aggregate("model_seed")).axes[0]
    delay, slow = (np.ma.masked_invalid(c.get_array()) for c in panel.collections[:2])
    assert delay[:, 0].tolist() == [250, 6400]
    assert slow[:, 1].tolist() == [100, 100]


def test_curves_have_bands_and_say_the_votes(replicated):
    figure = curves(replicated.aggregate("model_seed"), [{"lr": 1e-4, "weight_decay": 5}])
    accuracy = figure.axes[0]
    title = accuracy.get_title(loc="left")
    assert title.startswith("grokking (3 of 4)")
    assert "T(train) 100, T(val) 6,500" in title
    assert len([c for c in accuracy.collections if type(c).__name__ == "FillBetweenPolyCollection"
                or type(c).__name__ == "PolyCollection"]) == 2  # fmt: skip
    never = curves(replicated.aggregate("model_seed"), [{"lr": 1e-3, "weight_decay": 5}])
    assert "T(val) >\N{NO-BREAK SPACE}100,000" in never.axes[0].get_title(loc="left")


def bands(ax):
    return [c for c in ax.collections if type(c).__name__.endswith("PolyCollection")]


def test_observables_have_their_mean_and_a_band_for_each_entry(replicated):
    values = replicated["norms"].astype(float)[:4, 1:-1]  # of the first cell; step 0 is not drawn
    replicated.variables["neuron_ipr"] = (("run", "observed", "neuron"), replicated["norms"])
    together = replicated.aggregate("model_seed")
    assert "neuron_ipr" not in together, "neurons of two networks do not correspond"
    figure = figures.observables(together, [0])
    (norms,) = figure.axes[2:]
    lines = [line for line in norms.lines if len(line.get_xdata()) > 2]
    assert len(lines) == len(bands(norms)) == 7
    for k, (line, band) in enumerate(zip(lines, bands(norms), strict=True)):
        mean, spread = values[:, :, k].mean(axis=0), values[:, :, k].std(axis=0, ddof=1)
        np.testing.assert_allclose(line.get_ydata(), mean)
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx((mean + spread).max())
    assert "Means over 4 model seeds; bands: one standard deviation" in footnote(figure)
    figure = figures.observables(together, [0], band="none")
    assert not bands(figure.axes[0]) + bands(figure.axes[2])
    assert "Means over 4 model seeds; medians of T." in footnote(figure)


def test_observables_as_of_a_budget_end_there(replicated):
    together = replicated.aggregate("model_seed", budget=5000)
    assert together["observed"][-1] <= 5000 < replicated["observed"][-1]
    assert together["norms"].shape[1] == len(together["observed"])


def test_replicates_without_an_observable_that_has_a_mean(replicated):
    values = replicated.variables.pop("norms")[1]
    replicated.variables["neuron_norms"] = (("run", "observed", "neuron"), values)
    assert figures.observables(replicated, [0]).axes
    with pytest.raises(UsageError, match="no observable that could be averaged"):
        figures.observables(replicated.aggregate("model_seed"), [0])


def test_every_cell_and_five_side_by_side(make, tmp_path):
    grid = preset("addition-regression").grid(
        lr=1e-3, weight_decay=[0.0, 1.0, 2.0, 3.0, 4.0], model_seed=[1, 2]
    )
    together = make(grid, 100, 300).aggregate("model_seed")
    figure = curves(together, range(5))
    assert len(figure.axes) == 10
    assert len({ax.get_subplotspec().rowspan.start for ax in figure.axes}) == 2, "one row of cells"
    out = tmp_path / "a.png"
    assert figures.draw(make(grid, 100, 300), "curves", cells="all", over=["model_seed"], out=out)
    many = preset("addition-regression").grid(lr=1e-3, weight_decay=0.0, model_seed=range(16))
    with pytest.raises(UsageError, match="16 cells; give 1 to 12"):
        figures.draw(make(many, 100, 300), "curves", cells="all", out=out)


def test_one_cell_of_each_majority_by_default(replicated):
    assert len(curves(replicated.aggregate("model_seed")).axes) == 2 * 3


def test_missing_replicates_are_counted(make):
    grid = preset("addition-regression").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0], model_seed=[1, 2]
    )
    a = make(grid, 10, 20, runs=[0, 1, 2]).aggregate("model_seed")
    figure = phase_diagram(a)
    assert "5 of 8 replicates are not finished." in footnote(figure)
    (ax,) = figure.axes
    assert "......" in {c.get_hatch() for c in ax.collections}


def test_drawing_over_an_axis(replicated, tmp_path):
    for kind in ("phases", "smooth", "convergence", "times", "curves", "observables"):
        out = tmp_path / f"{kind}.png"
        assert figures.draw(replicated, kind, over=["model_seed"], out=out) == [out]
    out = tmp_path / "b.png"
    figures.draw(replicated, "phases", over=["model_seed"], budget=5500, out=out)
    with pytest.raises(UsageError, match="did you mean model_seed"):
        figures.draw(replicated, "phases", over=["model_sed"], out=out)
    for kind in ("embeddings", *figures.REPLAYED_KINDS, *figures.NEURON_KINDS):
        with pytest.raises(UsageError, match=f"{kind} shows single cells"):
            figures.draw(replicated, kind, over=["model_seed"], out=out)


def test_as_of_a_budget_the_caption_says_so(replicated):
    figure = phase_diagram(replicated.aggregate("model_seed", budget=5500))
    assert "As of 5,500 of 100,000 steps" in footnote(figure)
    shown = figure.axes[0].collections[0].get_array()
    assert shown[1, 1] == PHASES.index("memorization")


def test_colours_of_one_rule_are_distinct():
    assert palette(PHASES) == ("#A0D8F6", "#E8930C", "#08306B", "#707070")
    mixed = palette(("mine", "confusion", "yours"))
    assert mixed[1] == "#707070"
    assert len(set(mixed)) == 3
    assert len(palette([f"phase {k}" for k in range(20)])) == 20
