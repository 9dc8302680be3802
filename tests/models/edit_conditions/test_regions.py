import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edit_conditions.images import Pixels
from edit_conditions.masks import Box
from edit_conditions.regions import (
    GRID,
    LEAST_SHARE,
    MAX_REGIONS,
    around,
    canvas_of,
    cropped,
    on_canvas,
    whole,
)

AREA = 512 * 512


def mask_of(size: tuple[int, int], *boxes: Box) -> Pixels:
    mask = np.zeros((size[1], size[0]), np.uint8)
    for box in boxes:
        mask[box.window][:] = 255
    return mask


def test_a_whole_picture_is_worked_on_as_it_is_up_to_the_model_s_size() -> None:
    assert whole((301, 207), AREA).content == (301, 207)
    assert whole((2048, 2048), AREA).content == (512, 512)
    wide = whole((4000, 1000), AREA)
    assert wide.content == (1024, 256)
    assert wide.box == Box(0, 0, 4000, 1000)


def test_a_smaller_answer_is_worked_on_at_its_own_number_of_pixels() -> None:
    assert whole((2000, 1000), AREA, asked=400 * 200).content == (400, 200)
    # But not at fewer than the model needs.
    assert whole((2000, 1000), AREA, asked=1).content == (256, 128)


@pytest.mark.parametrize("asked", [256 * 256, 512 * 512, 2048 * 2048])
def test_no_content_is_larger_than_a_box_of_enough_pixels(asked: int) -> None:
    assert whole((256, 256), AREA, asked=asked).content == (256, 256)
    assert cropped(Box(5, 6, 256, 256), AREA).content == (256, 256)


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((181, 182), (181, 182)),
        ((128, 128), (181, 181)),
        ((48, 32), (222, 148)),
        ((1, 1), (181, 181)),
        ((160, 16), (512, 51)),
        ((16, 700), (16, 700)),  # as long as the model's square, or longer
        ((1, 2048), (1, 2048)),
    ],
)
def test_what_has_too_few_pixels_for_the_model_is_enlarged(
    size: tuple[int, int], content: tuple[int, int]
) -> None:
    assert whole(size, AREA).content == cropped(Box(7, 9, *size), AREA).content == content
    [(region, _)] = around(mask_of(size, Box(0, 0, *size)), AREA)
    if region.box.height == size[1]:
        assert region.content == content


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), area=st.integers(64**2, 1024**2))
def test_the_model_gets_neither_too_few_pixels_nor_too_many(
    width: int, height: int, area: int
) -> None:
    region = cropped(Box(0, 0, width, height), area)
    longest, side = max(region.content), math.sqrt(area)
    rounding = 1 + 2 / min(region.content)
    assert math.prod(region.content) <= area * rounding
    assert longest <= max(width, height, side + 1)
    if longest < side - 1:
        assert math.prod(region.content) >= LEAST_SHARE * area / rounding
    if width * height >= LEAST_SHARE * area:
        assert region.scale <= 1


def test_a_small_object_gets_the_model_s_whole_resolution() -> None:
    mask = mask_of((2048, 2048), Box(900, 1000, 200, 150))
    [(region, own)] = around(mask, AREA)
    assert (region.box.width, region.box.height) == region.content == (512, 512)
    assert region.scale == 1
    assert np.array_equal(own, mask[region.box.window])
    assert own.sum() == mask.sum()


def test_a_large_object_gets_half_of_its_size_on_each_side() -> None:
    mask = mask_of((6000, 4000), Box(2000, 1500, 1200, 900))
    [(region, _)] = around(mask, AREA)
    # 1200 + 600 on each side; a square, around the object's middle.
    assert region.box == Box(1400, 750, 2400, 2400)
    assert math.prod(region.content) == pytest.approx(AREA, rel=0.01)


@pytest.mark.parametrize("box", [Box(1000, 2000, 1500, 20), Box(1000, 1000, 20, 1500)])
def test_a_crop_of_a_thin_object_is_a_square(box: Box) -> None:
    [(region, _)] = around(mask_of((6000, 4000), box), AREA)
    assert (region.box.width, region.box.height) == (3000, 3000)
    assert region.content == (512, 512)


@pytest.mark.parametrize(
    ("picture", "crop"),
    [
        ((301, 207), (301, 207)),
        ((1024, 51), (512, 51)),
        ((51, 999), (51, 512)),
    ],
)
def test_a_crop_is_no_square_where_the_picture_ends(
    picture: tuple[int, int], crop: tuple[int, int]
) -> None:
    [(region, _)] = around(mask_of(picture, Box(10, 10, 5, 5)), AREA)
    assert (region.box.width, region.box.height) == region.content == crop


