from __future__ import annotations

from typing import Any

import pytest

from model_kit.errors import Code, CodedError
from smart_mask.request import MAX_POINTS, MaskRequest, read_mask_request

IMAGE: dict[str, Any] = {"IMAGE": [b"file"]}
POINT: dict[str, Any] = {"POINTS": [[1.0, 2.0]]}


def read(**tensors: Any) -> MaskRequest:
    return read_mask_request(tensors, max_bytes=1000)


def test_points_without_labels_are_all_positive() -> None:
    request = read(**IMAGE, POINTS=[[1.0, 2.0], [3.5, 4.0]])
    assert request.image == b"file"
    assert request.points is not None
    assert request.points.tolist() == [[1, 2], [3.5, 4]]
    assert request.positive is not None
    assert request.positive.tolist() == [True, True]
    assert (request.border, request.blur) == (0, False)


def test_everything_that_may_be_given_is_read() -> None:
    request = read(
        **IMAGE,
        **POINT,
        POINT_LABELS=[1],
        BBOX=[1.0, 2.0, 3.0, 4.0],
        MASK=[b"mask"],
        BORDER_ADJUSTMENT=[-7],
        USE_BLUR=[True],
    )
    assert request.box is not None
    assert request.box.tolist() == [1, 2, 3, 4]
    assert (request.guidance, request.border, request.blur) == (b"mask", -7, True)


def test_coordinates_may_lie_far_outside() -> None:
    request = read(**IMAGE, POINTS=[[-5000.0, 9000.0]], BBOX=[-5000.0, 0.0, 9000.0, 70000.0])
    assert request.points is not None
    assert request.points.tolist() == [[-5000, 9000]]


def test_an_image_wins_over_an_id() -> None:
    request = read(**IMAGE, IMAGE_ID=[b"whatever"], AUTO_DETECT=[True])
    assert (request.image, request.image_id) == (b"file", "")


def test_an_id_names_the_image() -> None:
    request = read(IMAGE_ID=[b"0a" * 32], AUTO_DETECT=[True])
    assert (request.image, request.image_id) == (None, "0a" * 32)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (POINT, "IMAGE: either IMAGE or IMAGE_ID"),
        ({**POINT, "IMAGE": [b""]}, "IMAGE: either IMAGE or IMAGE_ID"),
        ({**POINT, "IMAGE_ID": [b"xyz"]}, "IMAGE_ID: must be 64"),
        ({**POINT, "IMAGE_ID": [b"\xff" * 64]}, "IMAGE_ID: must be 64"),
        ({**POINT, "IMAGE_ID": [b"0A" * 32]}, "IMAGE_ID: must be 64"),
        (IMAGE, "POINTS: POINTS, BBOX, MASK or AUTO_DETECT"),
        ({**IMAGE, "AUTO_DETECT": [False]}, "POINTS: POINTS, BBOX, MASK or AUTO_DETECT"),
        ({**IMAGE, "POINTS": [], "BBOX": [], "MASK": [b""]}, "POINTS: POINTS, BBOX"),
        ({**IMAGE, "POINTS": [[1.0, 1.0]] * (MAX_POINTS + 1)}, "POINTS: at most 256 points"),
        ({**IMAGE, "POINTS": [[float("nan"), 1.0]]}, "POINTS: must be finite"),
        ({**IMAGE, "POINTS": [[1.0, float("inf")]]}, "POINTS: must be finite"),
        ({**IMAGE, "POINTS": [[1e9, 1.0]]}, "POINTS: must lie within"),
        ({**IMAGE, **POINT, "POINT_LABELS": [1, 0]}, "POINT_LABELS: 2 labels for 1 points"),
        ({**IMAGE, **POINT, "POINT_LABELS": []}, "POINT_LABELS: 0 labels for 1 points"),
        ({**IMAGE, **POINT, "POINT_LABELS": [2]}, "POINT_LABELS: must each be"),
        ({**IMAGE, **POINT, "POINT_LABELS": [-1]}, "POINT_LABELS: must each be"),
        ({**IMAGE, **POINT, "POINT_LABELS": [0]}, "POINT_LABELS: at least one"),
        ({**IMAGE, "BBOX": [0.0, 0.0, 1.0, 1.0], "POINT_LABELS": [1]}, "POINT_LABELS: needs"),
        ({**IMAGE, "BBOX": [5.0, 0.0, 5.0, 9.0]}, "BBOX: must be x0"),
        ({**IMAGE, "BBOX": [5.0, 9.0, 8.0, 2.0]}, "BBOX: must be x0"),
        ({**IMAGE, "BBOX": [0.0, 0.0, float("nan"), 9.0]}, "BBOX: must be finite"),
        ({**IMAGE, "BBOX": [-1e9, 0.0, 9.0, 9.0]}, "BBOX: must lie within"),
        ({**IMAGE, **POINT, "BORDER_ADJUSTMENT": [51]}, "BORDER_ADJUSTMENT: 51 is not"),
        ({**IMAGE, **POINT, "BORDER_ADJUSTMENT": [-51]}, "BORDER_ADJUSTMENT: -51 is not"),
        ({"IMAGE": [b"x" * 600], "MASK": [b"x" * 600]}, "IMAGE: 1200 bytes with MASK"),
    ],
)
def test_a_bad_input_is_refused_by_name(tensors: dict[str, Any], text: str) -> None:
    with pytest.raises(CodedError) as caught:
        read(**tensors)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(caught.value).startswith(f"[INVALID_ARGUMENT] {text}")
