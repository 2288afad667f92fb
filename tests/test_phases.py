"""Phase rules, on outcomes whose phase is known."""

from dataclasses import dataclass

import numpy as np
import pytest

from grokfast.errors import UsageError
from grokfast.phases import (
    PHASE_RULES,
    CollapseRule,
    InversionRule,
    Outcomes,
    PhaseRule,
    Rule,
    classify,
    counts,
    late_medians,
    phase_rule,
    rule_from_dict,
)

TOY = PhaseRule(threshold=0.9, tolerance=1e-3, gap=1000)
MNIST = PhaseRule(threshold=0.6, strict=True, gap=1000, gap_inclusive=True)
INVERSION = InversionRule()


@pytest.mark.parametrize(
    ("rule", "samples", "needed"),
    [
        (TOY, 45, 41),  # 40/45 is 0.889
        (TOY, 10, 9),
        (PhaseRule(threshold=0.6), 1000, 600),
        (MNIST, 1000, 601),  # strictly more than 0.6
        (MNIST, 1, 1),
        (PhaseRule(threshold=1.0), 7, 7),
    ],
)
def test_needed_counts(rule, samples, needed):
    assert rule.needed(samples) == needed


def test_phases_of_the_spec():
    t_train = np.array([10, 10, 10, 10, -1, -1, 500])
    t_val = np.array([20, 1009, 1010, -1, -1, 50, 100])
    assert classify(t_train, t_val, TOY).tolist() == [0, 0, 1, 2, 3, 3, 0]


def test_the_gap_itself_belongs_to_the_rule():
    assert classify(10, 1010, TOY) == 1
    assert classify(10, 1010, MNIST) == 0


def test_unfinished_cells_have_no_phase_until_both_steps_exist():
    finished = np.array([False, False, True])
    phase = classify([5, 5, 5], [6, -1, -1], TOY, finished=finished)
    assert phase.tolist() == [0, -1, 2]


def test_a_smaller_budget_forgets_later_events():
    assert classify(10, 5000, TOY, budget=4999) == 2
    assert classify(10, 5000, TOY, budget=5000) == 1


def test_counts_always_name_all_four():
    assert counts([0, 0, -1]) == {
        "comprehension": 2,
        "grokking": 0,
        "memorization": 0,
        "confusion": 0,
    }


@dataclass(frozen=True)
class Cell:
    """As much of an experiment as rules look at."""

    corruption: float

    @property
    def task(self):
        return self


def inversion(train, val, best=None, *, xi=0.35, finished=True, rule=INVERSION, **more):
    n = len(train)
    return [
        rule.phases[code] if code >= 0 else None
        for code in classify(
            np.full(n, -1),
            np.full(n, -1),
            rule,
            final_train_acc=np.array(train, np.float32),
            final_val_acc=np.array(val, np.float32),
            best_val_acc=np.array(val if best is None else best, np.float32),
            finished=finished,
            cells=[Cell(xi)] * n,
            **more,
        )
    ]


def test_inversion_phases_of_the_table():
    # the ends of Doshi et al., Figure 1: weight decay 0, 5, 15; then the rows below them
    train = [0.98, 0.79, 0.654, 1.0, 0.02, 0.02]
    val = [0.98, 1.0, 1.0, 0.3, 0.01, 0.01]
    best = [0.98, 1.0, 1.0, 0.3, 0.95, 0.2]
    assert inversion(train, val, best) == [
        "coexistence",
        "partial inversion",
        "full inversion",
        "memorization",
        "forgetting",
        "confusion",
    ]


def test_bounds_are_reached_by_the_counts_that_round_to_them():
    assert inversion([9 / 10], [9 / 10]) == ["coexistence"]  # float32 of 0.9 is less than 0.9
    assert inversion([7 / 10], [9 / 10]) == ["partial inversion"]  # 0.7 is 1.05 - 0.35
    assert inversion([0.6999], [9 / 10]) == ["full inversion"]


def test_coexistence_is_tested_first_where_the_conditions_overlap():
    # at xi = 0.1 a fully inverted model has 0.9 + 0.1 / p of the training labels
    assert inversion([0.9014], [1.0], xi=0.1) == ["coexistence"]
    assert inversion([1.0], [1.0], xi=0.0) == ["coexistence"]
    assert inversion([0.89], [1.0], xi=0.1) == ["full inversion"]


def test_each_cell_has_its_own_corruption():
    phase = INVERSION.classify(
        Outcomes(
            t_train=np.full(2, -1),
            t_val=np.full(2, -1),
            final_train_acc=0.7,
            final_val_acc=1.0,
            best_val_acc=1.0,
            cells=[Cell(0.2), Cell(0.4)],
        )
    )
    assert [INVERSION.phases[code] for code in phase] == ["full inversion", "partial inversion"]


def test_what_the_inversion_rule_cannot_know():
    nan = np.nan
    assert inversion([nan, 0.5], [0.5, nan]) == [None, None]
    assert inversion([1.0, 0.1], [0.1, 0.1], best=[nan, nan]) == ["memorization", None]
    assert inversion([1.0], [1.0], finished=False) == [None]


