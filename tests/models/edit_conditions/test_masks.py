import numpy as np
import pytest
from PIL import Image

from edit_conditions.masks import (
    Box,
    as_rgb,
    binarise,
    dilate,
    feathered,
    grey,
    masked_background,
    object_box,
    region_boxes,
    touched,
)

from .pictures import flat, mask_with


def test_grey_of_grey_is_itself() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    assert (grey(as_rgb(ramp)) == ramp).all()


def test_grey_weighs_the_channels() -> None:
    # 0.299 x 255, 0.587 x 255, 0.114 x 255
    primaries = np.eye(3, dtype=np.uint8)[None] * np.uint8(255)
    assert grey(primaries).tolist() == [[76, 150, 29]]


def test_binarise_is_strict() -> None:
    assert binarise(np.array([[0, 127, 128, 255]], dtype=np.uint8), 127).tolist() == [
        [0, 0, 255, 255]
    ]


def test_masked_background_is_soft() -> None:
    mask = np.array([[0, 51, 128, 255]], dtype=np.uint8)
    # 200 x (1 - m/255): 200, 160, 99.6, 0
    assert masked_background(flat(4, 1, 200), mask)[0, :, 0].tolist() == [200, 160, 100, 0]


@pytest.mark.parametrize(("length", "first", "last"), [(2, 0, 0), (3, 1, 1), (4, 1, 1)])
def test_a_shrunk_mask_is_set_where_it_holds_a_pixel(length: int, first: int, last: int) -> None:
    [row] = touched(mask_with(6, 1, (2, 0, 1, 1)), (length, 1)) > 0
    assert np.flatnonzero(row).tolist() == [first, last][: last - first + 1]


@pytest.mark.parametrize("factor", [2, 4, 36])
def test_an_enlarged_mask_is_set_where_its_picture_has_colours_of_what_is_masked(
    factor: int,
) -> None:
    mask = mask_with(6, 5, (2, 1, 1, 2))
    size = 6 * factor, 5 * factor
    shown = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR))
    found = touched(mask, size)
    assert (found[shown > 0] == 255).all()
    # Half a pixel on each side, of which the outermost is next to nothing.
    assert object_box(found) == Box(*(3 * factor // 2, factor // 2), 2 * factor, 3 * factor)


def test_dilate_grows_by_an_ellipse() -> None:
    grown = dilate(mask_with(101, 101, (50, 50, 1, 1)), 35)
    assert object_box(grown) == Box(15, 15, 71, 71)
    assert grown[50, 15] == 255
    assert grown[16, 16] == 0


@pytest.mark.parametrize("radius", [4, 16])
def test_a_feather_is_255_on_the_mask_and_falls_to_exactly_0(radius: int) -> None:
    hard = mask_with(101, 91, (40, 30, 20, 25))
    soft = feathered(hard, radius)
    assert (soft[hard > 0] == 255).all()
    beside = soft[40, 60:].astype(int)
    assert (np.diff(beside[:radius]) < 0).all()
    assert 0 < beside[radius - 1] < beside[0] < 255
    rows, columns = np.mgrid[:91, :101]
    across = np.maximum(np.maximum(40 - columns, columns - 59), 0)
    down = np.maximum(np.maximum(30 - rows, rows - 54), 0)
    far = np.hypot(across, down) >= radius + 1
    assert not soft[far].any()
    # Smooth, so also flat at both ends: a ramp of straight lines would show its edges.
    assert 255 - beside[0] < 255 / (radius + 1)


@pytest.mark.parametrize("value", [0, 255])
def test_a_feather_of_nothing_or_everything_changes_nothing(value: int) -> None:
    hard = np.full((9, 7), value, np.uint8)
    assert (feathered(hard, 4) == hard).all()


def test_a_box_s_window_covers_its_pixels() -> None:
    mask = mask_with(20, 10, (3, 2, 5, 4))
    assert mask[Box(3, 2, 5, 4).window].shape == (4, 5)
    assert mask[Box(3, 2, 5, 4).window].all()
    assert mask[Box(3, 2, 5, 4).window].sum() == mask.sum()


def test_boxes_begin_above_127() -> None:
    mask = mask_with(20, 10, (3, 2, 5, 4))
    assert object_box(mask) == Box(3, 2, 5, 4)
    assert object_box(np.where(mask, 128, 0).astype(np.uint8)) == Box(3, 2, 5, 4)
    assert object_box(np.where(mask, 127, 0).astype(np.uint8)) is None


def test_regions_are_4_connected_and_not_too_small() -> None:
    # Two squares that touch at a corner are two regions; the third has 99 pixels only.
    mask = mask_with(60, 40, (0, 0, 10, 10), (10, 10, 10, 10), (30, 0, 11, 9))
    assert region_boxes(mask, min_area=100) == [Box(0, 0, 10, 10), Box(10, 10, 10, 10)]
    assert region_boxes(np.zeros_like(mask), min_area=1) == []
    assert region_boxes(np.full_like(mask, 255), min_area=1) == [Box(0, 0, 60, 40)]
