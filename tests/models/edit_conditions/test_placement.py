import time

import numpy as np
import pytest

from edit_conditions import placement
from edit_conditions.images import Pixels
from edit_conditions.masks import Box, dilate, object_box, region_boxes
from model_kit.errors import CodedError

from .pictures import mask_with


def position_mask(main_mask: Pixels, reference_mask: Pixels) -> Pixels:
    """Place the whole of mask R."""
    return placement.position_mask(main_mask, reference_mask, by_object=False)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((400, 400), (160, 160, 80, 80)),
        ((400, 400), (255, 160, 80, 80)),
        ((600, 400), (360, 180, 80, 80)),
        ((600, 400), (520, 0, 80, 80)),
        ((100, 100), (0, 90, 10, 10)),
    ],
)
def test_an_object_lies_in_the_middle_of_its_region_wherever_it_was(
    size: tuple[int, int], box: Box
) -> None:
    region = Box(285, 60, 110, 110)
    reference_mask = mask_with(*size, box)
    placed = placement.position_mask(mask_with(512, 512, region), reference_mask, by_object=True)
    assert object_box(placed) == region


def test_a_soft_edge_is_kept_around_the_object() -> None:
    ramp = np.minimum(np.arange(100), 99 - np.arange(100)) * 10
    soft = np.minimum(ramp[:, np.newaxis], ramp).clip(0, 255).astype(np.uint8)
    reference_mask = np.zeros((400, 400), np.uint8)
    reference_mask[300:, 300:] = soft
    placed = placement.position_mask(
        mask_with(512, 512, (200, 200, 148, 148)), reference_mask, by_object=True
    )
    row = placed[274].astype(int)
    assert (np.abs(np.diff(row)) < 12).all()
    assert row.max() == 255


THIN = [(20, 40, 256, 1), (40, 20, 1, 256), (20, 299, 150, 1)]


@pytest.mark.parametrize("region", THIN)
@pytest.mark.parametrize("by_object", [True, False])
def test_an_object_is_placed_in_a_region_of_one_pixel_s_width(region: Box, by_object: bool) -> None:
    main_mask = mask_with(300, 300, region)
    for length in range(75, 101):
        # Less may lie half in one pixel and half in the next.
        part = mask_with(100, 100, (0, 0, length, length))
        placed = placement.position_mask(main_mask, part, by_object=by_object)
        assert object_box(placed) is not None, length


@pytest.mark.parametrize("region", THIN)
@pytest.mark.parametrize("by_object", [True, False])
def test_an_object_that_would_shrink_to_nothing_is_named(region: Box, by_object: bool) -> None:
    small = mask_with(100, 100, (10, 10, 3, 50) if region[3] == 1 else (10, 10, 50, 3))
    with pytest.raises(CodedError, match="falls outside the image, or is smaller than a pixel"):
        placement.position_mask(mask_with(300, 300, region), small, by_object=by_object)


@pytest.mark.parametrize("enlarged", [2, 5, 10, 30])
@pytest.mark.parametrize("by_object", [True, False])
def test_nothing_is_set_beyond_an_object_that_is_enlarged(enlarged: int, by_object: bool) -> None:
    reference_mask = mask_with(20, 20, (5, 8, 10, 6))
    region = Box(60, 100, 10 * enlarged, 6 * enlarged)
    placed = placement.position_mask(
        mask_with(500, 500, region), reference_mask, by_object=by_object
    )
    near = dilate(np.where(placed > 127, placed, 0).astype(np.uint8), enlarged + 1)
    assert not placed[near == 0].any()


def test_an_object_keeps_its_aspect_in_the_middle_of_each_region() -> None:
    mask = mask_with(200, 100, (10, 10, 40, 40), (100, 20, 80, 20))
    placed = placement.position_mask(mask, mask_with(90, 90, (70, 0, 20, 20)), by_object=True)
    assert region_boxes(placed, 1) == [Box(10, 10, 40, 40), Box(130, 20, 20, 20)]


