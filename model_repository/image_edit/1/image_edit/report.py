"""Owns INFO: what an edit will compute, and at its end what was done and how long it took."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from image_edit.conditions import Conditions
from image_edit.messages import Stage
from image_edit.request import EditRequest
from image_edit.spec import EditSpec


def build_plan_info(conditions: Conditions, expected_seconds: float | None) -> str:
    """Write the INFO that comes before the engine begins.

    Args:
        conditions: built for the request.
        expected_seconds: from now to the end; None: unknown.

    Returns:
        JSON object: size and computed_sizes (width and height in pixels; one for each region), and
        expected_seconds.
    """
    return json.dumps(
        {
            "size": conditions.size,
            "computed_sizes": [region.canvas for region in conditions.regions],
            "expected_seconds": None if expected_seconds is None else round(expected_seconds, 3),
        }
    )


def build_info(
    request: EditRequest,
    conditions: Conditions,
    spec: EditSpec,
    *,
    distilled: bool,
    bundle: str,
    adapters: Sequence[str],
    timings: Mapping[str, float],
) -> str:
    """Write the INFO of the last response.

    Args:
        request: as the client sent it.
        conditions: built for the request.
        spec: what the engine was asked to do.
        distilled: whether the transformer reads guidance_scale.
        bundle: name of the bundle.
        adapters: task types that the bundle serves.
        timings: seconds by `Stage`; LOADING is the wait before the edit's turn.

    Returns:
        JSON object: debug_info (null if the client wants none), parameters_used, model_used,
        generation_time (seconds, without the wait) and timings.
    """
    generation_time = round(sum(timings.values()) - timings[Stage.LOADING], 3)
    size = "{}x{}".format(*conditions.size)
    return json.dumps(
        {
            "debug_info": None
            if conditions.debug_info is None
            else {
                **conditions.debug_info,
                "output_image_size": size,
                "lora_adapter": spec.task_type,
                "loaded_adapters": list(adapters),
            },
            "parameters_used": {
                "prompt": spec.prompt,
                "negative_prompt": spec.negative_prompt,
                "num_inference_steps": spec.num_inference_steps,
                "guidance_scale": spec.guidance_scale if distilled else spec.true_cfg_scale,
                "true_cfg_scale": spec.true_cfg_scale,
                "seed": spec.seed,
                "image_size": size,
                "region": request.region,
                "regions": [
                    {
                        "box": region.box.edges,
                        "computed_size": "{}x{}".format(*region.canvas),
                    }
                    for region in conditions.regions
                ],
                "generation_time": generation_time,
                "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
                "has_reference_image": request.has_reference_image,
                "task_type": spec.task_type,
            },
            "model_used": f"{bundle}_{spec.task_type}",
            "generation_time": generation_time,
            "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        }
    )