@pytest.mark.parametrize("corner", [(0, 0), (1988, 0), (0, 1468), (1988, 1468)])
def test_a_crop_at_the_picture_s_edge_stays_inside(corner: tuple[int, int]) -> None:
    mask = mask_of((2000, 1500), Box(*corner, 12, 32))
    [(region, own)] = around(mask, AREA)
    assert (region.box.width, region.box.height) == (512, 512)
    assert own.shape == (512, 512)
    assert own.sum() == mask.sum()


def test_objects_far_apart_get_a_crop_each_and_close_ones_share() -> None:
    near = (Box(100, 100, 50, 50), Box(220, 160, 50, 50))
    far = Box(3500, 2500, 60, 60)
    mask = mask_of((4000, 3000), *near, far)
    found = around(mask, AREA)
    assert sorted(int(own.sum()) // 255 for _, own in found) == [3600, 2 * 2500]
    assert all(region.scale == 1 for region, _ in found)


def test_all_objects_share_a_crop_where_one_is_asked_for() -> None:
    mask = mask_of((4000, 3000), Box(100, 100, 50, 50), Box(3500, 2500, 60, 60))
    [(region, own)] = around(mask, AREA, most=1)
    assert (own == mask[region.box.window]).all()
    assert own.sum() == mask.sum()


def test_a_soft_mask_counts_above_127() -> None:
    mask = mask_of((2000, 1500), Box(100, 100, 50, 50))
    mask[1200:1220, 1700:1720] = 127
    mask[110:120, 110:120] = 128
    [(region, own)] = around(mask, AREA)
    assert own.sum() == 2500 * 255
    assert region.box == Box(0, 0, 512, 512)


def test_however_many_objects_there_are_the_crops_are_few() -> None:
    spots = [Box(x, y, 8, 8) for x in range(50, 4000, 500) for y in range(50, 3000, 500)]
    mask = mask_of((4000, 3000), *spots)
    found = around(mask, AREA)
    assert 1 <= len(found) <= MAX_REGIONS
    assert sum(int(own.sum()) for _, own in found) == mask.sum()


def test_thousands_of_specks_take_no_time_and_one_crop() -> None:
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    [(region, own)] = around(board, AREA)
    assert region.box == Box(0, 0, 256, 256)
    assert np.array_equal(own, board)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 1500),
    height=st.integers(1, 1500),
    spots=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.4), st.floats(0, 0.4)),
        min_size=1,
        max_size=6,
    ),
)
def test_every_set_pixel_lies_in_exactly_one_crop(
    width: int, height: int, spots: list[tuple[float, float, float, float]]
) -> None:
    boxes = []
    for x, y, w, h in spots:
        left, top = int(x * (width - 1)), int(y * (height - 1))
        boxes.append(
            Box(
                left,
                top,
                max(1, min(int(w * width), width - left)),
                max(1, min(int(h * height), height - top)),
            )
        )
    mask = mask_of((width, height), *boxes)
    covered = np.zeros(mask.shape, int)
    found = around(mask, AREA)
    widest, tallest = (max(region.content[side] for region, _ in found) for side in (0, 1))
    assert widest * tallest <= AREA * 1.01
    for region, own in found:
        box = region.box
        assert 0 <= box.left <= box.left + box.width <= width
        assert 0 <= box.top <= box.top + box.height <= height
        covered[box.window][:] += own > 0
    assert np.array_equal(covered, (mask > 0).astype(int))


@pytest.mark.parametrize("size", [(6000, 1500), (8000, 1000), (20000, 1000)])
def test_crops_of_unlike_aspects_have_a_canvas_of_the_model_s_size(size: tuple[int, int]) -> None:
    width, height = size
    large = Box(0, 0, width // 5, height // 3 * 2)
    small = Box(width - 100, height - 100, 40, 40)
    regions = [region for region, _ in around(mask_of(size, large, small), 1024 * 1024)]
    assert len(regions) == 2
    assert math.prod(canvas_of(regions)) <= 1024 * 1024 * 1.1


def test_the_canvas_lies_on_the_grid_and_holds_every_content() -> None:
    regions = [whole((301, 207), AREA), cropped(Box(0, 0, 100, 400), AREA)]
    assert canvas_of(regions) == (320, 416)
    assert all(side % GRID == 0 for side in canvas_of(regions))


@pytest.mark.parametrize("shape", [(207, 301, 3), (207, 301), (1, 1, 3), (1, 40, 3)])
def test_padding_mirrors_and_leaves_the_content_where_it_is(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    padded = on_canvas(pixels, (320, 224))
    assert padded.shape[:2] == (224, 320)
    assert np.array_equal(padded[: shape[0], : shape[1]], pixels)
    assert np.array_equal(padded[shape[0]], padded[shape[0] - 1])
