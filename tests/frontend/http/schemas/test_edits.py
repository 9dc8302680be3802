from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from pydantic import ValidationError

from frontend.domain.edits import Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.http.schemas.edits import (
    LOADING_MESSAGES,
    OUTAGE_MESSAGE,
    GenerationRequest,
    GenerationResult,
    result_frame,
    stream_event,
    task_status,
    without_debug,
)
from tests.fakes.web_client import edit

NULLABLE = [
    "reference_image",
    "reference_mask_R",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
    "seed",
    "task_type",
    "angle",
    "background_preset",
    "input_quality",
    "enable_flowmatch_scheduler",
    "mask_tool_type",
    "preview",
    "debug",
]


def parse(**changes: Any) -> GenerationRequest:
    return GenerationRequest.model_validate(edit(**changes))


def event(**changes: Any) -> JobEvent:
    known: dict[str, Any] = {"status": JobStatus.PROCESSING, "total_steps": 4, "at": time.time()}
    return JobEvent(**known | changes)


def test_the_defaults_are_the_contracts() -> None:
    request = GenerationRequest(prompt="p", input_image="i", conditional_images=["m"])
    assert request.num_inference_steps == 10
    assert request.guidance_scale == 1.0
    assert request.true_cfg_scale == 4.0
    open_fields = set(NULLABLE) - {"num_inference_steps", "guidance_scale", "true_cfg_scale"}
    shown = request.model_dump(by_alias=True)
    assert {shown[name] for name in open_fields} == {None}


def test_what_the_client_leaves_out_is_not_sent() -> None:
    request = GenerationRequest(prompt="p", input_image="i", conditional_images=["m"])
    admission = {"task_type": "removal", "num_inference_steps": 10}
    assert request.parameters == {"prompt": "p", **admission}
    given = {"preview": False, "width": 256, "seed": 3, "num_inference_steps": 4}
    assert parse(**given).parameters.items() >= given.items()
    assert parse(task_type="insertion").parameters["task_type"] == "insertion"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"true_cfg_scale": 2.0}, {"true_cfg_scale": 2.0, "guidance_scale": 1.0}),
        ({"true_cfg_scale": None}, {"true_cfg_scale": None, "guidance_scale": 1.0}),
        ({"guidance_scale": 6.0}, {"true_cfg_scale": 4.0, "guidance_scale": 6.0}),
        ({"guidance_scale": None}, {"true_cfg_scale": 4.0, "guidance_scale": None}),
        (
            {"true_cfg_scale": None, "guidance_scale": 6.0},
            {"true_cfg_scale": None, "guidance_scale": 6.0},
        ),
    ],
)
def test_guidance_means_what_is_documented_whichever_field_is_given(
    given: dict[str, Any], sent: dict[str, Any]
) -> None:
    parameters = parse(**given).parameters
    scales = ("true_cfg_scale", "guidance_scale")
    assert {name: parameters[name] for name in scales if name in parameters} == sent


@pytest.mark.parametrize("field", NULLABLE)
def test_null_is_allowed(field: str) -> None:
    assert parse(**{field: None}).model_dump(by_alias=True)[field] is None


@pytest.mark.parametrize("field", ["width", "height", "num_inference_steps", "seed"])
def test_a_whole_number_may_be_written_with_a_point(field: str) -> None:
    assert parse(**{field: 300.0 if field != "num_inference_steps" else 30.0})
    for value in (300.5, math.nan, math.inf, "300", True):
        with pytest.raises(ValidationError):
            parse(**{field: value})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, []),
        ({"conditional_images": ["m", "x"]}, []),
        ({"task_type": "white-balance", "conditional_images": None}, []),
        ({"task_type": "white-balance", "conditional_images": []}, []),
        ({"task_type": "white-balance"}, ["conditional_images"]),
        (
            {"task_type": "white-balance", "reference_image": "r"},
            ["conditional_images", "reference_image"],
        ),
        ({"task_type": "removal", "reference_image": "r"}, ["reference_image"]),
        (
            {"task_type": "removal", "reference_image": "r", "reference_mask_R": "m"},
            ["reference_image"],
        ),
        ({"task_type": None, "reference_image": "r", "conditional_images": ["m", "x"]}, []),
        ({"task_type": None, "reference_image": "r", "reference_mask_R": "m"}, []),
        (
            {
                "task_type": "insertion",
                "reference_image": "r",
                "reference_mask_R": "m",
                "conditional_images": ["m", "x"],
            },
            ["conditional_images"],
        ),
    ],
)
def test_a_picture_that_the_task_has_no_use_for_is_named(
    fields: dict[str, Any], named: list[str]
) -> None:
    assert [each.partition(":")[0] for each in parse(**fields).warnings] == named


