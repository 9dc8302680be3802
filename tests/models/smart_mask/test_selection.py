from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from model_kit.errors import CodedError
from smart_mask import selection as mask_selection
from smart_mask.errors import cancelled
from smart_mask.features import read_features
from smart_mask.letterbox import Letterbox

from .objects import SIDE, features

if TYPE_CHECKING:
    from smart_mask.features import Features

WHOLE = ((8, 8, 56, 56), 0.8)
PART = ((16, 16, 32, 32), 0.7)
FAINT = ((20, 20, 24, 24), 0.3)
AWAY = ((0, 0, 8, 8), 0.9)


def by_points(found: Features, *points: tuple[float, float], negative: int = 0) -> int | None:
    """Select by points of which the last `negative` are negative."""
    labels = np.arange(len(points)) < len(points) - negative
    return mask_selection.by_points(found, np.array(points, np.float32), labels)


def by_box(found: Features, *box: float) -> int | None:
    return mask_selection.by_box(found, np.array(box, np.float32), lambda: None)


def test_a_point_takes_the_smallest_confident_mask_that_holds_it() -> None:
    found = features(WHOLE, PART, FAINT)
    assert by_points(found, (22, 22)) == 1
    assert by_points(found, (50, 50)) == 0
    assert by_points(found, (2, 2)) is None


def test_a_faint_mask_is_taken_where_no_better_one_holds_the_point() -> None:
    assert by_points(features(AWAY, FAINT), (22, 22)) == 1


def test_all_positive_points_have_to_be_held() -> None:
    assert by_points(features(WHOLE, PART), (20, 20), (50, 50)) == 0


def test_where_no_mask_holds_all_points_the_most_count() -> None:
    found = features(PART, ((40, 40, 56, 56), 0.9))
    assert by_points(found, (20, 20), (44, 44), (50, 50)) == 1


def test_a_negative_point_rules_out_what_holds_it() -> None:
    found = features(WHOLE, PART)
    assert by_points(found, (20, 20), (24, 24), negative=1) is None
    assert by_points(found, (20, 20), (50, 50), negative=1) == 1
    assert by_points(found, (50, 50), (20, 20), negative=1) is None


def test_a_hole_in_a_mask_does_not_hold_a_point() -> None:
    ring = features(WHOLE, holes={0: (16, 16, 48, 48)})
    assert by_points(ring, (30, 30)) is None
    assert by_points(ring, (10, 30)) == 0


def test_no_mask_holds_a_point_beyond_the_border() -> None:
    found = features(((0, 0, 64, 64), 0.9))
    for point in ((0, 0), (-0.0, 63), (63.9, 63.9)):
        assert by_points(found, point) == 0
    for point in ((-0.1, 30), (30, -1), (-5, -5), (64, 30), (30, 64), (1e6, 30)):
        assert by_points(found, point) is None
        assert by_points(found, (30, 30), point) == 0
        assert by_points(found, (30, 30), point, negative=1) == 0


def test_points_are_in_pixels_of_the_picture() -> None:
    found = features(PART, width=128, height=64)  # the square's rows 16 to 47 are the picture
    assert by_points(found, (34, 4)) == 0
    assert by_points(found, (34, 40)) is None


def test_a_box_takes_the_best_intersection_over_union() -> None:
    found = features(WHOLE, PART, FAINT)
    assert by_box(found, 16, 16, 32, 32) == 1
    assert by_box(found, 10, 10, 60, 60) == 0
    assert by_box(found, 20, 20, 25, 25) == 2


def test_a_box_that_overlaps_nothing_finds_nothing() -> None:
    found = features(PART, AWAY)
    assert by_box(found, 40, 40, 60, 60) is None
    assert by_box(found, 100, 100, 200, 200) is None


def test_a_box_of_one_pixel_takes_the_smallest_mask_there() -> None:
    found = features(WHOLE, PART)
    assert by_box(found, 20, 20, 21, 21) == 1
    assert by_box(found, 50, 50, 51, 51) == 0


def test_a_box_beyond_the_border_is_cut_there() -> None:
    found = features(AWAY, WHOLE)
    assert by_box(found, -50, -50, 9, 9) == 0


def test_a_box_beyond_the_border_by_less_than_a_pixel_finds_nothing() -> None:
    found = features(((0, 0, 64, 64), 0.9))
    assert by_box(found, -0.9, 5, -0.1, 9) is None
    assert by_box(found, 5, -0.9, 9, -0.1) is None
    assert by_box(found, -0.9, 5, 0.1, 9) == 0


def test_a_box_finds_a_mask_that_touches_it_behind_many_that_come_close() -> None:
    """The coarse comparison ranks; only exact overlaps decide."""
    ring = ((0, 0, 64, 64), 0.9)
    hollow = dict.fromkeys(range(12), (4, 4, 60, 60))
    found = features(*[ring] * 12, ((28, 28, 36, 36), 0.3), holes=hollow)
    assert by_box(found, 30, 30, 34, 34) == 12


