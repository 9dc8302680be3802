from dataclasses import replace
from enum import Enum

import numpy as np
import pytest

from edit_conditions.quality import InputQuality
from edit_conditions.request import (
    DEFAULT_IMAGE_AREA,
    ConditionsRequest,
    MaskTool,
    read_conditions_request,
)
from edit_conditions.settings import ConditionSettings
from edit_conditions.task import Task
from model_kit.errors import CodedError
from model_kit.tensors import MAX_TEXT_BYTES

from .pictures import encode, flat, mask_with, noise

SETTINGS = ConditionSettings(
    input_quality=InputQuality.RESIZED,
    max_image_pixels=5_000,
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


Input = bytes | list[bytes] | list[int] | Absent


def read(**changes: Input) -> ConditionsRequest:
    """Return a good removal with the changes made."""
    inputs: dict[str, Input] = {
        "PROMPT": b"remove the cup",
        "IMAGE": PICTURE,
        "CONDITIONAL_IMAGE_0": MASK,
        **changes,
    }
    tensors = {
        name: value if isinstance(value, list) else [value]
        for name, value in inputs.items()
        if not isinstance(value, Absent)
    }
    return read_conditions_request(tensors, SETTINGS)


def test_a_minimal_removal() -> None:
    request = read()
    assert request.task is Task.REMOVAL
    assert request.prompt == "remove the cup"
    assert request.input_quality is InputQuality.RESIZED
    assert request.mask_tool is None
    assert (request.picture.native == IMAGE).all()
    assert request.mask is not None
    assert (request.mask == mask_with(40, 30, (5, 5, 20, 20))).all()
    assert request.extra_images == ()
    assert request.reference_image is None
    assert request.reference_mask is None
    assert request.region == "full"
    assert (request.width, request.height) == (None, None)
    assert request.image_area == DEFAULT_IMAGE_AREA


def test_everything_is_read() -> None:
    request = read(
        CONDITIONAL_IMAGE_0=MASK,
        CONDITIONAL_IMAGE_1=encode(flat(3, 4, 5)),
        REFERENCE_IMAGE=encode(flat(6, 7, 8)),
        REFERENCE_MASK_R=encode(flat(9, 10, 255)),
        TASK_TYPE=b"insertion",
        ANGLE=b"top-down",
        BACKGROUND_PRESET=b"textured",
        INPUT_QUALITY=b"original",
        MASK_TOOL_TYPE=b"brush",
        REGION=b"[1, 2, 30, 29]",
        WIDTH=[640],
        HEIGHT=[480],
        IMAGE_AREA=[262_144],
    )
    assert request.task is Task.INSERTION
    assert request.prompt == "remove the cup | 俯视 | textured background"
    assert request.input_quality is InputQuality.ORIGINAL
    assert request.mask_tool is MaskTool.BRUSH
    assert [image.shape for image in request.extra_images] == [(4, 3, 3)]
    assert request.reference_image is not None
    assert request.reference_image.shape == (7, 6, 3)
    assert request.reference_mask is not None
    assert request.reference_mask.shape == (10, 9)
    assert (request.reference_mask == 255).all()
    assert request.region == (1, 2, 30, 29)
    assert (request.width, request.height) == (640, 480)
    assert request.image_area == 262_144


@pytest.mark.parametrize("task_type", [ABSENT, b"", b" "])
def test_an_open_task_is_insertion_with_a_reference_else_removal(
    task_type: bytes | Absent,
) -> None:
    assert read(TASK_TYPE=task_type).task is Task.REMOVAL
    assert read(TASK_TYPE=task_type, REFERENCE_IMAGE=PICTURE).task is Task.INSERTION
    assert read(TASK_TYPE=b"removal", REFERENCE_IMAGE=PICTURE).task is Task.REMOVAL


def test_white_balance_needs_no_mask() -> None:
    request = read(TASK_TYPE=b"white-balance", CONDITIONAL_IMAGE_0=ABSENT)
    assert request.task is Task.WHITE_BALANCE
    assert request.mask is None


def test_white_balance_takes_any_conditional_image_for_a_picture() -> None:
    request = read(TASK_TYPE=b"white-balance", CONDITIONAL_IMAGE_0=encode(flat(3, 4, 0)))
    assert request.mask is None
    assert [image.shape for image in request.extra_images] == [(4, 3, 3)]


@pytest.mark.parametrize(
    ("text", "region"),
    [
        (ABSENT, "full"),
        (b"", "full"),
        (b" ", "full"),
        (b"full", "full"),
        (b" auto ", "auto"),
        (b"[0,0,40,30]", (0, 0, 40, 30)),
        (b" [ 1, 2,\n3, 4 ] ", (1, 2, 3, 4)),
        (b"[-1, 0, 99, 9]", (-1, 0, 99, 9)),  # the plan knows the picture's size
    ],
)
def test_a_region_is_a_word_or_a_box(text: bytes | Absent, region: object) -> None:
    assert read(REGION=text).region == region


def test_the_default_quality_is_the_settings() -> None:
    tensors = {"PROMPT": [b"x"], "IMAGE": [PICTURE], "CONDITIONAL_IMAGE_0": [MASK]}
    settings = replace(SETTINGS, input_quality=InputQuality.ORIGINAL)
    assert read_conditions_request(tensors, settings).input_quality is InputQuality.ORIGINAL


NO_MASK = "CONDITIONAL_IMAGE_0: is required: the mask of an insertion or a removal"
EMPTY = "No object found in mask (no white pixels): its brightest pixel is 100 of 255"
UNDECODABLE = "Invalid image data or unsupported format: "

REFUSALS: list[tuple[dict[str, Input], str]] = [
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
    ({"REGION": b"\xff"}, "REGION: not UTF-8 text"),
    ({"WIDTH": [0]}, "WIDTH: must be at least 1, not 0"),
    ({"HEIGHT": [-5]}, "HEIGHT: must be at least 1, not -5"),
    ({"IMAGE_AREA": [0]}, "IMAGE_AREA: must be at least 1, not 0"),
    ({"CONDITIONAL_IMAGE_0": ABSENT}, NO_MASK),
    ({"CONDITIONAL_IMAGE_0": []}, NO_MASK),
    ({"CONDITIONAL_IMAGE_0": ABSENT, "TASK_TYPE": b"insertion"}, NO_MASK),
    (
        {"CONDITIONAL_IMAGE_2": PICTURE},
        "CONDITIONAL_IMAGE_2: needs CONDITIONAL_IMAGE_1 beside it",
    ),
    (
        {"CONDITIONAL_IMAGE_0": ABSENT, "CONDITIONAL_IMAGE_1": MASK},
        "CONDITIONAL_IMAGE_1: needs CONDITIONAL_IMAGE_0 beside it",
    ),
    ({"REFERENCE_MASK_R": MASK}, "REFERENCE_MASK_R: needs REFERENCE_IMAGE beside it"),
    ({"IMAGE": b""}, "IMAGE: " + UNDECODABLE),
    ({"IMAGE": TRUNCATED}, "IMAGE: " + UNDECODABLE),
    ({"IMAGE": encode(flat(100, 51, 0))}, "IMAGE: 100x51 is more than the 5000 pixels allowed"),
    ({"CONDITIONAL_IMAGE_0": TRUNCATED}, "CONDITIONAL_IMAGE_0: " + UNDECODABLE),
    ({"CONDITIONAL_IMAGE_1": b"?"}, "CONDITIONAL_IMAGE_1: " + UNDECODABLE),
    ({"REFERENCE_IMAGE": b"?"}, "REFERENCE_IMAGE: " + UNDECODABLE),
    (
        {"REFERENCE_IMAGE": PICTURE, "REFERENCE_MASK_R": TRUNCATED},
        "REFERENCE_MASK_R: " + UNDECODABLE,
    ),
    ({"CONDITIONAL_IMAGE_0": encode(flat(9, 9, 100))}, "CONDITIONAL_IMAGE_0: " + EMPTY),
    (
        {"REFERENCE_IMAGE": PICTURE, "REFERENCE_MASK_R": encode(flat(9, 9, 100))},
        "REFERENCE_MASK_R: " + EMPTY,
    ),
    ({"CONDITIONAL_IMAGE_0": PICTURE}, "CONDITIONAL_IMAGE_0: the mask looks like a photograph"),
    ({"REFERENCE_IMAGE": b"?", "TASK_TYPE": b"white-balance"}, "REFERENCE_IMAGE: " + UNDECODABLE),
]


@pytest.mark.parametrize(("changes", "text"), REFUSALS)
def test_bad_input_is_refused_by_name(changes: dict[str, Input], text: str) -> None:
    with pytest.raises(CodedError) as caught:
        read(**changes)
    assert str(caught.value).startswith(f"[INVALID_ARGUMENT] {text}")


@pytest.mark.parametrize(
    "text",
    [
        *(b"Auto", b"none", b"null", b"7", b"[1, 2, 3]", b"[1, 2, 3, 4, 5]", b"[1, 2, 3, 4"),
        *(b"[0, 0, 40.0, 30]", b"[0, 0, true, 30]", b'["0", 0, 40, 30]', b"[NaN, 0, 1, 1]"),
        *(b'"abcd"', b'{"a": 1, "b": 2, "c": 3, "d": 4}', b"[" * 5000, b"[1" + b"0" * 5000 + b"]"),
    ],
)
def test_a_region_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(CodedError) as caught:
        read(REGION=text)
    seen = repr(text.decode()[:64])
    assert str(caught.value) == (
        f"[INVALID_ARGUMENT] REGION: must be full, auto or [x0, y0, x1, y1], not {seen}"
    )


def test_no_picture_is_decoded_for_a_request_that_fails_anyway() -> None:
    with pytest.raises(CodedError, match="MASK_TOOL_TYPE"):
        read(IMAGE=TRUNCATED, MASK_TOOL_TYPE=b"lasso")


@pytest.mark.parametrize("name", ["CONDITIONAL_IMAGE_0", "REFERENCE_MASK_R"])
def test_a_mask_with_transparency_is_read_by_what_it_means(name: str) -> None:
    hard = mask_with(40, 30, (5, 5, 20, 20))
    strokes = np.dstack([flat(40, 30, 255), hard])
    hole = np.dstack([flat(40, 30, 90), ~hard])
    black_with_hole = np.dstack([flat(40, 30, 0), ~hard])
    for picture in (strokes, hole, black_with_hole):
        request = read(**{"REFERENCE_IMAGE": PICTURE, name: encode(picture)})
        mask = request.mask if name == "CONDITIONAL_IMAGE_0" else request.reference_mask
        assert mask is not None
        assert (mask == hard).all()


def test_a_reference_s_mask_of_what_is_see_through_is_refused() -> None:
    reference = np.dstack([noise(40, 30), mask_with(40, 30, (25, 5, 10, 10))])
    sent = {"REFERENCE_IMAGE": encode(reference), "TASK_TYPE": b"insertion"}
    for mask in (MASK, encode(mask_with(80, 60, (0, 0, 40, 60)))):
        with pytest.raises(CodedError, match=r"REFERENCE_MASK_R: covers only transparent parts"):
            read(**sent, REFERENCE_MASK_R=mask)
    # A removal has no use for it, and one visible pixel is an object.
    assert read(**sent | {"TASK_TYPE": b"removal"}, REFERENCE_MASK_R=MASK).task is Task.REMOVAL
    reference[6, 6, 3] = 1
    sent["REFERENCE_IMAGE"] = encode(reference)
    assert read(**sent, REFERENCE_MASK_R=MASK).reference_mask is not None


def test_pictures_beside_the_edited_one_are_shown_on_white() -> None:
    clear = encode(np.zeros((4, 3, 4), dtype=np.uint8))
    request = read(CONDITIONAL_IMAGE_1=clear, REFERENCE_IMAGE=clear, IMAGE=clear)
    assert request.reference_image is not None
    assert (request.reference_image == 255).all()
    assert (request.extra_images[0] == 255).all()
    assert request.picture.alpha is not None
    assert not request.picture.alpha.any()
