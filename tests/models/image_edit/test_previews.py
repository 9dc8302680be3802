import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_edit.conditions import Box, Pixels, Size
from image_edit.previews import MAX_SIDE, MIN_SIDE, Previews
from tests.fakes.profiles import RED_AND_BLUE_SWAPPED, profile

from .edits import conditions_of, picture, region_of


def drawn(previews: Previews, *predicted: Pixels) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(previews.draw(predicted))).convert("RGB")).astype(int)


def grey(width: int, height: int, shade: int) -> Pixels:
    return np.full((height, width, 3), shade, np.uint8)


def in_place(source: Pixels, box: Box, **changes: Any) -> Previews:
    mask = np.zeros((box.height, box.width), np.uint8)
    mask[box.height // 4 : -box.height // 4, box.width // 4 : -box.width // 4] = 255
    region = region_of(content=(64, 64), box=box, paste_mask=mask)
    return Previews(
        conditions_of(picture=source, regions=(region,), composited=True, in_place=True, **changes)
    )


def test_a_whole_edit_is_shown_at_an_eighth_without_its_padding() -> None:
    source = picture(72, 40)
    previews = Previews(conditions_of(picture=source, regions=(region_of(source),)))
    found = drawn(previews, np.vstack([grey(12, 5, 90), grey(12, 3, 250)]))
    assert found.shape == (5, 9, 3)
    assert np.abs(found - 90).max() < 8


def test_a_padded_picture_is_shown_in_its_square() -> None:
    source = picture(128, 64)
    previews = Previews(conditions_of(picture=source, regions=(region_of(source),), square=128))
    found = drawn(previews, grey(16, 8, 90))
    assert found.shape == (16, 16, 3)
    assert found[1].max() < 20
    assert abs(int(found[8, 8, 0]) - 90) < 12


def test_a_crop_is_shown_in_its_place() -> None:
    source = grey(1600, 1200, 200)
    previews = in_place(source, Box(800, 600, 64, 64))
    found = drawn(previews, grey(8, 8, 30))
    assert max(found.shape) == MIN_SIDE
    scale = found.shape[1] / 1600
    assert found[round(632 * scale), round(832 * scale), 0] < 120
    assert np.abs(found[:60] - 200).max() < 10


def test_a_crop_is_shown_in_the_colours_that_a_browser_shows() -> None:
    source, swapped = grey(160, 120, 0), profile(RED_AND_BLUE_SWAPPED)
    source[...] = (200, 60, 40)
    found = drawn(in_place(source, Box(64, 40, 16, 16), profile=swapped), grey(8, 8, 30))
    assert np.abs(found[:20] - (35, 57, 202)).max() <= 12
    clear = np.dstack([source, np.full((120, 160), 0, np.uint8)])
    found = drawn(in_place(clear, Box(64, 40, 16, 16)), grey(8, 8, 30))
    assert found[:20].min() >= 250


@pytest.mark.parametrize(
    ("size", "square", "shown"),
    [
        ((1024, 512), None, (16, 8)),
        ((512, 1024), None, (8, 16)),
        ((128, 64), None, (16, 8)),
        ((2048, 512), 256, (32, 8)),
        ((900, 900), 256, (32, 32)),
    ],
)
def test_a_preview_has_the_aspect_of_the_answer(
    size: Size, square: int | None, shown: Size
) -> None:
    source = picture(128, 128)
    previews = Previews(
        conditions_of(picture=source, regions=(region_of(source),), size=size, square=square)
    )
    found = drawn(previews, grey(16, 16, 90))
    assert found.shape[1::-1] == shown
    middle = found[shown[1] // 2, shown[0] // 2]
    assert np.abs(middle - 90).max() < 12


def test_a_crop_is_shown_in_the_answer_s_aspect() -> None:
    previews = in_place(grey(1600, 1200, 200), Box(800, 600, 64, 64), size=(500, 1000))
    assert drawn(previews, grey(8, 8, 30)).shape[1::-1] == (MIN_SIDE // 2, MIN_SIDE)


def test_a_preview_never_grows_beyond_its_bound() -> None:
    found = drawn(in_place(grey(8000, 60, 200), Box(10, 0, 60, 60)), grey(8, 8, 30))
    assert max(found.shape) <= MAX_SIDE
