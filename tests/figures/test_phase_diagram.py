"""The discrete diagram: colours, letters, legend, axes, panels, marks."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from grokfast.errors import UsageError
from grokfast.figures import phase_diagram
from grokfast.figures.style import palette
from grokfast.phases import PHASES
from grokfast.presets import preset

PALETTE = palette(PHASES)


def colours(ax):
    """Hex colour of each cell, row by row from the top; None where masked."""
    mesh = ax.collections[0]
    mesh.update_scalarmappable()
    masked = np.ma.getmaskarray(mesh.get_array()).ravel()
    faces = mesh.get_facecolor()
    return [None if m else to_hex(c).upper() for c, m in zip(faces, masked, strict=True)]


def legend_texts(figure):
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert len(legends) == 1
    return [t.get_text() for t in legends[0].get_texts()]


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def tick_labels(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def lettered(ax):
    """Letter -> cells (x, y) that carry it."""
    return {
        line.get_label()[1:]: set(zip(*line.get_data(), strict=True))
        for line in ax.lines
        if line.get_label()[1:] in "CGMX"
    }


def test_each_cell_has_the_colour_and_the_letter_of_its_phase(small):
    (ax,) = phase_diagram(small).axes
    rows = ["CCCMM", "CGGMM", "GGGMX", "GGMXX"]
    assert colours(ax) == [PALETTE["CGMX".index(c)] for c in "".join(rows)]
    for letter, cells in lettered(ax).items():
        wanted = {(x, y) for y, row in enumerate(rows) for x, c in enumerate(row) if c == letter}
        assert cells == wanted


def test_axes_are_those_of_the_publication(small):
    (ax,) = phase_diagram(small).axes
    assert ax.get_xlabel() == "decoder learning rate"
    assert ax.get_ylabel() == "decoder weight decay"
    assert tick_labels(ax.yaxis) == ["0", "3", "6", "10"]
    top, bottom = ax.transData.transform([(0, 0), (0, 3)])[:, 1]
    assert top > bottom, "decay 0 is at the top"


def test_the_legend_has_all_four_phases_in_order_even_if_absent(letters):
    figure = phase_diagram(letters(["MMMMM"] * 4))
    assert legend_texts(figure) == list(PHASES)
    patches = figure.axes[0].get_legend().get_patches()
    assert [to_hex(p.get_facecolor()).upper() for p in patches] == list(PALETTE)


def test_diverged_and_unfinished_cells_are_hatched(letters):
    figure = phase_diagram(letters(diverged=[19], pending=[0, 1]))
    assert legend_texts(figure) == [*PHASES, "diverged", "not finished"]
    (ax,) = figure.axes
    assert colours(ax)[0] is None, "a pending cell has no phase"
    assert {c.get_hatch() for c in ax.collections} >= {"//////", "......"}


def test_cells_of_other_shards_are_not_finished(make):
    grid = preset("addition-regression").grid(lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0])
    figure = phase_diagram(make(grid, [10, 10], [20, -1], runs=[0, 3]))
    assert colours(figure.axes[0]) == [PALETTE[0], None, None, PALETTE[2]]
    assert "2 of 4 cells are not finished" in footnote(figure)


def test_a_budget_reads_the_diagram_earlier(small):
    assert "As of 1,000 of 100,000 steps" in footnote(phase_diagram(small, budget=1000))
    assert PALETTE[1] not in colours(phase_diagram(small, budget=1000).axes[0])
    with pytest.raises(UsageError, match="give 1 to 100000"):
        phase_diagram(small, budget=200_000)


def test_values_are_drawn_in_ascending_order(make):
    grid = preset("addition-regression").grid(lr=[1e-2, 1e-4], weight_decay=[5.0, 0.0])
    figure = phase_diagram(make(grid, [-1, 10, 10, 10], [-1, -1, 5000, 20]))  # X M / G C
    assert colours(figure.axes[0]) == [PALETTE[i] for i in (0, 2, 1, 3)]


def test_seeds_make_panels_with_one_legend(make):
    grid = preset("addition-classification").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0], data_seed=[41, 42, 43], model_seed=[101, 102]
    )
    t_val = np.full((2, 2, 3, 2), 20)
    t_val[0, 1, 2, 0] = -1  # lr 1e-4, decay 5, data seed 43, model seed 101
    figure = phase_diagram(make(grid, 10, t_val.ravel()))
    assert len(figure.axes) == 6
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "data seed 41, model seed 101"
    assert titles[4] == "data seed 43, model seed 101"
    assert [PALETTE[2] in colours(ax) for ax in figure.axes] == [k == 4 for k in range(6)]
    assert colours(figure.axes[4])[2] == PALETTE[2]
    assert legend_texts(figure) == list(PHASES)
    assert not any(ax.get_ylabel() for ax in figure.axes)
    assert figure.get_supylabel() == "decoder weight decay"  # one for all
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False] * 4 + [True] * 2


def test_activations_make_panels(make):
    grid = preset("addition-classification").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0], activation=["relu", "leaky_relu", "tanh"]
    )
    figure = phase_diagram(make(grid, 10, 20))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["relu", "leaky_relu", "tanh"]


def test_one_axis_is_a_strip_and_none_is_refused(make):
    grid = preset("addition-regression").grid(weight_decay=5.0, lr=[1e-4, 1e-3, 1e-2])
    (ax,) = phase_diagram(make(grid, [10, 10, -1], [20, -1, -1])).axes
    assert colours(ax) == [PALETTE[i] for i in (0, 2, 3)]
    assert len(ax.get_yticks()) == 0
    with pytest.raises(UsageError, match="needs an axis.*--lr=logspace"):
        phase_diagram(make(grid.grid(lr=1e-3), 10, 20))


def test_a_sweep_without_learning_rate_uses_what_there_is(make):
    grid = preset("addition-regression").grid(
        lr=1e-3, weight_decay=[0.0, 5.0], init_scale=[0.1, 1.0, 10.0]
    )
    (ax,) = phase_diagram(make(grid, 10, 20)).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("initialisation scale", "decoder weight decay")


def test_too_many_panels_are_refused(make):
    grid = preset("addition-regression").grid(
        lr=[1e-4, 1e-3], weight_decay=[0.0, 5.0], data_seed=list(range(65))
    )
    with pytest.raises(UsageError, match="65 panels"):
        phase_diagram(make(grid, 10, 20, points=0))


def test_drawing_into_given_axes(small):
    figure = Figure()
    ax = figure.subplots()
    assert phase_diagram(small, ax=ax, title="mine") is figure
    assert ax.get_title() == "mine"
    assert len(ax.get_legend().get_texts()) == 4


def rectangle(ax):
    return [p.get_bbox().extents.tolist() for p in ax.patches]


def test_a_mark_surrounds_the_cells_of_a_range(small):
    (ax,) = phase_diagram(small, mark={"lr": (1e-4, 1e-2), "weight_decay": (3, 6)}).axes
    assert rectangle(ax) == [[1.5, 0.5, 4.5, 2.5]]
    with pytest.raises(UsageError, match="no cell lies in it"):
        phase_diagram(small, mark={"lr": (1.0, 2.0)})
    with pytest.raises(UsageError, match="give .* of lr and weight_decay"):
        phase_diagram(small, mark={"data_seed": (1, 2)})


def test_the_extended_mnist_grid_shows_the_original_range(make):
    grid = preset("mnist-extended")
    results = make(grid, 100, 200, points=0)
    figure = phase_diagram(results)
    # learning rates 4.6e-6 ... 1 are the values 4 to 10; decays 1e-5 ... 10 likewise
    assert rectangle(figure.axes[0]) == [[3.5, 3.5, 10.5, 10.5]]
    assert "original range" in footnote(figure)
    assert rectangle(phase_diagram(results, mark={}).axes[0]) == []


def test_large_grids_have_one_letter_a_region_and_are_rasterised(make):
    grid = preset("addition-regression").grid(
        lr=np.logspace(-5, -2, 101).tolist(), weight_decay=np.linspace(0, 10, 101).tolist()
    )
    t_val = np.where(np.arange(101 * 101) < 101 * 50, 20, -1)
    (ax,) = phase_diagram(make(grid, 10, t_val, points=0)).axes
    assert {k: len(v) for k, v in lettered(ax).items()} == {"C": 1, "M": 1}
    assert ax.collections[0].get_rasterized()


def test_the_published_diagram(published):
    figure = phase_diagram(published)
    (ax,) = figure.axes
    drawn = {letter: len(cells) for letter, cells in lettered(ax).items()}
    assert drawn == {"C": 124, "G": 171, "M": 112, "X": 34}
    assert tick_labels(ax.xaxis) == [f"$10^{{{e}}}$" for e in (-5, -4, -3, -2)]
    assert ax.get_xticks().tolist() == pytest.approx([0, 20 / 3, 40 / 3, 20])
    assert tick_labels(ax.yaxis) == ["0", "2", "4", "6", "8", "10"]
