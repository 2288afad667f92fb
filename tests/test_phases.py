import numpy as np
import pytest

from grokfast.phases import PhaseRule, classify, counts

TOY = PhaseRule(threshold=0.9, tolerance=1e-3, gap=1000)
MNIST = PhaseRule(threshold=0.6, strict=True, gap=1000, gap_inclusive=True)


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
