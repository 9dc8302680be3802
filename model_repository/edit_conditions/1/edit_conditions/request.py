"""Owns one edit's inputs, checked and decoded, from the tensors of a request."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

from PIL.Image import Resampling

from edit_conditions.images import Pixels, read_mask, read_picture, resize, size_of
from edit_conditions.masks import HARD_THRESHOLD
from edit_conditions.prompt import compose_prompt
from edit_conditions.quality import InputQuality
from edit_conditions.settings import ConditionSettings
from edit_conditions.task import Task, default_task
from model_kit.errors import CodedError, invalid
from model_kit.masks import covers
from model_kit.pictures import Picture
from model_kit.tensors import Tensors, read_text

Choice = TypeVar("Choice", bound=StrEnum)

RegionChoice = Literal["full", "auto"] | tuple[int, int, int, int]
"""A box has its edges left, top, right and bottom in pixels of the picture."""

# Of Qwen-Image-Edit-2509.
DEFAULT_IMAGE_AREA = 1024 * 1024
# Of one input: none is a list. Triton itself refuses one, before it copies the elements.
MAX_ELEMENTS = 1
CONDITIONAL_IMAGES = tuple(f"CONDITIONAL_IMAGE_{number}" for number in range(4))
"""The first is mask A, where the task takes one."""
OPTIONAL_PICTURES = {*CONDITIONAL_IMAGES, "REFERENCE_IMAGE", "REFERENCE_MASK_R"}


class MaskTool(StrEnum):
    """How the user drew mask A: BRUSH strokes miss the object's rim, a BOX does not."""

    BRUSH = "brush"
    BOX = "box"


@dataclass(frozen=True, eq=False, kw_only=True)
class ConditionsRequest:
    """One edit. Pictures are sRGB uint8 [height, width, 3], masks uint8 [height, width]."""

    task: Task
    prompt: str
    """Composed from PROMPT, ANGLE and BACKGROUND_PRESET."""
    input_quality: InputQuality
    mask_tool: MaskTool | None
    picture: Picture
    """What is edited."""
    mask: Pixels | None
    """Mask A, 255 = edit, soft, of any size; None where the task takes none."""
    extra_images: tuple[Pixels, ...] = ()
    """The conditional images after mask A, each of its own size."""
    reference_image: Pixels | None = None
    reference_mask: Pixels | None = None
    """Only beside a reference_image; 255 = the object, of any size."""
    region: RegionChoice = "full"
    width: int | None = None
    """Of the answer in pixels, as is `height`; None: the picture's own, or the square's."""
    height: int | None = None
    image_area: int = DEFAULT_IMAGE_AREA
    """Pixels that the model was made for; larger pictures are worked on at this size."""

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all its pictures and masks."""
        pictures = (self.picture.native, self.mask, self.reference_image, self.reference_mask)
        return sum(each.nbytes for each in (*pictures, *self.extra_images) if each is not None)


def read_conditions_request(tensors: Tensors, settings: ConditionSettings) -> ConditionsRequest:
    """Check and decode a request; everything cheap is checked before a picture is decoded.

    Every picture is decoded, also one that the task has no use for: a bad one is the
    sender's mistake either way. A blank choice counts as not made, and an optional picture
    without a byte as not sent.

    Raises:
        CodedError: INVALID_ARGUMENT: the first input that is missing, wrong, damaged or too large.
    """
    tensors = {
        name: values
        for name, values in tensors.items()
        if name not in OPTIONAL_PICTURES or any(values)
    }
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
    region = _region(read_text(tensors, "REGION").strip())
    width, height = (_positive(tensors, name) for name in ("WIDTH", "HEIGHT"))
    image_area = _positive(tensors, "IMAGE_AREA") or DEFAULT_IMAGE_AREA

    conditional_images = [name for name in CONDITIONAL_IMAGES if tensors.get(name)]
    if task.needs_mask and not conditional_images:
        raise invalid(CONDITIONAL_IMAGES[0], "is required: the mask of an insertion or a removal")
    for name, expected in zip(conditional_images, CONDITIONAL_IMAGES, strict=False):
        if name != expected:
            raise invalid(name, f"needs {expected} beside it")
    if tensors.get("REFERENCE_MASK_R") and not tensors.get("REFERENCE_IMAGE"):
        raise invalid("REFERENCE_MASK_R", "needs REFERENCE_IMAGE beside it")

    most = settings.max_image_pixels
    picture = read_picture(tensors["IMAGE"][0], "IMAGE", most)
    mask, extras = None, []
    for name in conditional_images:
        data = tensors[name][0]
        if name == CONDITIONAL_IMAGES[0] and task.needs_mask:
            mask = read_mask(data, name, most)
        else:
            extras.append(read_picture(data, name, most).shown())
    reference = reference_mask = None
    if data := tensors.get("REFERENCE_IMAGE"):
        reference = read_picture(data[0], "REFERENCE_IMAGE", most)
    if data := tensors.get("REFERENCE_MASK_R"):
        reference_mask = read_mask(data[0], "REFERENCE_MASK_R", most)
    if task is Task.INSERTION and reference is not None and reference_mask is not None:
        _check_shows(reference, reference_mask)
    return ConditionsRequest(
        task=task,
        prompt=prompt,
        input_quality=quality,
        mask_tool=mask_tool,
        picture=picture,
        mask=mask,
        extra_images=tuple(extras),
        reference_image=None if reference is None else reference.shown(),
        reference_mask=reference_mask,
        region=region,
        width=width,
        height=height,
        image_area=image_area,
    )


def _check_shows(reference: Picture, mask: Pixels) -> None:
    """Refuse a reference's mask of which nothing can be seen: blank paper would be inserted."""
    if reference.alpha is None:
        return
    placed = resize(mask, size_of(reference.alpha), Resampling.NEAREST)
    # One that has vanished is refused where it is placed.
    if (placed > HARD_THRESHOLD).any() and not covers(placed, reference.alpha):
        raise invalid("REFERENCE_MASK_R", "covers only transparent parts of REFERENCE_IMAGE")


def _region(text: str) -> RegionChoice:
    if text in ("", "full"):
        return "full"
    if text == "auto":
        return "auto"
    try:
        left, top, right, bottom = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise _no_region(text) from None
    box = (left, top, right, bottom)
    if not all(type(edge) is int for edge in box):
        raise _no_region(text)
    return box


def _no_region(text: str) -> CodedError:
    return invalid("REGION", f"must be full, auto or [x0, y0, x1, y1], not {text[:64]!r}")


def _positive(tensors: Tensors, name: str) -> int | None:
    """Return a number of pixels, or None where the input is absent."""
    if name not in tensors:
        return None
    number = int(tensors[name][0])
    if number < 1:
        raise invalid(name, f"must be at least 1, not {number}")
    return number


def _choice(tensors: Tensors, name: str, choices: type[Choice]) -> Choice | None:
    """Return the choice that a text input names, or None if it is blank or absent."""
    text = read_text(tensors, name).strip()
    if not text:
        return None
    try:
        return choices(text)
    except ValueError:
        raise invalid(name, f"must be one of {', '.join(choices)}, not {text[:64]!r}") from None
