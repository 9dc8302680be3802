from __future__ import annotations

import numpy as np
import pytest

from smart_mask.features import STRIDE, Features, read_features
from smart_mask.letterbox import Floats, Letterbox

from .objects import SIDE, features

SQUARE = Letterbox.fit(SIDE, SIDE, SIDE)


def predictions(*rows: tuple[float, float, float, float, float]) -> Floats:
    """Anchors of (centre x, centre y, width, height, score), first coefficient 1."""
    made = np.zeros((37, len(rows)), np.float32)
    made[:5] = np.array(rows, np.float32).T
    made[5] = 1
    return made


def read(found: Floats, **options: float) -> Features:
    prototypes = np.ones((32, SIDE // STRIDE, SIDE // STRIDE), np.float32)
    confidence, iou = options.get("confidence", 0.25), options.get("iou", 0.7)
    most = int(options.get("most", 300))
    return read_features(SQUARE, found, prototypes, confidence=confidence, iou=iou, most=most)


def test_detections_are_above_the_confidence_and_in_its_order() -> None:
    found = read(predictions((8, 8, 8, 8, 0.5), (40, 40, 8, 8, 0.9), (20, 50, 8, 8, 0.25)))
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.5)]
    assert found.boxes.tolist() == [[36, 36, 44, 44], [4, 4, 12, 12]]


def test_of_two_boxes_on_the_same_place_the_more_confident_stays() -> None:
    same = predictions((20, 20, 16, 16, 0.6), (21, 20, 16, 16, 0.8), (40, 20, 16, 16, 0.4))
    assert read(same).boxes[:, 0].tolist() == [13, 32]
    assert len(read(same, iou=0.95).scores) == 3


def test_a_dropped_box_drops_no_other() -> None:
    # 2 overlaps 1 too much and 3 overlaps 2 too much, but 3 and 1 have room beside each other.
    chain = predictions((20, 20, 16, 16, 0.9), (22, 20, 16, 16, 0.8), (24, 20, 16, 16, 0.7))
    assert read(chain, iou=0.7).boxes[:, 0].tolist() == [12, 16]