def test_final_accuracies_have_no_earlier_budget():
    trained = {"steps_done": np.array([2000])}
    assert inversion([1.0], [1.0], budget=2000, **trained) == ["coexistence"]
    with pytest.raises(UsageError, match="none as of 500 of 2000 steps; leave the budget out"):
        inversion([1.0], [1.0], budget=500, **trained)


def test_each_cell_is_judged_by_its_own_rule():
    rules = [TOY, MNIST, TOY]
    assert classify([10, 10, 10], [1010, 1010, -1], rules).tolist() == [1, 0, 2]


def test_rules_go_through_json_and_the_delay_rule_as_ever():
    assert TOY.to_dict() == {
        "threshold": 0.9,
        "tolerance": 1e-3,
        "strict": False,
        "gap": 1000,
        "gap_inclusive": False,
    }
    assert INVERSION.to_dict() == {"name": "inversion", "threshold": 0.9, "margin": 0.05}
    for rule in (TOY, MNIST, INVERSION):
        assert rule_from_dict(rule.to_dict()) == rule
    assert rule_from_dict({}) == PhaseRule()


def test_a_rule_that_is_not_registered_can_be_read_but_not_used():
    data = {"name": "halves", "threshold": 0.5, "depth": 3}
    rule = rule_from_dict(data)
    assert rule.to_dict() == data
    assert classify([1, 1], [2, -1], rule).tolist() == [-1, -1]
    with pytest.raises(UsageError, match="unknown phase rule 'halves'; known are delay, inversion"):
        rule.needed(10)


def test_a_rule_of_ones_own():
    try:

        @phase_rule("halves")
        @dataclass(frozen=True, kw_only=True)
        class Halves(Rule):
            phases = ("good", "bad")
            letters = ("G", "B")

            def classify(self, outcomes):
                code = np.where(outcomes.final_val_acc >= 0.5, 0, 1)
                return np.where(outcomes.finished, code, -1).astype(np.int8)

        rule = rule_from_dict({"name": "halves", "threshold": 0.8})
        assert rule == Halves(threshold=0.8)
        assert rule.needed(10) == 8
        phase = classify([1, 1], [-1, -1], rule, final_val_acc=[0.6, 0.4])
        assert counts(phase, rule.phases) == {"good": 1, "bad": 1}
    finally:
        PHASE_RULES.pop("halves", None)


@pytest.mark.parametrize(
    ("phases", "letters"),
    [((), ()), (("a", "a"), ("A", "B")), (("a", "b"), ("A",)), (("a", "b"), ("A", "A"))],
)
def test_phases_and_letters_must_tell_apart(phases, letters):
    with pytest.raises(UsageError, match="rule 'wrong' has"):
        phase_rule("wrong")(type("Wrong", (Rule,), {"phases": phases, "letters": letters}))
    assert "wrong" not in PHASE_RULES


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (INVERSION.__class__(margin=-0.1), "phase.margin is -0.1; give 0 <= margin < 1"),
        (INVERSION.__class__(threshold=0.0), "phase.threshold is 0.0"),
        (PhaseRule(gap=-1), "phase.gap is -1; give a finite value of 0 or more"),
    ],
)
def test_values_out_of_range_are_named(rule, says):
    with pytest.raises(UsageError, match=says):
        rule.check()


def test_collapse_is_a_low_median_after_memorising():
    rule = CollapseRule(threshold=0.99)
    t_train = np.array([600, 600, 600, 600, -1, 600])
    t_val = np.array([700, 9000, -1, 9000, -1, -1])
    late = np.array([1.0, 0.9, 0.95, 0.3, 0.1, 0.01])
    phase = classify(t_train, t_val, rule, late_train_acc=late)
    names = [rule.phases[k] for k in phase]
    assert names == [
        "comprehension",
        "grokking",
        "memorization",
        "collapse",
        "confusion",
        "collapse",
    ]
    running = classify(t_train, t_val, rule, late_train_acc=late, finished=False)
    assert (running == -1).all(), "it may yet come back"
    assert classify(600, 9000, rule).tolist() == -1, "nobody kept the curves"
    assert classify(600, 9000, rule, late_train_acc=0.3, budget=500) == 3
    assert rule_from_dict(rule.to_dict()) == rule
    assert "median over the last 1,000 steps is < 0.9." in rule.sentence


def test_the_median_is_of_the_last_steps_and_none_before_memorising():
    step = np.arange(100, 2001, 100)
    accuracy = np.where(step < 1500, 0.2, 1.0)
    slipped = accuracy.copy()
    slipped[-3:] = 0.0
    curves = np.array([accuracy, slipped, accuracy, accuracy, accuracy, np.full(20, np.nan)])
    t_train, ends = [1500, 1500, -1, 1500, 1500, 1500], [2000, 2000, 2000, 1000, 2000, 2000]
    found = late_medians(step, curves, t_train, ends, [1000, 1000, 1000, 1000, 0, 1000])
    np.testing.assert_array_equal(found, [1.0, 0.5, 1.0, np.nan, np.nan, np.nan])


def test_collapse_needs_fields_in_range():
    for fields, says in (
        ({"window": 0}, "phase.window is 0"),
        ({"kept": 1.5}, "phase.kept is 1.5"),
        ({"threshold": 0.0}, "phase.threshold"),
    ):
        with pytest.raises(UsageError, match=says):
            CollapseRule(**fields).check()
