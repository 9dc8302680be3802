"""Small pictures and encoded files for the tests of edit_conditions."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from edit_conditions.images import Pixels
from edit_conditions.quality import InputQuality
from edit_conditions.request import ConditionsRequest
from edit_conditions.task import Task
from model_kit.pictures import Picture


def encode(pixels: Pixels | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(width: int, height: int, colour: int | tuple[int, int, int]) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def mask_with(width: int, height: int, *boxes: tuple[int, int, int, int]) -> Pixels:
    """Return a black mask with white boxes of (left, top, width, height)."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for left, top, box_width, box_height in boxes:
        mask[top : top + box_height, left : left + box_width] = 255
    return mask


def edit(
    task: Task, image: Pixels, mask: Pixels | None = None, **changes: Any
) -> ConditionsRequest:
    """Return an edit of an opaque sRGB picture in its own size, with the changes made."""
    inputs: dict[str, Any] = {
        "prompt": "x",
        "input_quality": InputQuality.ORIGINAL,
        "mask_tool": None,
        "picture": Picture(image, None, None),
        "mask": mask if task.needs_mask else None,
    }
    return ConditionsRequest(task=task, **{**inputs, **changes})
