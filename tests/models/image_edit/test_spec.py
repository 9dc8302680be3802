from typing import Any

import pytest

from image_edit.spec import build_spec

from .edits import conditions_of, request_of


@pytest.mark.parametrize(
    ("task_type", "asked", "true_cfg_scale", "guidance_scale"),
    [
        ("removal", {}, 4.0, 1.0),
        ("white-balance", {}, 4.0, 1.0),
        ("removal", {"GUIDANCE_SCALE": 6.0}, 6.0, 6.0),
        ("white-balance", {"GUIDANCE_SCALE": 6.0}, 6.0, 6.0),
        ("removal", {"TRUE_CFG_SCALE": 1.0}, 1.0, 1.0),
        ("removal", {"TRUE_CFG_SCALE": 2.0, "GUIDANCE_SCALE": 6.0}, 2.0, 6.0),
    ],
)
def test_guidance(
    task_type: str, asked: dict[str, float], true_cfg_scale: float, guidance_scale: float
) -> None:
    conditions = conditions_of(task_type=task_type)
    spec = build_spec(request_of(**asked), conditions, conditions.regions[0])
    assert (spec.true_cfg_scale, spec.guidance_scale) == (true_cfg_scale, guidance_scale)


def test_everything_else_is_handed_on() -> None:
    asked: dict[str, Any] = {"SEED": 5, "ENABLE_FLOWMATCH_SCHEDULER": True, "WIDTH": 300}
    conditions = conditions_of()
    [region] = conditions.regions
    spec = build_spec(request_of(NEGATIVE_PROMPT=b"blurry", **asked), conditions, region)
    assert spec.prompt == "remove it"
    assert spec.negative_prompt == "blurry"
    assert spec.task_type == "removal"
    assert spec.images is region.images
    assert spec.size == (64, 64)
    assert spec.num_inference_steps == 3
    assert spec.seed == 5
    assert spec.static_schedule is True