def test_unknown_fields_are_ignored() -> None:
    request = parse(mask_image="legacy", enable_debug=True, refine_mask_with_birefnet=True)
    assert "mask_image" not in request.model_dump()


@pytest.mark.parametrize(
    ("task_type", "reference", "resolved"),
    [
        (None, None, "removal"),
        (None, "", "removal"),
        (None, "x", "insertion"),
        ("removal", "x", "removal"),
        ("insertion", None, "insertion"),
        ("white-balance", "x", "white-balance"),
    ],
)
def test_the_task_is_decided_where_it_is_open(
    task_type: str | None, reference: str | None, resolved: str
) -> None:
    assert parse(task_type=task_type, reference_image=reference).resolved_task_type == resolved


def test_the_examples_are_valid() -> None:
    examples = GenerationRequest.model_json_schema()["examples"]
    assert {GenerationRequest.model_validate(each).resolved_task_type for each in examples} == {
        "removal",
        "insertion",
        "white-balance",
    }


def test_a_status_has_the_contracts_keys() -> None:
    status = task_status("a", event(status=JobStatus.QUEUED, queue_position=2, eta_seconds=None))
    assert status.model_dump(mode="json") == {
        "task_id": "a",
        "status": "queued",
        "progress": 0.0,
        "current_step": 0,
        "total_steps": 4,
        "error": None,
        "loading_message": None,
        "stage": None,
        "queue_position": 2,
        "eta_seconds": None,
        "restarts": 0,
        "size": None,
        "computed_sizes": None,
    }


def test_a_status_counts_down_from_its_event() -> None:
    at = time.time() - 10
    left_s = task_status("a", event(eta_seconds=30.0, at=at)).eta_seconds
    assert left_s == pytest.approx(20, abs=1)
    assert left_s is not None
    assert left_s == round(left_s, 3)
    assert task_status("a", event(eta_seconds=3.0, at=at)).eta_seconds == 0
    assert stream_event("a", event(eta_seconds=3.0, at=at)).eta_seconds == 3


def test_a_loading_message_is_there_while_the_job_is_prepared() -> None:
    for stage in Stage:
        message = stream_event("a", event(stage=stage)).loading_message
        assert (message is not None) == (stage in ("loading", "conditioning", "encoding"))
    # Triton takes a job ahead, which has no place in the queue and waits in this stage.
    assert "waiting for the engine" in LOADING_MESSAGES[Stage.CONDITIONING]
    # The known client takes these letters for a lack of memory.
    shown = (*LOADING_MESSAGES.values(), OUTAGE_MESSAGE)
    assert not any("oom" in message.lower() for message in shown)


def test_a_job_that_waits_for_triton_says_how_far_that_is() -> None:
    away = event(status=JobStatus.QUEUED, stage=None, triton_down=True)
    assert task_status("a", away).loading_message == OUTAGE_MESSAGE
    telling = event(
        status=JobStatus.QUEUED, stage=None, triton_down=True, triton_loading="warming up"
    )
    assert task_status("a", telling).loading_message == f"{OUTAGE_MESSAGE}: warming up"


def test_a_preview_is_base64() -> None:
    assert stream_event("a", event(preview=b"webp")).preview_image == "d2VicA=="
    assert stream_event("a", event()).preview_image is None


def test_a_result_takes_in_the_models_own_json() -> None:
    info = {
        "debug_info": {"conditional_labels": ["mặt nạ", "}"]},
        "model_used": "demo_removal",
        "parameters_used": {"seed": 1},
        "generation_time": 1.5,
        "timings": {"denoising": 1.0},
    }
    before, behind = result_frame("a")
    model_s = json.dumps(info).encode()
    body = before + b"cG5n" + behind + model_s[1:]
    assert json.loads(without_debug(model_s)) == info | {"debug_info": None}
    result = GenerationResult.model_validate_json(body)
    assert (
        json.loads(body)
        == result.model_dump()
        == info
        | {
            "task_id": "a",
            "request_id": "a",
            "status": "done",
            "success": True,
            "image": "cG5n",
        }
    )
