from __future__ import annotations

import numpy as np
import pytest

from smart_mask.letterbox import Letterbox


def test_a_wide_picture_is_centred_between_bars() -> None:
    box = Letterbox.fit(200, 100, 64)
    assert (box.inner_width, box.inner_height, box.left, box.top) == (64, 32, 0, 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (8192, 8192), (333, 517), (64, 64), (63, 65)])
def test_every_picture_fills_the_square_one_way_and_stays_inside(size: tuple[int, int]) -> None:
    box = Letterbox.fit(*size, 64)
    assert max(box.inner_width, box.inner_height) == 64
    assert min(box.inner_width, box.inner_height) >= 1
    assert 0 <= box.left <= 64 - box.inner_width
    assert 0 <= box.top <= 64 - box.inner_height


def test_the_input_is_rgb_in_0_to_1_with_grey_bars() -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :, 0] = 255
    image = Letterbox.fit(64, 32, 64).apply(pixels)
    assert image.shape == (1, 3, 64, 64)
    assert image.dtype == np.float32
    assert image[0, :, 32, 32].tolist() == [1, 0, 0]
    assert image[0, :, 2, 2] == pytest.approx(114 / 255)


def test_a_mask_over_the_square_comes_back_over_the_picture() -> None:
    box = Letterbox.fit(128, 64, 64)
    square = np.zeros((64, 64), np.uint8)
    square[16:32, :32] = 255  # the upper left quarter of what the picture covers
    mask = box.undo(square)
    assert mask.shape == (64, 128)
    expected = np.zeros((64, 128), np.uint8)
    expected[:32, :64] = 255
    assert (mask == expected).all()


def test_a_mask_of_the_same_size_is_not_resampled() -> None:
    square = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (64, 64))
    assert (Letterbox.fit(64, 64, 64).undo(square) == square).all()


def test_places_move_with_the_picture() -> None:
    box = Letterbox.fit(200, 100, 64)
    corners = box.into_square(np.array([[0, 0], [200, 100]], np.float32))
    assert corners.tolist() == [[0, 16], [64, 48]]
