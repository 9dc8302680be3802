"""Owns checking and decoding one edit's inputs, from a request's tensors."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from edit_conditions.images import Pixels, decode_image
from edit_conditions.prompt import compose_prompt
from edit_conditions.quality import InputQuality
from edit_conditions.settings import ConditionSettings
from edit_conditions.task import Task, default_task
from model_kit.errors import invalid
from model_kit.tensors import Tensors, read_text

Choice = TypeVar("Choice", bound=StrEnum)

# Of one input. No edit has so many pictures.
MAX_ELEMENTS = 64


# Existing clients know these very words. The frontend repeats them; a contract test compares.
NO_MASK = "conditional_images must include at least one image (mask) for insertion/removal tasks."


class MaskTool(StrEnum):
    """How the user drew mask A: BRUSH strokes miss the object's rim, a BOX does not."""

    BRUSH = "brush"
    BOX = "box"


@dataclass(frozen=True, eq=False)
class EditRequest:
    """One edit; pictures are RGB uint8 [height, width, 3], each of its own size.

    Masks are pictures here too: white = edit, soft, any size.
    """

    task: Task
    prompt: str
    """Composed from PROMPT, ANGLE and BACKGROUND_PRESET."""
    input_quality: InputQuality
    mask_tool: MaskTool | None
    image: Pixels
    conditional_images: tuple[Pixels, ...]
    """The first is mask A; insertion and removal always have it."""
    reference_image: Pixels | None
    reference_mask: Pixels | None
    """None without a reference_image."""


def read_request(tensors: Tensors, settings: ConditionSettings) -> EditRequest:
    """Check and decode a request. All cheap checks come before the first picture is decoded.

    Every picture is decoded, even one that the task does not use: a bad one is the client's
    mistake anyway. A blank choice counts as absent.

    Raises:
        CodedError: INVALID_ARGUMENT: names the first input that is missing, wrong, damaged or too
            large.
    """
    for name in ("IMAGE", "PROMPT"):
        if not tensors.get(name):
            raise invalid(name, "is required")
    task = _choice(tensors, "TASK_TYPE", Task) or default_task(bool(tensors.get("REFERENCE_IMAGE")))
    prompt = compose_prompt(
        task,
        read_text(tensors, "PROMPT"),
        angle=read_text(tensors, "ANGLE"),
        background=read_text(tensors, "BACKGROUND_PRESET"),
    )
    quality = _choice(tensors, "INPUT_QUALITY", InputQuality) or settings.input_quality
    mask_tool = _choice(tensors, "MASK_TOOL_TYPE", MaskTool)

    conditional_images = tensors.get("CONDITIONAL_IMAGES", ())
    if len(conditional_images) > settings.max_conditional_images:
        raise invalid(
            "CONDITIONAL_IMAGES",
            f"at most {settings.max_conditional_images} images, not {len(conditional_images)}",
        )
    if task.needs_mask and not conditional_images:
        raise invalid("CONDITIONAL_IMAGES", NO_MASK)
    if tensors.get("REFERENCE_MASK_R") and not tensors.get("REFERENCE_IMAGE"):
        raise invalid("REFERENCE_MASK_R", "needs REFERENCE_IMAGE beside it")

    max_pixels = settings.max_image_pixels
    return EditRequest(
        task=task,
        prompt=prompt,
        input_quality=quality,
        mask_tool=mask_tool,
        image=decode_image(tensors["IMAGE"][0], "IMAGE", max_pixels),
        conditional_images=tuple(
            decode_image(data, f"CONDITIONAL_IMAGES[{index}]", max_pixels)
            for index, data in enumerate(conditional_images)
        ),
        reference_image=_optional_image(tensors, "REFERENCE_IMAGE", max_pixels),
        reference_mask=_optional_image(tensors, "REFERENCE_MASK_R", max_pixels),
    )


def _choice(tensors: Tensors, name: str, choices: type[Choice]) -> Choice | None:
    """Return the choice that a text input names, or None if it is blank or absent."""
    text = read_text(tensors, name).strip()
    if not text:
        return None
    try:
        return choices(text)
    except ValueError:
        raise invalid(name, f"must be one of {', '.join(choices)}, not {text[:64]!r}") from None


def _optional_image(tensors: Tensors, name: str, max_pixels: int) -> Pixels | None:
    elements = tensors.get(name)
    return decode_image(elements[0], name, max_pixels) if elements else None
