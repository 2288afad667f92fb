"""What all figures share: size, the caller's axes, what is left out."""

import inspect
import io

import pytest
from matplotlib.figure import Figure

from grokfast import figures
from grokfast.errors import UsageError
from grokfast.figures.page import inches_of
from grokfast.presets import preset

CM = 1 / 2.54


@pytest.fixture
def seeds(make):
    grid = preset("addition-regression").grid(
        lr=[1e-4, 1e-3, 1e-2], weight_decay=[0.0, 5.0], model_seed=[0, 1]
    )
    return make(grid, 300, 2000)


@pytest.fixture
def sweep(make):
    return make(preset("addition-regression").grid(lr=[1e-4, 1e-3, 1e-2], weight_decay=0), 300, 900)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8.5x6cm", (8.5 * CM, 6 * CM)),
        ("3.3 x 2.4 in", (3.3, 2.4)),
        ("8.5CM", (8.5 * CM, None)),
        ((3, 2), (3.0, 2.0)),
    ],
)
def test_sizes(text, wanted):
    assert inches_of(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["8.5", "8.5x6", "x6cm", "1.2.3cm", "8,5cm", "infcm", (1, 2, 3)])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"no width and height; give 8\.5x6cm"):
        inches_of(text)
    with pytest.raises(UsageError, match="1 to 60 inches"):
        inches_of("900x10cm")


def fonts(figure):
    figure.draw_without_rendering()
    return figure.axes[0].xaxis.label.get_fontsize()


def test_letters_grow_with_the_figure_and_shrink_a_little(small):
    own = figures.phase_diagram(small)
    slide = figures.phase_diagram(small, size=tuple(2 * own.get_size_inches()))
    assert slide.get_size_inches() == pytest.approx(2 * own.get_size_inches())
    assert fonts(slide) == pytest.approx(2 * fonts(own))
    assert slide.axes[0].get_legend().get_texts()[0].get_fontsize() == pytest.approx(16)
    assert slide._supxlabel.get_fontsize() == pytest.approx(13)
    column = figures.phase_diagram(small, size="6cm")
    assert column.get_figwidth() == pytest.approx(6 * CM)
    assert fonts(column) == pytest.approx(0.75 * fonts(own))
    assert fonts(figures.phase_diagram(small)) == fonts(own), "only that figure"


@pytest.mark.parametrize(
    "kind", ["phases", "smooth", "convergence", "times", "lines", "curves", "embeddings"]
)
@pytest.mark.parametrize("size", ["8.5cm", "30x17cm"])
def test_nothing_leaves_the_paper_in_any_size(kind, size, small, tmp_path):
    from matplotlib.image import imread

    kwargs = {"cells": [0, 3]} if kind in ("curves", "embeddings") else {}
    figures.draw(small, kind, out=tmp_path / "a.png", size=size, dpi=100, **kwargs)
    image = imread(tmp_path / "a.png")[..., :3]
    assert image.shape[1] == int(inches_of(size)[0] * 100)
    edges = (image[0], image[-1], image[:, 0])
    assert all((edge == 1).all() for edge in edges), "a margin all around"


def test_a_figure_without_footnote_legend_or_title(small):
    own = figures.phase_diagram(small)
    bare = figures.phase_diagram(small, caption=False, legend=False, title="")
    assert bare.get_supxlabel() == ""
    assert bare.get_suptitle() == ""
    assert bare.axes[0].get_legend() is None
    assert (bare.get_size_inches() < own.get_size_inches()).all(), "nor room for them"
    curves = figures.curves(small, [0], legend=False)
    assert not curves.legends
    assert figures.curves(small, [0]).legends


def test_every_figure_takes_the_same_options():
    for name in set(figures.__all__) - {"FORMATS", "KINDS", "NEURON_KINDS", "REPLAYED_KINDS"}:
        if name != "draw":
            known = inspect.signature(getattr(figures, name)).parameters
            assert "caption, legend: ``False``" in getattr(figures, name).__doc__
            assert {"title", "size", "ax", "caption", "legend"} <= set(known), name


@pytest.mark.parametrize("kind", ["smooth_diagram", "outcome_lines", "grokking_times"])
def test_any_figure_of_one_panel_goes_into_given_axes(kind, sweep):
    figure = Figure(layout="constrained")
    ax, other = figure.subplots(1, 2)
    assert getattr(figures, kind)(sweep, ax=ax) is figure
    assert len(ax.lines) + len(ax.collections) > 0
    assert not other.has_data()
    assert ax.get_xlabel() == "decoder learning rate"
    assert ax.get_title() == ax.get_title(loc="left") == "", "none unless given"
    assert figure.get_supxlabel() == ""
    figure.savefig(io.BytesIO())


def test_the_legend_of_given_axes_is_theirs(sweep):
    ax = Figure().subplots()
    figures.grokking_times(sweep, ax=ax, title="T")
    assert ax.get_title() == "T"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["T(train)", "T(val)"]
    ax = Figure().subplots()
    figures.phase_diagram(sweep, ax=ax, legend=False)
    assert ax.get_legend() is None


def test_several_panels_do_not_go_into_one(seeds):
    ax = Figure().subplots()
    for draw in (figures.phase_diagram, figures.convergence_diagram, figures.curves):
        with pytest.raises(UsageError, match=r"ax takes a figure of one panel, .* has \d"):
            draw(seeds, ax=ax)
    assert figures.phase_diagram(seeds.where(model_seed=1), ax=ax) is ax.figure
    note = " ".join(figures.phase_diagram(seeds.where(model_seed=1)).get_supxlabel().split())
    assert "model seed 1" in note, "where the slice lies"
    with pytest.raises(UsageError, match="leave size out"):
        figures.phase_diagram(seeds.where(model_seed=1), ax=ax, size="8cm")


def test_a_title_of_ones_own_may_hold_mathtext(small):
    assert figures.phase_diagram(small, title=r"$\alpha$").get_suptitle() == r"$\alpha$"
    assert figures.phase_diagram(small, title="5 $").get_suptitle() == "5 $"
    with pytest.raises(UsageError, match="is no mathtext"):
        figures.phase_diagram(small, title=r"$\frac{$")


def test_too_small_and_too_large(small, tmp_path):
    with pytest.raises(UsageError, match=r"1\.0 x 1\.0 inches are too small"):
        figures.draw(small, "phases", out=tmp_path / "a.png", size=(1, 1))
    with pytest.raises(UsageError, match="too large for a png"):
        figures.draw(small, "phases", out=tmp_path / "a.png", size=(20, 20), dpi=2000)
    with pytest.raises(UsageError, match="svg has no dots"):
        figures.draw(small, "phases", out=tmp_path / "a.svg", dpi=100)
    assert not list(tmp_path.iterdir())


def test_what_is_drawn_where_nobody_says(seeds, sweep):
    from grokfast.figures.choice import usual_kind

    assert usual_kind(seeds) == "phases"
    assert usual_kind(sweep) == "times"
    assert usual_kind(seeds.where(weight_decay=0), over=["model_seed"]) == "times"
    assert usual_kind(seeds.where(lr=1e-3, weight_decay=0)) == "phases", "seeds are no quantity"
    assert usual_kind(seeds.where(lr=1e-3, weight_decay=0, model_seed=0)) == "curves"