def test_there_are_no_more_than_the_most() -> None:
    many = predictions(
        *[(4 + 8 * (i % 8), 4 + 8 * (i // 8), 6, 6, 0.3 + i / 100) for i in range(30)]
    )
    found = read(many, most=7)
    assert found.scores.tolist() == sorted(many[4].tolist(), reverse=True)[:7]


def test_nothing_confident_gives_no_detection() -> None:
    found = read(predictions((8, 8, 8, 8, 0.1)))
    assert len(found.scores) == len(found.boxes) == len(found.coefficients) == len(found.areas) == 0


def test_areas_count_what_lies_in_the_box() -> None:
    assert read(predictions((32, 32, 32, 16, 0.9))).areas.tolist() == [8 * 4]


def test_a_mask_is_what_its_prototype_says_within_its_box() -> None:
    found = features(((16, 8, 48, 32), 0.9), holes={0: (24, 16, 32, 24)})
    mask = found.mask(0)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    outside = mask.copy()
    outside[8:32, 16:48] = 0
    assert not outside.any()
    assert mask[9, 17] == 255
    assert mask[20, 28] == 0


# cvat-ai/cvat#6250: objects at the picture's border keep a gap
SIDES = {"left": 0, "top": 1, "right": 2, "bottom": 3}


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 128), (2000, 1500)], ids=str)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("short", "reaches"), [(0, True), (1, True), (2.4, True), (2.6, False)])
def test_a_box_that_ends_shortly_before_the_border_goes_on_to_it(
    size: tuple[int, int], side: str, short: float, *, reaches: bool
) -> None:
    box = Letterbox.fit(*size, SIDE)
    edges = [box.left, box.top, box.left + box.inner_width, box.top + box.inner_height]
    found = features(((0, 0, SIDE, SIDE), 0.9), width=size[0], height=size[1])
    inner = np.array(edges, np.float32) + np.array([9, 9, -9, -9], np.float32)
    inner[SIDES[side]] = edges[SIDES[side]] + short * (1 if side in ("left", "top") else -1)
    found.boxes[0] = inner
    widened = found.reaching_border()
    expected = inner.copy()
    if reaches:
        expected[SIDES[side]] = edges[SIDES[side]]
    assert widened.boxes[0].tolist() == expected.tolist()
    rows, columns = np.nonzero(widened.mask(0))
    gaps = (columns.min(), rows.min(), size[0] - 1 - columns.max(), size[1] - 1 - rows.max())
    assert (gaps[SIDES[side]] == 0) == reaches
    assert min(gap for name, gap in zip(SIDES, gaps, strict=True) if name != side) > 0
    whole = (expected[2:] - expected[:2]) / STRIDE
    if reaches and short:
        assert widened.areas[0] == pytest.approx(whole.prod(), rel=1e-3)
    place = np.array([[0, box.height // 2], [box.width - 1, box.height // 2]]).T
    held = widened.hold(*place)[0].tolist()
    assert held == [side == "left" and reaches, side == "right" and reaches]


def test_what_the_prototypes_end_before_the_border_stays_ended() -> None:
    found = features(((0, 0, 64, 64), 0.9), holes={0: (0, 0, 4, 64)})
    found.boxes[0] = [2, 0, 64, 64]
    assert found.reaching_border().boxes[0].tolist() == [0, 0, 64, 64]
    assert not found.reaching_border().mask(0)[:, :2].any()


def test_boxes_over_the_border_and_within_the_picture_stay() -> None:
    found = features(((0, 0, 64, 64), 0.9), ((8, 8, 16, 16), 0.8))
    found.boxes[0] = [-3, -1, 66, 65]
    assert (found.reaching_border().boxes == found.boxes).all()
    assert (found.reaching_border().areas == found.areas).all()
    assert features().reaching_border().boxes.shape == (0, 4)


def test_a_box_beyond_the_border_is_cut_there() -> None:
    found = features(((0, 0, 64, 64), 0.9))
    found.boxes[0] = [-20, -20, 90, 32]
    mask = found.mask(0)
    assert mask[:32].all()
    assert not mask[32:].any()


def test_a_box_without_a_pixel_has_an_empty_mask() -> None:
    found = features(((0, 0, 64, 64), 0.9))
    for box in ([10.2, 10.2, 10.8, 10.8], [-9, -9, -1, -1], [70, 70, 90, 90], [20, 20, 10, 10]):
        found.boxes[0] = box
        assert not found.mask(0).any()


def test_a_mask_on_a_cut_equals_the_mask_on_the_whole() -> None:
    random = np.random.default_rng(1)
    prototypes = random.standard_normal((32, 16, 16)).astype(np.float16)
    coefficients = random.standard_normal((40, 32)).astype(np.float16)
    corners = random.uniform(0, SIDE, (40, 2, 2)).astype(np.float32)
    boxes = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    found = Features(SQUARE, boxes, np.ones(40, np.float32), coefficients, prototypes, boxes[:, 0])
    whole = Features(
        SQUARE,
        np.tile(np.array([0, 0, SIDE, SIDE], np.float32), (40, 1)),
        *(found.scores, coefficients, prototypes, found.areas),
    )
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for index, (left, top, right, bottom) in enumerate(boxes):
        inside = (left <= columns) & (columns < right) & (top <= rows) & (rows < bottom)
        assert (found.mask(index) == whole.mask(index) * inside).all()


@pytest.mark.parametrize("size", [(64, 64), (100, 70), (31, 128), (64, 20), (1, 1)])
def test_pixels_are_held_as_the_masks_have_them(size: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    corners = random.uniform(-5, SIDE + 5, (50, 2, 2)).astype(np.float32)
    boxes = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    found = Features(
        Letterbox.fit(*size, SIDE),
        boxes,
        scores=np.ones(50, np.float32),
        coefficients=random.standard_normal((50, 32)).astype(np.float16),
        prototypes=random.standard_normal((32, 16, 16)).astype(np.float16),
        areas=np.ones(50, np.float32),
    )
    masks = np.array([found.mask(index) for index in range(50)]) > 0
    rows, columns = np.mgrid[: size[1], : size[0]].reshape(2, -1)
    held = found.hold(columns, rows).reshape(masks.shape)
    # A pixel halfway between set and unset ones is a matter of rounding.
    assert (held != masks).mean() < 0.002


def test_coarse_overlaps_are_near_the_true_ones() -> None:
    found = features(((16, 16, 48, 48), 0.9), ((0, 0, 8, 8), 0.8))
    overlaps = found.coarse_overlaps(np.array([8, 8, 32, 32], np.float32))
    assert overlaps.tolist() == [16, 0]
    # Smaller than one pixel of the prototypes: the part of that pixel.
    assert found.coarse_overlaps(np.array([20, 20, 21, 22], np.float32))[0] == 2 / 16


def test_nbytes_are_those_of_all_arrays() -> None:
    assert features(((0, 0, 8, 8), 0.9)).nbytes == 16 + 4 + 64 + 32 * 16 * 16 * 2 + 4
