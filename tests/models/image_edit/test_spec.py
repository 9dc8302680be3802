from typing import Any

import numpy as np
import pytest

from image_edit.spec import Size, build_spec, generation_size, output_size

from .edits import conditions_of, request_of


@pytest.mark.parametrize(
    ("output", "generated"),
    [
        ((1024, 768), (1024, 768)),
        ((301, 263), (288, 256)),
        ((2048, 2048), (2048, 2048)),
        ((4096, 2048), (2048, 1024)),
        ((8000, 2000), (2048, 512)),
        ((2049, 2049), (2048, 2048)),
        ((4000, 100), (2048, 48)),
        ((20, 20), (32, 32)),
        ((47, 4096), (32, 2048)),
    ],
)
def test_generation_is_on_the_grid_and_bounded(output: Size, generated: Size) -> None:
    assert generation_size(output) == generated


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (50, 40)),
        ({"WIDTH": 301}, (301, 40)),
        ({"HEIGHT": 263}, (50, 263)),
        ({"WIDTH": 301, "HEIGHT": 263}, (301, 263)),
    ],
)
def test_the_output_is_as_asked_else_as_the_processed_input(
    asked: dict[str, int], size: Size
) -> None:
    conditions = conditions_of(source=np.zeros((40, 50, 3), np.uint8))
    assert output_size(request_of(**asked), conditions) == size


@pytest.mark.parametrize(
    ("task_type", "asked", "true_cfg_scale", "guidance_scale"),
    [
        ("removal", {}, 4.0, 4.0),
        ("white-balance", {}, 4.0, 4.0),
        ("removal", {"GUIDANCE_SCALE": 6.0}, 6.0, 6.0),
        ("white-balance", {"GUIDANCE_SCALE": 6.0}, 6.0, 6.0),
        ("removal", {"TRUE_CFG_SCALE": 1.0}, 1.0, 4.0),
        ("removal", {"TRUE_CFG_SCALE": 2.0, "GUIDANCE_SCALE": 6.0}, 2.0, 6.0),
    ],
)
def test_guidance(
    task_type: str, asked: dict[str, float], true_cfg_scale: float, guidance_scale: float
) -> None:
    spec = build_spec(request_of(**asked), conditions_of(task_type=task_type))
    assert (spec.true_cfg_scale, spec.guidance_scale) == (true_cfg_scale, guidance_scale)


def test_everything_else_is_handed_on() -> None:
    asked: dict[str, Any] = {"SEED": 5, "ENABLE_FLOWMATCH_SCHEDULER": True, "WIDTH": 300}
    conditions = conditions_of()
    spec = build_spec(request_of(NEGATIVE_PROMPT=b"blurry", **asked), conditions)
    assert spec.prompt == "remove it"
    assert spec.negative_prompt == "blurry"
    assert spec.task_type == "removal"
    assert spec.images is conditions.images
    assert spec.size == (288, 64)
    assert spec.num_inference_steps == 3
    assert spec.seed == 5
    assert spec.static_schedule is True
