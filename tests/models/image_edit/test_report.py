import json
from datetime import datetime, timedelta
from typing import Any

from image_edit.messages import Stage
from image_edit.report import build_info
from image_edit.spec import build_spec

from .edits import conditions_of, request_of

TIMINGS: dict[str, float] = {
    Stage.LOADING: 100.0,
    Stage.CONDITIONING: 0.1,
    Stage.ENCODING: 0.2,
    Stage.DENOISING: 3.0,
    Stage.DECODING: 0.4,
}


def info(distilled: bool = False, **inputs: Any) -> dict[str, Any]:
    request, conditions = request_of(**inputs), conditions_of(size=(301, 263))
    text = build_info(
        request,
        conditions,
        build_spec(request, conditions, conditions.regions[0]),
        distilled=distilled,
        bundle="demo",
        adapters=("insertion", "removal"),
        timings=TIMINGS,
    )
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_all_that_is_reported() -> None:
    report = info(TRUE_CFG_SCALE=2.5, GUIDANCE_SCALE=6.0)
    timestamp = report["parameters_used"].pop("timestamp")
    assert datetime.fromisoformat(timestamp).utcoffset() == timedelta(0)
    assert report == {
        "debug_info": {
            "mask_A": "abc",
            "output_image_size": "301x263",
            "lora_adapter": "removal",
            "loaded_adapters": ["insertion", "removal"],
        },
        "parameters_used": {
            "prompt": "remove it",
            "negative_prompt": " ",
            "num_inference_steps": 3,
            "guidance_scale": 2.5,
            "true_cfg_scale": 2.5,
            "seed": 7,
            "image_size": "301x263",
            "generation_time": 3.7,
            "has_reference_image": False,
            "task_type": "removal",
            "region": "full",
            "regions": [{"box": [0, 0, 64, 64], "computed_size": "64x64"}],
        },
        "model_used": "demo_removal",
        "generation_time": 3.7,
        "timings": {
            "loading": 100.0,
            "conditioning": 0.1,
            "encoding": 0.2,
            "denoising": 3.0,
            "decoding": 0.4,
        },
    }


def test_guidance_scale_is_what_was_in_effect() -> None:
    scales = {"TRUE_CFG_SCALE": 2.5, "GUIDANCE_SCALE": 6.0}
    assert info(distilled=True, **scales)["parameters_used"]["guidance_scale"] == 6.0


def test_a_reference_is_reported() -> None:
    assert info(REFERENCE_IMAGE=b"x")["parameters_used"]["has_reference_image"] is True


def test_the_region_is_reported_as_the_client_wrote_it() -> None:
    assert info(REGION=b"[1, 2, 30, 40]")["parameters_used"]["region"] == "[1, 2, 30, 40]"
