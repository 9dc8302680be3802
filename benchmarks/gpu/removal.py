"""Owns the removal that measurements of whole edits ask the engine for."""

import numpy as np
import numpy.typing as npt

from image_edit.engine.engine import EditEngine, EditState
from image_edit.spec import EditSpec

TASK = "removal"
PROMPT = "remove the object"
NEGATIVE_PROMPT = " "
TRUE_CFG_SCALE = 4.0
SEED = 7


def gradient(side: int) -> npt.NDArray[np.uint8]:
    """Return a picture in which every pixel differs from the next, RGB uint8 [side, side, 3]."""
    rows, columns = np.mgrid[0:side, 0:side] * 255 // side
    picture = np.stack([rows, columns, (rows + columns) // 2], axis=-1)
    return picture.astype(np.uint8)  # type: ignore[no-any-return]


def prepared(engine: EditEngine, images: npt.NDArray[np.uint8], steps: int) -> EditState:
    """Return a square removal before its first step.

    Args:
        engine: with an adapter for TASK.
        images: the conditions, RGB uint8 [conditions, side, side, 3].
        steps: denoising steps of the edit.
    """
    side = images.shape[1]
    spec = EditSpec(
        task_type=TASK,
        prompt=PROMPT,
        negative_prompt=NEGATIVE_PROMPT,
        images=images,
        size=(side, side),
        num_inference_steps=steps,
        true_cfg_scale=TRUE_CFG_SCALE,
        guidance_scale=TRUE_CFG_SCALE,
        seed=SEED,
        static_schedule=False,
    )
    preparing = engine.prepare(spec)
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            state: EditState = end.value
            return state
