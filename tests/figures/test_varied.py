"""What a figure says where any field of the experiment is an axis, and by which name."""

import pytest

from grokfast import figures
from grokfast.fields import scalar_fields
from grokfast.figures.labels import label_of, with_value
from grokfast.phases import CollapseRule, PhaseRule, Rule, sentence_of
from grokfast.presets import PRESETS, preset


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


@pytest.fixture
def varied(make):
    """``varied(name, values)``: two learning rates, and this field as an axis."""

    def build(name, values, t_val=1100):
        fields = {"steps": 10_000, "lr": [1e-4, 1e-3], "weight_decay": 0, name: values}
        grid = preset("addition-classification").grid(**fields)
        return make(grid, 300, t_val)

    return build


def test_the_gap_as_an_axis_has_a_range_in_the_footnote_and_no_line(varied):
    results = varied("phase.gap", [500, 1000, 2000], t_val=[1100, 1100, 1100, 400, 5300, 400])
    assert results.phases().tolist() == [1, 0, 0, 0, 1, 0]
    figure = figures.smooth_diagram(results)
    assert "≥ 500 to 2,000 steps. Of several values each" in footnote(figure)
    assert not [line for ax in figure.axes for line in ax.lines if line.get_label() == "threshold"]
    one = figures.smooth_diagram(varied("phase.gap", [500], t_val=[400, 5300]))
    assert "≥ 500 steps." in footnote(one), "the axis, not the preset, has the value"
    assert [line for ax in one.axes for line in ax.lines if line.get_label() == "threshold"]


def test_each_cell_has_the_line_of_its_own_threshold(varied):
    results = varied("phase.threshold", [0.8, 0.95])

    def heights(shown, cells):
        lines = (ax.lines for ax in figures.curves(shown, cells).axes[: len(cells)])
        flat = [[line for line in own if len(set(line.get_ydata())) == 1] for own in lines]
        return [float(line.get_ydata()[0]) for own in flat for line in own]

    assert heights(results, [0, 1]) == [0.8, 0.95]
    assert "accuracy ≥ 0.8 to 0.95" in footnote(figures.phase_diagram(results))
    together = results.aggregate("phase.threshold")
    assert heights(together, [0]) == []
    assert "accuracy ≥ 0.8 to 0.95" in footnote(figures.phase_diagram(together))
    lines = figures.outcome_lines(together, outcome="t_val")
    assert lines.axes[0].get_ylabel() == "steps to the threshold in validation accuracy"


def test_data_type_and_budget_as_axes(varied):
    note = footnote(figures.phase_diagram(varied("dtype", ["float32", "float64"])))
    assert "float32" not in note
    assert "Engine compiled on cpu; grokfast" in note
    results = varied("steps", [1000, 10_000])
    assert "1,000 to 10,000 steps; " in footnote(figures.phase_diagram(results))


def test_the_decoder_is_named_only_where_every_cell_has_one(varied):
    ax = figures.phase_diagram(varied("optimizer.encoder", ["none", "embedding"])).axes[0]
    assert ax.get_xlabel() == "learning rate"


def test_the_file_has_no_gap_where_cells_have_several(varied, tmp_path):
    import h5py

    results = varied("phase.gap", [500, 1000])
    results.save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        attributes = dict(file["phase"].attrs)
    assert "gap" not in attributes
    assert attributes["threshold"] == 0.9
    assert "500 to 1,000 steps" in attributes["definition"]


def test_a_setting_may_stand_for_parts_of_the_rule(make):
    base = preset("addition-classification").grid(lr=[1e-4, 1e-3], weight_decay=0)
    grid = base.setting("strictness", {"lax": {"phase.gap": 5000}, "usual": {}})
    results = make(grid, 300, 1600)
    assert [rule.gap for rule in results.rules] == [5000, 1000]
    assert "1,000 to 5,000 steps" in footnote(figures.phase_diagram(results))


def test_one_sentence_of_several_rules():
    assert sentence_of([PhaseRule(), PhaseRule()]) == PhaseRule().sentence
    both = sentence_of([CollapseRule(window=100), CollapseRule(window=2000, kept=0.8)])
    assert "last 100 to 2,000 steps is < 0.8 to 0.9." in both
    lengths = sentence_of([PhaseRule(), PhaseRule(tolerance=0.001)])
    assert lengths == "Phases by rule delay, of which each cell has its own tolerance."
    strict = sentence_of([PhaseRule(), PhaseRule(strict=True)])
    assert "accuracy ≥ or > 0.9;" in strict


def test_no_label_of_a_field_is_its_raw_name():
    for grid in (one.build() for one in PRESETS.values()):
        for path in scalar_fields(grid.experiment):
            label = label_of(path, grid)
            assert not {".", "_"} & set(label.words), path
    grid = preset("addition-classification")
    assert label_of("optimizer.beta2", grid).on_axis == r"Adam's $\beta_2$"
    assert with_value("optimizer.beta2", 0.98, grid) == r"$\beta_2$ = 0.98"
    assert with_value("task.p", 97, grid) == "$p$ = 97"
    assert with_value("model.seed", 2023, grid) == "model seed 2023"
    assert with_value("steps", 10_000, grid) == "budget (steps) 10,000"


def test_a_rule_of_ones_own_has_a_range_too():
    class Halves(Rule):
        name = "halves"

    rules = [Halves(threshold=0.5), Halves(threshold=0.75)]
    assert "≥ 0.5 to 0.75;" in sentence_of(rules)


def test_a_cell_is_described_by_the_words_of_its_axes(varied):
    figure = figures.curves(varied("optimizer.beta2", [0.9, 0.98]), [1])
    title = figure.axes[0].get_title(loc="left")
    assert r"decoder learning rate $10^{-4}$, $\beta_2$ = 0.98" in " ".join(title.split())
