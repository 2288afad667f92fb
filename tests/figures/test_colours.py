"""Phases and scales told apart in grey, and by eyes that lack one kind of cone."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from grokfast.figures.smooth import DELAY, MEMORISED
from grokfast.figures.style import LETTER_INK, palette
from grokfast.phases import CollapseRule, InversionRule, PhaseRule

#: What such eyes see of linear RGB, at severity 1: Machado, Oliveira and Fernandes 2009, "A
#: Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 15(6), Table 1.
EYES = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(colours, eye="normal"):
    """CIE L*a*b* ``[n, 3]`` (D65) of colours as an eye sees them."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eye]).T, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (seen @ np.array(to_xyz).T / [0.9505, 1.0, 1.089]).T
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def lightness(colours):
    """L* in grey: that of the luminance."""
    return lab(colours)[:, 0]


def luma(colours):
    """0 to 255, as Pillow and most printer drivers make grey (Rec. 601)."""
    return 255 * np.array([to_rgb(colour) for colour in colours]) @ [0.299, 0.587, 0.114]


def nearest(points):
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))


@pytest.mark.parametrize(
    ("rule", "steps", "greys"),
    [(PhaseRule, 14, 34), (CollapseRule, 13, 20), (InversionRule, 11, 20)],
)
def test_phases_are_told_apart_in_grey(rule, steps, greys):
    """A just noticeable difference is about 1 in L*; neighbours in a map need ten times that."""
    colours = palette(rule.phases)
    assert np.diff(np.sort(lightness(colours))).min() > steps
    assert np.diff(np.sort(luma(colours))).min() > greys


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("rule", [PhaseRule, CollapseRule, InversionRule])
def test_phases_are_told_apart_by_every_eye(rule, eye):
    """CIE 1976 distances; that of L* alone between the four phases is large for every eye, too."""
    colours = palette(rule.phases)
    assert nearest(lab(colours, eye)) > (29 if eye == "tritanopia" else 34)
    if rule is PhaseRule:
        assert np.diff(np.sort(lab(colours, eye)[:, 0])).min() > 10


@pytest.mark.parametrize("colour", LETTER_INK)
def test_letters_can_be_read(colour):
    """Contrast of luminance as WCAG 2.1 defines it; 3 is asked of large letters."""

    def luminance(c):
        rgb = np.array(to_rgb(c))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    low, high = sorted(map(luminance, (colour, LETTER_INK[colour])))
    assert (high + 0.05) / (low + 0.05) > 4.5


@pytest.mark.parametrize("eye", EYES)
def test_the_smooth_scales_darken_throughout_and_do_not_overlap(eye):
    at = np.linspace(0, 1, 33)
    delay, memorised = (lab(cmap(at), eye) for cmap in (DELAY, MEMORISED))
    for scale in (delay, memorised):
        assert (np.diff(scale[:, 0]) < 0).all()
    assert np.linalg.norm(delay[:, None] - memorised[None], axis=2).min() > 34
    if eye == "normal":
        assert delay[:, 0].min() - memorised[:, 0].max() > 4, "in grey, too"
