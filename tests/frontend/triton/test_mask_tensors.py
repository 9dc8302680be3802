from __future__ import annotations

import json
from typing import Any

import pytest

from frontend.domain.masks import MaskPrompts, MaskResult
from frontend.domain.models import MaskModelState
from frontend.errors import BackendError
from frontend.triton import mask_tensors
from tests.fakes.mask_model import mask_response
from tests.fakes.wire import decode

INFO = {"timings": {"select": 0.001, "network": 0.1}, "detections": 3, "box": [0, 0, 8, 8]}
STATE = {
    "model": "masks",
    "cancelled": True,
    "waiting": 1,
    "running": 2,
    "max_queue_size": 8,
    "network_answers": True,
    "cache": {"images": 3, "hits": 4},
}


def answered(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "MASK_IMAGE": b"png",
        "IMAGE_ID": b"id",
        "SCORE": 0.9,
        "CACHED": True,
        "POINTS_MISSED": [0, 2],
        "INFO": json.dumps(INFO).encode(),
    }
    return mask_response(**values | changes)


def test_a_picture_is_sent_with_all_prompts() -> None:
    prompts = MaskPrompts(
        points=((1.5, 2.0), (3.0, 4.0)),
        point_labels=(1, 0),
        bbox=(0.0, 1.0, 2.0, 3.0),
        mask=b"\x00mask",
        auto_detect=True,
        border_adjustment=-5,
        use_blur=False,
    )
    request = mask_tensors.mask_request("job", prompts, b"\x00image")
    assert (request.model_name, request.id) == ("smart_mask", "job")
    assert decode(request.inputs, request.raw_input_contents) == {
        "IMAGE": [b"\x00image"],
        "POINTS": [1.5, 2.0, 3.0, 4.0],
        "POINT_LABELS": [1, 0],
        "BBOX": [0.0, 1.0, 2.0, 3.0],
        "MASK": [b"\x00mask"],
        "AUTO_DETECT": [True],
        "BORDER_ADJUSTMENT": [-5],
        "USE_BLUR": [False],
    }
    points = next(tensor for tensor in request.inputs if tensor.name == "POINTS")
    assert list(points.shape) == [2, 2]


def test_an_id_is_sent_instead_of_a_picture() -> None:
    request = mask_tensors.mask_request("job", MaskPrompts(auto_detect=True), "ab12")
    inputs = decode(request.inputs, request.raw_input_contents)
    assert inputs == {"IMAGE_ID": [b"ab12"], "AUTO_DETECT": [True]}


@pytest.mark.parametrize("job_id", ["", "some-id"])
def test_a_cancel_carries_nothing_else(job_id: str) -> None:
    request = mask_tensors.cancel_request(job_id)
    assert (request.model_name, request.id) == ("smart_mask", "")
    assert decode(request.inputs, request.raw_input_contents) == {"CANCEL": [job_id.encode()]}


def test_a_mask_is_read() -> None:
    timings = {"select": 0.001, "network": 0.1}
    expected = MaskResult(b"png", "id", 0.9, True, points_missed=(0, 2), timings=timings)
    assert mask_tensors.mask_result(answered()) == expected
    assert mask_tensors.mask_result(answered(POINTS_MISSED=[])).points_missed == ()


@pytest.mark.parametrize(
    "change",
    [
        {"IMAGE_ID": 1.0},
        {"IMAGE_ID": b"\xff"},
        {"INFO": b""},
        {"INFO": b"[]"},
        {"INFO": b"{}"},
        {"INFO": b'{"timings": []}'},
        {"INFO": b'{"timings": {"network": "soon"}}'},
    ],
    ids=str,
)
def test_a_broken_answer_is_one_clear_error(change: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="Triton's answer to a mask request is not readable"):
        mask_tensors.mask_result(answered(**change))


def test_an_empty_answer_is_one_clear_error() -> None:
    empty = answered()
    empty.raw_output_contents[:] = [b""] * len(empty.outputs)  # what numpy 2 makes of it
    for response in (empty, mask_response()):
        with pytest.raises(BackendError, match="is not readable"):
            mask_tensors.mask_result(response)


def test_a_ping_tells_what_the_model_holds() -> None:
    response = mask_response(INFO=json.dumps(STATE).encode())
    assert mask_tensors.model_state(response) == MaskModelState(
        cancelled=True,
        bundle="masks",
        waiting=1,
        running=2,
        max_queue_size=8,
        network_answers=True,
        cache={"images": 3, "hits": 4},
    )


@pytest.mark.parametrize("lost", [*STATE, "all"])
def test_a_broken_ping_is_one_clear_error(lost: str) -> None:
    info = {} if lost == "all" else {name: value for name, value in STATE.items() if name != lost}
    for broken in (json.dumps(info).encode(), json.dumps(STATE | {"cache": 1}).encode()):
        with pytest.raises(BackendError, match="Triton's answer to a ping is not readable"):
            mask_tensors.model_state(mask_response(INFO=broken))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POINTS: at most 256", "points: at most 256"),
        ("POINT_LABELS: needs POINTS beside it", "point_labels: needs points beside it"),
        ("BBOX: must be finite numbers", "bbox: must be finite numbers"),
        ("MASK: not a PNG, JPEG file", "mask: not a PNG, JPEG file"),
        ("IMAGE_ID: must be hexadecimal", "image_id: must be hexadecimal"),
        ("IMAGE: damaged", "Failed to cache image: damaged"),
        ("FastSAM did not generate any masks", "FastSAM did not generate any masks"),
        ("MASKS and POINTSMEN", "MASKS and POINTSMEN"),
    ],
)
def test_a_refusal_names_fields(text: str, shown: str) -> None:
    assert mask_tensors.in_field_names(text) == shown
