"""The measures of an edit, against values worked out by hand."""

import math

import numpy as np
import pytest

from export.demo_edits.score import angular_error, colour_difference, psnr

BLACK = np.zeros((2, 2, 3), np.uint8)
LEFT = np.array([[True, False], [True, False]])


def test_psnr() -> None:
    assert psnr(BLACK, BLACK) == math.inf
    assert psnr(BLACK, BLACK + np.uint8(255)) == pytest.approx(0)
    half = BLACK.copy()
    half[:, 1] = 51
    assert psnr(half, BLACK) == pytest.approx(10 * math.log10(2 * 25))
    assert psnr(half, BLACK, ~LEFT) == pytest.approx(10 * math.log10(25))
    assert psnr(half, BLACK, LEFT) == math.inf


def test_angular_error() -> None:
    red, green, dark_red, white = BLACK.copy(), BLACK.copy(), BLACK.copy(), BLACK + np.uint8(255)
    red[..., 0], dark_red[..., 0], green[..., 1] = 255, 10, 99
    assert angular_error(red, green) == pytest.approx(90)
    assert angular_error(red, dark_red) == pytest.approx(0)
    assert angular_error(white, red) == pytest.approx(math.degrees(math.acos(1 / math.sqrt(3))))
    red[0] = 0
    assert angular_error(red, green) == pytest.approx(90)


def test_colour_difference() -> None:
    picture = BLACK.copy()
    picture[0, 0], picture[1, 0] = [10, 20, 0], [30, 20, 4]
    assert colour_difference(picture, BLACK, LEFT) == 20
    assert colour_difference(picture, BLACK, ~LEFT) == 0
