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
from edit_conditions.plan import plan
from edit_conditions.quality import InputQuality
from edit_conditions.request import MaskTool
from edit_conditions.task import Task
from model_kit.pictures import Picture

from .pictures import edit, flat, mask_with, noise

IMAGE = noise(100, 80)
MASK = mask_with(100, 80, (40, 20, 30, 30))
REFERENCE = noise(30, 40)
COMMON = {"conditional_images", "conditional_labels", "input_image_size", "original_image"}


def info(task: Task, image: Pixels = IMAGE, mask: Pixels = MASK, **changes: Any) -> dict[str, Any]:
    request = edit(task, image, mask, **{"input_quality": InputQuality.RESIZED, **changes})
    conditions = [
        build_conditions(request, scene, telea, shadow_hint=False)
        for scene in plan(request, shadow_hint=False).scenes
    ]
    answer: dict[str, Any] = json.loads(debug_info(request, conditions))
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
            {"reference_image": REFERENCE, "reference_mask": flat(30, 40, 255)[..., 0]},
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
    assert shapes == [(409, 512, 3), (409, 512), (409, 512, 3)]


def test_a_transparent_picture_is_shown_on_white() -> None:
    alpha = mask_with(100, 80, (0, 0, 50, 80))
    shown = decode(info(Task.REMOVAL, picture=Picture(IMAGE, alpha, None))["original_image"])
    assert (shown[:, :50] == IMAGE[:, :50]).all()
    assert (shown[:, 50:] == 255).all()


def test_a_second_region_has_labels_and_masks_of_its_own() -> None:
    image = flat(3000, 600, 90)
    mask = mask_with(3000, 600, (100, 100, 40, 40), (2800, 400, 60, 60))
    answer = info(
        Task.REMOVAL,
        image,
        mask,
        mask_tool=MaskTool.BRUSH,
        region="auto",
        image_area=512 * 512,
    )
    assert answer["conditional_labels"] == [
        *("original", "mask", "mae"),
        *("original_2", "mask_2", "mae_2"),
    ]
    assert set(answer) == COMMON | {"mask_A", "mask_mae_dilated", "mask_mae_dilated_2"}
    assert answer["mask_mae_dilated"] != answer["mask_mae_dilated_2"]
    assert {decode(text).shape[:2] for text in answer["conditional_images"]} == {(512, 512)}


def test_a_picture_larger_than_a_screen_is_shown_smaller() -> None:
    answer = info(Task.WHITE_BALANCE, flat(MAX_SIDE * 2, 600, 77))
    assert answer["input_image_size"] == "4096x600"
    shown = decode(answer["original_image"])
    assert shown.shape == (300, MAX_SIDE, 3)
    assert (shown == 77).all()
