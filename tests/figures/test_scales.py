"""Labels of logarithmic axes."""

import pytest
from matplotlib.figure import Figure

from grokfast.figures.scales import log_ticks


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1, 1e6, None),
        (0.07, 11, None),
        (1, 17, None),
        (0.02, 0.25, ["0.02", "0.05", "0.1", "0.2"]),
        (2e-3, 2e-2, [r"$2\times10^{-3}$", r"$5\times10^{-3}$", "$10^{-2}$", r"$2\times10^{-2}$"]),
        (200, 900, ["200", "500"]),
        (2e-4, 3e-3, [r"$2\times10^{-4}$", r"$5\times10^{-4}$", "$10^{-3}$", r"$2\times10^{-3}$"]),
        (2.5, 4.4, ["3", "4"]),
        (2.5, 3.4, ["3"]),
        (2.1, 2.2, ["2.1", "2.2"]),
    ],
)
def test_there_are_labels_and_they_are_those_of_major_ticks(low, high, labels):
    figure = Figure()
    ax = figure.subplots()
    ax.set(xscale="log", xlim=(low, high))
    log_ticks(ax.xaxis, low, high)
    figure.draw_without_rendering()
    within = [
        label.get_text()
        for label, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
        if low <= at <= high
    ]
    assert ax.get_xlim() == (low, high)
    assert len(within) >= 2 or within == labels
    assert labels is None or within == labels
    assert not any(label.get_text() for label in ax.get_xticklabels(minor=True))
