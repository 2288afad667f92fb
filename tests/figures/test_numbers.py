"""Labels and tick positions of index axes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grokfast.figures.numbers import is_log, number, ticks
from grokfast.figures.regions import heart, largest_square
from grokfast.figures.style import plain
from grokfast.presets import preset


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, "0"),
        (0.0, "0"),
        (5.0, "5"),
        (0.5, "0.5"),
        (1e-5, "$10^{-5}$"),
        (1e3, "1,000"),
        (1e5, "$10^{5}$"),
        (0.01, "0.01"),
        (0.0035481, r"$3.5\times10^{-3}$"),
        (0.35481, "0.355"),
        (4.641588833612782e-05, r"$4.6\times10^{-5}$"),
        (250.0, "250"),
        (101, "101"),
        (1000, "1,000"),
        (100_000, "100,000"),
        (9.99e-5, r"$9.99\times10^{-5}$"),
        (1.25e-4, r"$1.25\times10^{-4}$"),
        (0.9975, "0.9975"),
        (20_000.0, "20,000"),
        (5e-324, r"$4.941\times10^{-324}$"),
        (-0.25, "-0.25"),
        ("tanh", "tanh"),
        (None, "none"),
        (True, "True"),
        ("$x$", r"\$x\$"),
    ],
)
def test_numbers(value, label):
    assert number(value) == label


def test_log_or_linear():
    assert is_log([1e-5, 1e-4, 1e-3])
    assert is_log([0, 1e-3, 1e-2, 1e-1])
    assert is_log(preset("mnist-extended").axes["optimizer.lr"])
    assert not is_log(np.linspace(0, 20, 21).tolist())
    assert not is_log([41, 42, 43])
    assert not is_log([0.0])


def test_decades_lie_where_the_logarithm_says():
    marks = ticks(preset("mnist-extended").axes["optimizer.lr"], 2.8, horizontal=True)
    assert marks.labels == [f"$10^{{{e}}}$" for e in (-8, -6, -4, -2, 0, 2)]
    assert marks.positions[0] == pytest.approx(1)  # 10**-8 is the second value
    assert marks.positions[4] == pytest.approx(10)  # and 1 the eleventh
    assert marks.positions[1] == pytest.approx(1 + 2 * 9 / 8)  # between two cells


def test_names_are_never_left_out():
    names = ["relu", "leaky_relu", "tanh", "square"]
    marks = ticks(names, 0.8, horizontal=True)
    assert marks.labels == names
    assert marks.slanted


@given(
    st.lists(
        st.one_of(st.integers(-1000, 10**9), st.floats(-1e12, 1e12)), min_size=1, unique=True
    ).map(sorted),
    st.floats(0.3, 5),
    st.booleans(),
)
@example([-2.225073858507203e-309, 0, 5e-324], 0.375, False)
def test_ticks_are_few_inside_and_ascending(values, room, horizontal):
    marks = ticks(values, room, horizontal=horizontal)
    assert 1 <= len(marks.positions) == len(marks.labels) <= max(8, room / 0.14)
    assert all(0 <= p <= len(values) - 1 for p in marks.positions)
    assert sorted(marks.positions) == marks.positions


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_largest_square(rows, columns, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.7
    best = max(
        (
            side
            for side in range(1, min(mask.shape) + 1)
            for y in range(rows - side + 1)
            for x in range(columns - side + 1)
            if mask[y : y + side, x : x + side].all()
        ),
        default=0,
    )
    found = largest_square(mask)
    if best == 0:
        assert found is None
        assert heart(mask) is None
    else:
        y, x, side = found
        assert side == best
        assert mask[y : y + side, x : x + side].all()
        assert mask[heart(mask)]


def test_text_from_a_file_stays_text():
    assert plain("a\x00b\nc") == "a b c"
    assert len(plain("x" * 1000)) == 80