def test_of_equal_masks_the_more_confident_is_taken() -> None:
    found = features(((16, 16, 32, 32), 0.8), ((16, 16, 32, 32), 0.6))
    assert by_box(found, 12, 12, 30, 30) == 0


def test_no_detection_is_no_object() -> None:
    nothing = features()
    assert by_points(nothing, (3, 3)) is None
    assert by_box(nothing, 0, 0, 9, 9) is None
    assert mask_selection.most_salient(nothing) is None


def test_a_box_within_one_pixel_is_that_pixel() -> None:
    assert by_box(features(WHOLE, PART), 20.2, 20.2, 20.8, 20.8) == 1


def test_a_box_can_be_cancelled_between_two_comparisons() -> None:
    def check() -> None:
        raise cancelled()

    with pytest.raises(CodedError, match="CANCELLED"):
        mask_selection.by_box(features(WHOLE), np.array([8, 8, 50, 50], np.float32), check)


@pytest.mark.parametrize("size", [(64, 64), (53, 215), (300, 40), (97, 64)])
def test_no_mask_has_a_better_overlap_than_the_chosen_one(size: tuple[int, int]) -> None:
    """Against every mask, on random smooth ones; many reach over the letterbox's bars."""
    random = np.random.default_rng(3)
    corners = random.uniform(-4, SIDE + 4, (40, 2, 2)).astype(np.float32)
    coefficients = random.standard_normal((40, 32)).astype(np.float32)
    boxes = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    predictions = np.vstack(
        [
            (boxes[:, :2] + boxes[:, 2:]).T / 2,
            (boxes[:, 2:] - boxes[:, :2]).T,
            random.uniform(0.3, 0.9, (1, 40)),
            coefficients.T,
        ]
    ).astype(np.float32)
    coarse = random.standard_normal((32, 4, 4)).astype(np.float32)
    prototypes = np.array([cv2.resize(each, (16, 16)) for each in coarse])
    found = read_features(
        Letterbox.fit(*size, SIDE), predictions, prototypes, confidence=0.2, iou=0.7, most=300
    )
    masks = [found.mask(index) > 0 for index in range(len(found.scores))]
    worse = 0
    for _ in range(150):
        ends = random.uniform(0, size, (2, 2))
        left, top = ends.min(axis=0).astype(int).tolist()
        right, bottom = (ends.max(axis=0).astype(int) + 1).tolist()
        area = (right - left) * (bottom - top)
        overlaps = []
        for mask in masks:
            inside = np.count_nonzero(mask[top:bottom, left:right])
            overlaps.append(inside / (area + np.count_nonzero(mask) - inside))
        chosen = by_box(found, left, top, right, bottom)
        own = 0.0 if chosen is None else overlaps[chosen]
        worse += own < max(overlaps) - 0.02
    assert worse <= 3  # the coarse comparison may err on a sliver


def test_the_salient_object_is_large_central_and_sure() -> None:
    middle = ((24, 24, 40, 40), 0.7)
    corner = ((0, 0, 16, 16), 0.7)
    small = ((28, 28, 32, 32), 0.9)
    assert mask_selection.most_salient(features(corner, middle)) == 1
    assert mask_selection.most_salient(features(small, middle)) == 1
    assert mask_selection.most_salient(features(((24, 24, 40, 40), 0.3), middle)) == 1


def test_saliency_weighs_size_by_its_side_and_place_by_half() -> None:
    # Four times the area is twice the weight: confidence decides on which side of that it is.
    large, small = (16, 16, 48, 48), (24, 24, 40, 40)
    assert mask_selection.most_salient(features((small, 0.9), (large, 0.5))) == 1
    assert mask_selection.most_salient(features((small, 0.9), (large, 0.4))) == 0
    # In the corner an object of the same size counts for a little more than half.
    corner, middle = (0, 0, 16, 16), (24, 24, 40, 40)
    assert mask_selection.most_salient(features((corner, 0.9), (middle, 0.6))) == 1
    assert mask_selection.most_salient(features((corner, 0.9), (middle, 0.5))) == 0


def test_a_smaller_mask_has_to_be_nearly_as_sure() -> None:
    fraction = mask_selection.CONFIDENT_FRACTION
    assert by_points(features(WHOLE, ((16, 16, 32, 32), 0.8 * fraction + 0.01)), (20, 20)) == 1
    assert by_points(features(WHOLE, ((16, 16, 32, 32), 0.8 * fraction - 0.01)), (20, 20)) == 0
    assert 0.6 < fraction < 0.8


def test_a_detection_without_a_mask_is_no_object() -> None:
    empty = features(((16, 16, 32, 32), 0.9), holes={0: (16, 16, 32, 32)})
    assert mask_selection.most_salient(empty) is None
    assert by_box(empty, 10, 10, 40, 40) is None


def test_the_background_is_salient_only_by_itself() -> None:
    background = ((0, 0, 64, 64), 0.95)
    assert mask_selection.most_salient(features(background, FAINT)) == 1
    assert mask_selection.most_salient(features(background)) == 0
