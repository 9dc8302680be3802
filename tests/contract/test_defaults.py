"""A request that says nothing gets the same by REST and by gRPC.

The models own every default. The frontend repeats what it needs before a job starts.
"""

from __future__ import annotations

import numpy as np
import pytest

from edit_conditions import request as condition_request
from edit_conditions.task import Task, default_task
from frontend.http.schemas.edits import DEFAULT_STEPS, NO_MASK, GenerationRequest
from image_edit.conditions import Conditions
from image_edit.request import DEFAULT_NUM_INFERENCE_STEPS, read_request
from image_edit.spec import DEFAULT_GUIDANCE, build_spec


def rest(**fields: object) -> GenerationRequest:
    said = {"prompt": "", "input_image": "x", "conditional_images": ["x"], **fields}
    return GenerationRequest.model_validate(said)


def test_steps() -> None:
    assert rest().num_inference_steps == DEFAULT_STEPS == DEFAULT_NUM_INFERENCE_STEPS


@pytest.mark.parametrize("task", Task)
def test_guidance_is_the_same_for_every_task(task: Task) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    conditions = Conditions(picture[None], picture, None, "", task, {})
    by_grpc = read_request({}, static_schedule=False, max_bytes=0)
    spec = build_spec(by_grpc, conditions)
    assert spec.true_cfg_scale == DEFAULT_GUIDANCE == 4.0
    assert rest(task_type=task.value).true_cfg_scale == DEFAULT_GUIDANCE


@pytest.mark.parametrize("reference", [None, "x"])
def test_task(reference: str | None) -> None:
    request = rest(reference_image=reference)
    assert request.resolved_task_type == default_task(reference is not None)


def test_the_words_for_a_missing_mask() -> None:
    assert NO_MASK == condition_request.NO_MASK
