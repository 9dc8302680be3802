"""A request that says nothing gets the same by REST and by gRPC."""

from __future__ import annotations

import numpy as np
import pytest

from edit_conditions.request import DEFAULT_IMAGE_AREA
from edit_conditions.task import default_task
from export.qwen.bundle import IMAGE_AREA
from frontend.http.schemas.edits import GenerationRequest
from frontend.http.schemas.masks import SmartMaskRequest
from image_edit import spec
from image_edit.conditions import Box, Conditions, Region
from image_edit.engine.bundle import QWEN_IMAGE_AREA
from image_edit.request import read_edit_request
from smart_mask.request import read_mask_request
from tests.fakes.web_client import edit


@pytest.mark.parametrize("task", ["insertion", "removal", "white-balance"])
def test_an_edits_documented_defaults_are_the_models(task: str) -> None:
    documented = GenerationRequest(prompt="", input_image="x", conditional_images=["x"])
    request = read_edit_request({}, static_schedule=False, max_bytes=0)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    region = Region(Box(0, 0, 32, 32), (32, 32), images, None)
    conditions = Conditions(
        picture=images[0],
        profile=None,
        regions=(region,),
        composited=False,
        in_place=False,
        square=None,
        size=(32, 32),
        prompt="",
        task_type=task,
        debug_info={},
    )
    built = spec.build_spec(request, conditions, region)
    assert built.num_inference_steps == documented.num_inference_steps
    assert built.true_cfg_scale == documented.true_cfg_scale
    assert built.guidance_scale == documented.guidance_scale
    assert request.preview == bool(documented.preview)
    # The models take an absent region for the whole picture.
    assert documented.region is None
    assert request.region == "full"
    assert "REGION" not in request.condition_inputs


def test_a_model_without_an_area_has_that_of_qwen() -> None:
    assert DEFAULT_IMAGE_AREA == QWEN_IMAGE_AREA == IMAGE_AREA


@pytest.mark.parametrize("reference", [None, "x"])
def test_an_open_task_is_decided_alike(reference: str | None) -> None:
    request = GenerationRequest.model_validate(edit(task_type=None, reference_image=reference))
    assert request.resolved_task_type == default_task(bool(reference))


def test_a_masks_documented_defaults_are_the_models() -> None:
    documented = SmartMaskRequest.model_validate({"image": "QUJD", "auto_detect": True})
    request = read_mask_request({"IMAGE": [b"x"], "AUTO_DETECT": [True]}, max_bytes=1)
    assert (request.border, request.blur) == (documented.border_adjustment, documented.use_blur)
