from __future__ import annotations

import numpy as np

from image_edit.paste import blended, laid_over

NOISE = np.random.default_rng(0)
PICTURE = NOISE.integers(0, 256, (96, 128, 3), np.uint8)


def test_pixels_under_a_mask_of_zero_stay_bit_for_bit() -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[20:40, 30:60] = 255
    mask[40, 30:60] = 128
    patch = NOISE.integers(0, 256, PICTURE.shape, np.uint8)
    found = blended(PICTURE, patch, mask)
    assert np.array_equal(found[mask == 0], PICTURE[mask == 0])
    assert np.array_equal(found[mask == 255], patch[mask == 255])
    middle = (PICTURE[40, 30:60].astype(int) + patch[40, 30:60]) / 2
    assert np.abs(found[40, 30:60] - middle).max() <= 1


def test_what_is_laid_over_nothing_keeps_its_own_colour() -> None:
    below = np.array([[0, 0, 255, 255, 128, 128, 77]], np.uint8)
    above = np.array([[64, 255, 64, 0, 0, 128, 255]], np.uint8)
    both, part = laid_over(below, above)
    assert both.tolist() == [[64, 255, 255, 255, 128, 192, 255]]
    assert part.tolist() == [[255, 255, 64, 0, 0, 170, 255]]
