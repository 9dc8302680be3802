import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edit_conditions.debug import MAX_SIDE, debug_info
from edit_conditions.fill import telea
from edit_conditions.flows import build_conditions
from edit_conditions.images import Pixels
from edit_conditions.masks import as_rgb
from edit_conditions.quality import InputQuality
from edit_conditions.request import EditRequest, MaskTool
from edit_conditions.task import Task

from .pictures import flat, mask_with, noise

IMAGE = noise(100, 80)
MASK = as_rgb(mask_with(100, 80, (40, 20, 30, 30)))
REFERENCE = noise(30, 40)
COMMON = {"conditional_images", "conditional_labels", "input_image_size", "original_image"}


def info(task: Task, **changes: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "image": IMAGE,
        "conditional_images": (MASK,),
        "mask_tool": None,
        "reference_image": None,
        "reference_mask": None,
    }
    request = EditRequest(
        task=task, prompt="x", input_quality=InputQuality.RESIZED, **{**inputs, **changes}
    )
    answer: dict[str, Any] = json.loads(
        debug_info(request, build_conditions(request, telea, shadow_hint=False))
    )
    return answer


def decode(text: str) -> Pixels:
    picture = Image.open(BytesIO(base64.b64decode(text, validate=True)))
    assert picture.format == "PNG"
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("task", "changes", "keys", "labels"),
    [
        (Task.WHITE_BALANCE, {}, set(), ["input", "canny"]),
        (Task.REMOVAL, {}, {"mask_A"}, ["original", "mask", "mae"]),
        (
            Task.REMOVAL,
            {"mask_tool": MaskTool.BRUSH},
            {"mask_A", "mask_mae_dilated"},
            ["original", "mask", "mae"],
        ),
        (Task.INSERTION, {}, {"mask_A"}, ["mask", "masked_bg"]),
        (
            Task.INSERTION,
            {"reference_image": REFERENCE},
            {"mask_A", "reference_image"},
            ["ref_img", "mask", "masked_bg"],
        ),
        (
            Task.INSERTION,
            {"reference_image": REFERENCE, "reference_mask": flat(30, 40, 255)},
            {"mask_A", "reference_image", "reference_mask_R", "positioned_mask_R"},
            ["original", "mask_A", "masked_R", "reference_image", "positioned_mask_R"],
        ),
    ],
)
def test_keys_and_labels_follow_the_flow(
    task: Task, changes: dict[str, Any], keys: set[str], labels: list[str]
) -> None:
    answer = info(task, **changes)
    assert set(answer) == COMMON | keys
    assert answer["conditional_labels"] == labels
    assert len(answer["conditional_images"]) == len(labels)
    for text in (*answer["conditional_images"], *(answer[key] for key in keys)):
        decode(text)


def test_inputs_are_shown_as_sent_and_conditions_as_processed() -> None:
    answer = info(Task.INSERTION, reference_image=REFERENCE)
    assert answer["input_image_size"] == "100x80"
    assert (decode(answer["original_image"]) == IMAGE).all()
    assert (decode(answer["mask_A"]) == MASK).all()
    assert (decode(answer["reference_image"]) == REFERENCE).all()
    shapes = [decode(text).shape for text in answer["conditional_images"]]
    assert shapes == [(512, 512, 3), (512, 512), (512, 512, 3)]


def test_a_picture_larger_than_a_screen_is_shown_smaller() -> None:
    answer = info(Task.WHITE_BALANCE, image=flat(MAX_SIDE * 2, 600, 77))
    assert answer["input_image_size"] == "4096x600"
    shown = decode(answer["original_image"])
    assert shown.shape == (300, MAX_SIDE, 3)
    assert (shown == 77).all()
