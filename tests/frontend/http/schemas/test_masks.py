from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from frontend.domain.masks import MaskPrompts
from frontend.http.schemas.masks import DetectRequest, ExtractRequest, SmartMaskRequest

NULLABLE = [
    "image_id",
    "bbox",
    "point_labels",
    "border_adjustment",
    "use_blur",
    "auto_detect",
    "mask",
    "model_type",
    "request_id",
]


def parse(**changes: Any) -> SmartMaskRequest:
    return SmartMaskRequest.model_validate({"image": "QUJD", "points": [[1, 2]]} | changes)


def test_the_defaults_are_the_contracts() -> None:
    request = parse()
    assert (request.border_adjustment, request.use_blur, request.auto_detect) == (0, False, False)
    assert request.model_type == "segmentation"
    assert request.request_id is None


@pytest.mark.parametrize("field", NULLABLE)
def test_null_is_allowed(field: str) -> None:
    request = parse(**{field: None})
    assert request.model_dump()[field] is None


def test_what_the_client_leaves_out_is_not_sent() -> None:
    assert parse().prompts == MaskPrompts(points=((1.0, 2.0),))
    assert DetectRequest(image="QUJD").prompts == MaskPrompts(auto_detect=True)
    given: dict[str, Any] = {"auto_detect": False, "border_adjustment": 3, "use_blur": True}
    assert parse(**given).prompts == MaskPrompts(points=((1.0, 2.0),), **given)
    finishing: dict[str, Any] = {"border_adjustment": 0, "use_blur": False}
    detect = DetectRequest.model_validate({"image": "QUJD", **finishing})
    assert detect.prompts == MaskPrompts(auto_detect=True, **finishing)


def test_null_is_not_sent_to_the_model() -> None:
    nothing = dict.fromkeys(("auto_detect", "border_adjustment", "use_blur"))
    assert parse(**nothing).prompts == MaskPrompts(points=((1.0, 2.0),))


@pytest.mark.parametrize("prompt", [{"bbox": [0, 0, 1, 1]}, {"mask": "x"}, {"auto_detect": True}])
def test_each_prompt_is_enough(prompt: dict[str, Any]) -> None:
    assert parse(points=None, **prompt)
    assert parse(points=[], **prompt)


def test_the_bounds_are_allowed() -> None:
    assert parse(points=[[2**24, -(2**24)]] * 256, point_labels=[1] * 256)
    for border in (50, -50, 5.0):
        assert parse(border_adjustment=border).border_adjustment == border
    for request_id in ("a-Z_0.9:~" + "x" * 119, "...", ".a", "a."):
        assert parse(request_id=request_id).request_id == request_id


def test_empty_is_as_good_as_absent() -> None:
    request = parse(image_id="", mask="", bbox=[], point_labels=[], request_id="")
    assert request.prompts == parse().prompts


def test_a_box_counts_only_where_there_are_no_points() -> None:
    box = [3.0, 3.0, 3.0, 9.0]
    assert parse(bbox=box).prompts.bbox is None
    with pytest.raises(ValidationError, match="x0 < x1"):
        parse(bbox=box, points=None)
    assert parse(bbox=[1, 2, 3, 4], points=None).prompts.bbox == (1.0, 2.0, 3.0, 4.0)


def test_a_fault_of_the_picture_comes_before_one_of_the_prompts() -> None:
    with pytest.raises(ValidationError, match="Either 'image' or 'image_id'"):
        parse(image=None, points=None)


@pytest.mark.parametrize("schema", [SmartMaskRequest, DetectRequest, ExtractRequest])
def test_the_examples_are_valid(schema: type[SmartMaskRequest]) -> None:
    examples = schema.model_json_schema()["examples"]
    assert examples
    for example in examples:
        assert schema.model_validate(example)