def test_the_object_is_scaled_to_fit_its_region() -> None:
    # R's object is 20x10, the region 40x40: scale 2, so 40x20 in the middle of the region.
    positioned = position_mask(
        mask_with(200, 100, (100, 30, 40, 40)), mask_with(40, 30, (10, 10, 20, 10))
    )
    assert positioned.shape == (100, 200)
    assert object_box(positioned) == Box(100, 40, 40, 20)


def test_the_centre_of_the_whole_mask_is_placed_not_that_of_its_object() -> None:
    # Scale 1; R's centre (20, 20) lands on (120, 50), so its corner on (100, 30).
    positioned = position_mask(
        mask_with(200, 100, (115, 45, 10, 10)), mask_with(40, 40, (5, 10, 10, 10))
    )
    assert object_box(positioned) == Box(105, 40, 10, 10)


def test_a_copy_that_would_leave_the_picture_is_moved_inside() -> None:
    # Scale 1; the 40x40 copy around (5, 95) would start at (-15, 75): moved to (0, 60).
    positioned = position_mask(
        mask_with(200, 100, (0, 90, 10, 10)), mask_with(40, 40, (15, 15, 10, 10))
    )
    assert object_box(positioned) == Box(15, 75, 10, 10)


def test_a_copy_larger_than_the_picture_keeps_covering_it() -> None:
    # Scale 3; the 300x300 copy around (50, 50) starts at (-100, -100), object at 120 - 100.
    positioned = position_mask(
        mask_with(100, 100, (20, 20, 60, 60)), mask_with(100, 100, (40, 40, 20, 20))
    )
    assert object_box(positioned) == Box(20, 20, 60, 60)


def test_every_region_gets_its_copy_and_copies_unite() -> None:
    mask = mask_with(200, 100, (20, 20, 20, 20), (100, 20, 40, 40))
    positioned = position_mask(mask, mask_with(30, 30, (10, 10, 10, 10)))
    assert region_boxes(positioned, 1) == [Box(20, 20, 20, 20), Box(100, 20, 40, 40)]
    assert (position_mask(mask, mask_with(10, 10, (0, 0, 10, 10))) == mask).all()


def test_the_edges_are_soft() -> None:
    positioned = position_mask(
        mask_with(100, 100, (20, 20, 60, 60)), mask_with(20, 20, (5, 5, 9, 9))
    )
    assert ((positioned > 0) & (positioned < 255)).any()


def test_an_empty_reference_mask_is_refused() -> None:
    with pytest.raises(
        CodedError, match=r"REFERENCE_MASK_R: No object found in mask \(no white pixels\)"
    ):
        position_mask(mask_with(50, 50, (0, 0, 50, 50)), mask_with(50, 50))


@pytest.mark.parametrize("boxes", [(), ((0, 0, 11, 9),)])
def test_a_mask_without_a_large_region_is_refused(boxes: tuple[Box, ...]) -> None:
    with pytest.raises(
        CodedError,
        match=r"CONDITIONAL_IMAGE_0: No valid mask regions detected in main_mask_A",
    ):
        position_mask(mask_with(50, 50, *boxes), mask_with(50, 50, (0, 0, 9, 9)))


def test_an_object_that_lands_outside_is_refused() -> None:
    # Scale 10; the 1000x1000 copy around (50, 50) shows R's 45..55, its object is at 0..10.
    with pytest.raises(CodedError, match="REFERENCE_MASK_R: its object falls outside"):
        position_mask(mask_with(100, 100, (0, 0, 100, 100)), mask_with(100, 100, (0, 0, 10, 10)))


def test_the_number_of_regions_is_bounded() -> None:
    tiles = np.kron(np.eye(65, dtype=np.uint8) * 255, np.ones((10, 10), dtype=np.uint8))
    with pytest.raises(CodedError, match="65 separate regions, at most 64"):
        position_mask(tiles, mask_with(10, 10, (0, 0, 10, 10)))


def test_an_enormous_scale_costs_no_more_than_the_picture() -> None:
    # One white pixel scaled to the whole picture: the copy itself would be 2,000,000 wide.
    reference_mask = mask_with(2001, 2001, (1000, 1000, 1, 1))
    start = time.process_time()
    positioned = position_mask(mask_with(1000, 1000, (0, 0, 1000, 1000)), reference_mask)
    assert time.process_time() - start < 3
    assert positioned[500, 500] == 255
