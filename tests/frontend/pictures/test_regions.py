from __future__ import annotations

import numpy as np
import pytest

from frontend.errors import InvalidInputError
from frontend.pictures.regions import REACH, check_region
from model_kit import raster


def plain(pixels: raster.Pixels) -> bytes:
    return b"".join(map(bytes, raster.write(pixels)))


IMAGE = plain(np.zeros((200, 300, 3), np.uint8))


def mask(width: int, height: int, left: int, top: int) -> bytes:
    """Return a mask of one set pixel."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[top, left] = 255
    return plain(pixels)


@pytest.mark.parametrize("region", [[0, 0, 300, 200], [299, 199, 300, 200]])
def test_a_region_inside_the_image_is_good(region: list[int]) -> None:
    check_region(region, IMAGE, None)


@pytest.mark.parametrize("region", [[0, 0, 301, 200], [0, 0, 300, 201], [600, 600, 900, 900]])
def test_a_region_that_leaves_the_image_is_named(region: list[int]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_region(region, IMAGE, None)
    assert refused.value.detail == (f"region: {region} does not lie inside the picture of 300x200")


@pytest.mark.parametrize("size", [(300, 200), (30, 50), (1200, 400)])
def test_a_region_without_any_of_the_mask_is_named(size: tuple[int, int]) -> None:
    width, height = size
    at = width - 1, height - 1
    check_region([200, 150, 300, 200], IMAGE, mask(*size, *at))
    with pytest.raises(InvalidInputError, match=r"^region: holds nothing of the mask$"):
        check_region([0, 0, 100, 100], IMAGE, mask(*size, *at))


def test_what_the_model_may_bring_into_a_region_is_left_to_it() -> None:
    nearest = 100 + REACH
    check_region([0, 0, 100, 100], IMAGE, mask(300, 200, nearest, 50))
    with pytest.raises(InvalidInputError):
        check_region([0, 0, 100, 100], IMAGE, mask(300, 200, nearest + 1, 50))
