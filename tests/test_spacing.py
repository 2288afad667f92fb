"""Spaced numbers are the doubles nearest to the exact ones, whatever the processor."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grokfast as gf
from grokfast.fields import value_text
from grokfast.ranges import parse_values
from grokfast.spacing import geomspace, linspace, log10, logspace

NUMBERS = st.decimals(-1000, 1000, places=6)


def test_text_is_the_decimal_that_it_is():
    assert linspace("0", "0.3", 4) == (0.0, 0.1, 0.2, 0.3)
    assert linspace("-1", "1", 5) == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert logspace("-5", "-2", 4) == (1e-5, 1e-4, 1e-3, 1e-2)
    assert logspace("0.5", "0.5", 1) == (math.sqrt(10),)
    assert logspace(0, log10(300_000), 1000)[-1] == 300_000.0


@given(NUMBERS, NUMBERS, st.integers(2, 40))
def test_linspace_is_correctly_rounded(low, high, count):
    a, b = Fraction(low), Fraction(high)
    exact = [a + (b - a) * i / (count - 1) for i in range(count)]
    assert linspace(low, high, count) == tuple(map(float, exact))


@given(st.integers(-3000, 3000), st.integers(-3000, 3000), st.integers(2, 12))
def test_logspace_is_correctly_rounded(low, high, count):
    """By integers alone: a power of ten to k / d is compared by its d-th power."""
    low, high = Fraction(low, 100), Fraction(high, 100)
    for i, value in enumerate(logspace(float(low), float(high), count)):
        # Of the exponents as they were given: as doubles.
        a, b = Fraction(float(low)), Fraction(float(high))
        exponent = a + (b - a) * i / (count - 1)
        below, above = (
            (Fraction(value) + Fraction(math.nextafter(value, to))) / 2 for to in (0, math.inf)
        )
        near = exponent.limit_denominator(100 * (count - 1))
        assert abs(exponent - near) < Fraction(1, 10**12)  # as good as the double of it
        slack = 1 + Fraction(1, 10**10)
        for bound, sign in ((below / slack, 1), (above * slack, -1)):
            left, right = Fraction(10) ** near.numerator, bound**near.denominator
            assert (left - right) * sign >= 0


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("logspace:-5:-2:4", [1e-5, 1e-4, 1e-3, 1e-2]),
        ("logspace:-5:-2:1", [1e-5]),
        ("linspace:0:0.3:4", [0.0, 0.1, 0.2, 0.3]),
        ("linspace: 0 : 1 :2", [0.0, 1.0]),
        ("geomspace:1e-5:1e-2:4", [1e-5, 1e-4, 1e-3, 1e-2]),
        ("geomspace: 3e-4 :1:1", [3e-4]),
        ("geomspace:8:1:4", [8.0, 4.0, 2.0, 1.0]),
    ],
)
def test_ranges_of_the_command_line_are_the_numbers_one_would_type(text, values):
    assert parse_values(gf.preset("addition-regression"), "lr", text) == values


def test_geomspace_is_logspace_by_its_ends():
    assert geomspace("1e-5", "1e-2", 21) == logspace("-5", "-2", 21)
    ends = ("0.3", "7.1")
    assert geomspace(*ends, 9)[::8] == (0.3, 7.1), "to the bit"


@pytest.mark.parametrize("text", ["geomspace:0:1:3", "geomspace:-1:-2:3", "geomspace:1:-1e-3:3"])
def test_geomspace_has_positive_ends(text):
    with pytest.raises(gf.UsageError, match="both ends must be positive"):
        parse_values(gf.preset("addition-regression"), "lr", text)


@pytest.mark.parametrize("text", ["logspace:1e-5:1e-2:4", "logspace:1e-3:1:4", "logspace:1:100:3"])
def test_values_given_as_exponents_are_warned_of(text):
    says = f"powers of ten: .*geomspace{text.removeprefix('logspace')} takes the ends themselves"
    with pytest.warns(UserWarning, match=says):
        parse_values(gf.preset("addition-regression"), "weight_decay", text)


@pytest.mark.parametrize("text", ["logspace:-5:-2:4", "logspace:0:1:3", "logspace:-0.5:1:3"])
def test_exponents_are_not(text, recwarn):
    parse_values(gf.preset("addition-regression"), "weight_decay", text)
    assert not recwarn


@pytest.mark.parametrize(
    "text", ["logspace:inf:1:3", "linspace:0:nan:3", "linspace:0:1_x:3", "logspace:::3"]
)
def test_ends_that_are_no_numbers_are_refused(text):
    with pytest.raises(gf.UsageError, match="is no range"):
        parse_values(gf.preset("addition-regression"), "lr", text)


@pytest.mark.parametrize("text", ["logspace:0:400:3", "logspace:0:1e30:2", "linspace:0:1.9e308:2"])
def test_ends_beyond_a_double_are_refused(text):
    with pytest.raises(gf.UsageError, match=r"goes beyond 1\.8e\+308|is no range"):
        parse_values(gf.preset("addition-regression"), "lr", text)


@pytest.mark.parametrize("name", ["addition-classification", "mnist-original", "mnist-extended"])
def test_values_are_printed_as_they_are_read_back(name):
    grid = gf.preset(name)
    for path, values in grid.axes.items():
        text = ",".join(map(value_text, values))
        assert tuple(parse_values(grid, path, text)) == values


def test_presets_hold_spaced_values_to_the_last_digit_but_one():
    toy, mnist, extended = map(
        gf.preset, ("addition-classification", "mnist-original", "mnist-extended")
    )
    for values, low, high in (
        (toy.axes["optimizer.lr"], -5, -2),
        (mnist.axes["optimizer.lr"], -6, 0),
        (mnist.axes["optimizer.weight_decay"], -5, 1),
        (extended.axes["optimizer.lr"][:13], Fraction(-80, 9), Fraction(16, 9)),
        (extended.axes["optimizer.weight_decay"][:11], -9, 1),
    ):
        exact = logspace(float(low), float(high), len(values))
        assert np.allclose(values, exact, rtol=1e-14, atol=0)
