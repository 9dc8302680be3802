from dataclasses import replace
from enum import Enum

import numpy as np
import pytest

from edit_conditions.quality import InputQuality
from edit_conditions.request import EditRequest, MaskTool, read_request
from edit_conditions.settings import ConditionSettings
from edit_conditions.task import Task
from model_kit.errors import CodedError
from model_kit.tensors import MAX_TEXT_BYTES

from .pictures import encode, flat, mask_with, noise

SETTINGS = ConditionSettings(
    input_quality=InputQuality.RESIZED,
    max_image_pixels=5_000,
    max_conditional_images=3,
    lama_model=None,
    shadow_hint=False,
)
IMAGE = noise(40, 30)
MASK = encode(mask_with(40, 30, (5, 5, 20, 20)))
PICTURE = encode(IMAGE)
TRUNCATED = PICTURE[: len(PICTURE) // 2]


class Absent(Enum):
    """Takes an input out of the good request."""

    ABSENT = 0


ABSENT = Absent.ABSENT


def read(**changes: bytes | list[bytes] | Absent) -> EditRequest:
    """A good removal with the changes made."""
    inputs: dict[str, bytes | list[bytes] | Absent] = {
        "PROMPT": b"remove the cup",
        "IMAGE": PICTURE,
        "CONDITIONAL_IMAGES": [MASK],
        **changes,
    }
    tensors = {
        name: value if isinstance(value, list) else [value]
        for name, value in inputs.items()
        if not isinstance(value, Absent)
    }
    return read_request(tensors, SETTINGS)


def test_a_minimal_removal() -> None:
    request = read()
    assert request.task is Task.REMOVAL
    assert request.prompt == "remove the cup"
    assert request.input_quality is InputQuality.RESIZED
    assert request.mask_tool is None
    assert (request.image == IMAGE).all()
    assert len(request.conditional_images) == 1
    assert request.reference_image is None
    assert request.reference_mask is None


def test_everything_is_read() -> None:
    request = read(
        CONDITIONAL_IMAGES=[MASK, encode(flat(3, 4, 5))],
        REFERENCE_IMAGE=encode(flat(6, 7, 8)),
        REFERENCE_MASK_R=encode(flat(9, 10, 255)),
        TASK_TYPE=b"insertion",
        ANGLE=b"top-down",
        BACKGROUND_PRESET=b"textured",
        INPUT_QUALITY=b"original",
        MASK_TOOL_TYPE=b"brush",
    )
    assert request.task is Task.INSERTION
    assert request.prompt == "remove the cup | 俯视 | textured background"
    assert request.input_quality is InputQuality.ORIGINAL
    assert request.mask_tool is MaskTool.BRUSH
    assert request.conditional_images[1].shape == (4, 3, 3)
    assert request.reference_image is not None
    assert request.reference_image.shape == (7, 6, 3)
    assert request.reference_mask is not None
    assert request.reference_mask.shape == (10, 9, 3)


@pytest.mark.parametrize("task_type", [ABSENT, b"", b" "])
def test_an_open_task_is_insertion_with_a_reference_else_removal(
    task_type: bytes | Absent,
) -> None:
    assert read(TASK_TYPE=task_type).task is Task.REMOVAL
    assert read(TASK_TYPE=task_type, REFERENCE_IMAGE=PICTURE).task is Task.INSERTION
    assert read(TASK_TYPE=b"removal", REFERENCE_IMAGE=PICTURE).task is Task.REMOVAL


def test_white_balance_needs_no_mask() -> None:
    request = read(TASK_TYPE=b"white-balance", CONDITIONAL_IMAGES=ABSENT)
    assert request.task is Task.WHITE_BALANCE


def test_the_default_quality_is_the_settings() -> None:
    tensors = {"PROMPT": [b"x"], "IMAGE": [PICTURE], "CONDITIONAL_IMAGES": [MASK]}
    settings = replace(SETTINGS, input_quality=InputQuality.ORIGINAL)
    assert read_request(tensors, settings).input_quality is InputQuality.ORIGINAL


NO_MASK = (
    "CONDITIONAL_IMAGES: conditional_images must include at least one image (mask)"
    " for insertion/removal tasks."
)
UNDECODABLE = "Invalid image data or unsupported format: "

REFUSALS: list[tuple[dict[str, bytes | list[bytes] | Absent], str]] = [
    ({"IMAGE": ABSENT}, "IMAGE: is required"),
    ({"IMAGE": []}, "IMAGE: is required"),
    ({"PROMPT": ABSENT}, "PROMPT: is required"),
    ({"PROMPT": b"\xff\xfe"}, "PROMPT: not UTF-8 text"),
    ({"PROMPT": b"a" * (MAX_TEXT_BYTES + 1)}, "PROMPT: 32769 bytes, at most 32768"),
    ({"ANGLE": b"\x80"}, "ANGLE: not UTF-8 text"),
    ({"BACKGROUND_PRESET": b"a" * 40_000}, "BACKGROUND_PRESET: 40000 bytes, at most 32768"),
    (
        {"TASK_TYPE": b"Removal"},
        "TASK_TYPE: must be one of insertion, removal, white-balance, not 'Removal'",
    ),
    ({"INPUT_QUALITY": b"best"}, "INPUT_QUALITY: must be one of resized, original, not 'best'"),
    ({"MASK_TOOL_TYPE": b"lasso"}, "MASK_TOOL_TYPE: must be one of brush, box, not 'lasso'"),
    ({"CONDITIONAL_IMAGES": ABSENT}, NO_MASK),
    ({"CONDITIONAL_IMAGES": []}, NO_MASK),
    ({"CONDITIONAL_IMAGES": ABSENT, "TASK_TYPE": b"insertion"}, NO_MASK),
    ({"CONDITIONAL_IMAGES": [MASK] * 4}, "CONDITIONAL_IMAGES: at most 3 images, not 4"),
    ({"REFERENCE_MASK_R": MASK}, "REFERENCE_MASK_R: needs REFERENCE_IMAGE beside it"),
    ({"IMAGE": b""}, "IMAGE: " + UNDECODABLE),
    ({"IMAGE": TRUNCATED}, "IMAGE: " + UNDECODABLE),
    ({"IMAGE": encode(flat(100, 51, 0))}, "IMAGE: 100x51 is more than the 5000 pixels allowed"),
    ({"CONDITIONAL_IMAGES": [TRUNCATED]}, "CONDITIONAL_IMAGES[0]: " + UNDECODABLE),
    ({"CONDITIONAL_IMAGES": [MASK, b"?"]}, "CONDITIONAL_IMAGES[1]: " + UNDECODABLE),
    ({"REFERENCE_IMAGE": b"?"}, "REFERENCE_IMAGE: " + UNDECODABLE),
    (
        {"REFERENCE_IMAGE": PICTURE, "REFERENCE_MASK_R": TRUNCATED},
        "REFERENCE_MASK_R: " + UNDECODABLE,
    ),
    ({"REFERENCE_IMAGE": b"?", "TASK_TYPE": b"white-balance"}, "REFERENCE_IMAGE: " + UNDECODABLE),
]


@pytest.mark.parametrize(("changes", "text"), REFUSALS)
def test_bad_input_is_refused_by_name(
    changes: dict[str, bytes | list[bytes] | Absent], text: str
) -> None:
    with pytest.raises(CodedError) as caught:
        read(**changes)
    assert str(caught.value).startswith(f"[INVALID_ARGUMENT] {text}")


def test_no_picture_is_decoded_for_a_request_that_fails_anyway() -> None:
    with pytest.raises(CodedError, match="MASK_TOOL_TYPE"):
        read(IMAGE=TRUNCATED, MASK_TOOL_TYPE=b"lasso")


def test_any_picture_format_serves_as_mask() -> None:
    picture = np.zeros((30, 40, 4), dtype=np.uint8)
    assert (read(CONDITIONAL_IMAGES=[encode(picture)]).conditional_images[0] == 255).all()
