"""Owns what the engine is asked to do: every choice made, every default filled in."""

from dataclasses import dataclass

from image_edit.conditions import Conditions, Pixels, Region, Size
from image_edit.request import EditRequest

# Of what the model generates, in pixels.
MIN_SIDE = 32
MAX_SIDE = 2048

# For every task. The frontend repeats both for its documentation; a contract test compares them.
DEFAULT_TRUE_CFG_SCALE = 4.0
DEFAULT_GUIDANCE_SCALE = 1.0


@dataclass(frozen=True, eq=False)
class EditSpec:
    """One edit for the engine."""

    task_type: str
    """Selects the adapter."""
    prompt: str
    negative_prompt: str
    images: Pixels
    """The condition images, RGB uint8 [n, height, width, 3], in model order."""
    size: Size
    """Of the picture to generate: multiples of 32."""
    num_inference_steps: int
    """At least 1."""
    true_cfg_scale: float
    """Strength of classifier-free guidance; 1 or less turns it off."""
    guidance_scale: float
    """Only guidance-distilled transformers read it."""
    seed: int
    static_schedule: bool
    """Shift the schedule by the configured amount, not by the picture's size."""


def build_spec(request: EditRequest, conditions: Conditions, region: Region) -> EditSpec:
    """Fill in every default that the client left open; conditioning has decided the task.

    Args:
        request: the client's.
        conditions: built for it.
        region: one of the conditions' regions. All are generated from the same seed.
    """
    true_cfg_scale, guidance_scale = request.true_cfg_scale, request.guidance_scale
    if true_cfg_scale is None:
        true_cfg_scale = DEFAULT_TRUE_CFG_SCALE if guidance_scale is None else guidance_scale
    return EditSpec(
        task_type=conditions.task_type,
        prompt=conditions.prompt,
        negative_prompt=request.negative_prompt,
        images=region.images,
        size=region.canvas,
        num_inference_steps=request.num_inference_steps,
        true_cfg_scale=true_cfg_scale,
        guidance_scale=DEFAULT_GUIDANCE_SCALE if guidance_scale is None else guidance_scale,
        seed=request.seed,
        static_schedule=request.static_schedule,
    )
