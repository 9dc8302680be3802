"""Owns the samples of the demo's edits: a request, its conditions as served, and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from export.scenes.edit_textures import object_names
from export.scenes.edits import PHOTOGRAPH_FRACTION, Pixels, as_pixels, cast, draw_scene, extract
from export.serving_code import (
    ConditionsRequest,
    InputQuality,
    MaskTool,
    Picture,
    Scene,
    SceneConditions,
    Task,
    build_conditions,
    compose_prompt,
    dilate,
    object_box,
    plan,
    telea,
)

# How far a user's mask reaches beyond the object, as a fraction of the picture's side.
REMOVAL_MARGIN = (0.01, 0.035)
INSERTION_MARGIN = (0.0, 0.012)
# A brush mask grows by a fixed number of pixels, which would cover a whole small picture.
MIN_BRUSH_SIZE = 256
BRUSH_FRACTION = 0.1


class Flow(StrEnum):
    """The ways in which conditions are ordered; insertion has three."""

    REMOVAL = "removal"
    DESCRIBED = "insertion, described"
    REFERENCE = "insertion, reference"
    TWO_SOURCE = "insertion, two-source"
    WHITE_BALANCE = "white-balance"

    @property
    def task(self) -> Task:
        """Return the task whose adapter serves the flow."""
        return Task(self.value.partition(",")[0])


PROMPTS = {
    Flow.REMOVAL: (
        "",
        "remove object",
        "remove the object",
        "remove the {name}",
        "erase the {name}",
        "take the {name} away",
    ),
    Flow.DESCRIBED: ("insert a {name}", "add a {name}", "put a {name} here", "a {name}"),
    Flow.REFERENCE: (
        "insert the object",
        "insert the {name}",
        "add the object of the reference picture",
        "put the {name} here",
    ),
    Flow.TWO_SOURCE: (
        "insert the object",
        "insert the {name}",
        "add the object of the reference picture",
        "put the {name} here",
    ),
    Flow.WHITE_BALANCE: (
        "correct the white balance",
        "white balance",
        "remove the colour cast",
        "neutral light",
    ),
}


def all_prompts() -> list[str]:
    """List every prompt that a sample may have."""
    asked = sorted({prompt for prompts in PROMPTS.values() for prompt in prompts})
    return [prompt.format(name=name) for prompt in asked for name in object_names()]


@dataclass(frozen=True, eq=False)
class Sample:
    """One edit with its right answer."""

    request: ConditionsRequest
    scene: Scene
    """The whole picture, as the model sees it."""
    conditions: SceneConditions
    truth: Pixels
    """What the edit should give, RGB uint8 [size, size, 3]."""


def draw_sample(
    flow: Flow,
    seed: Sequence[int],
    size: int,
    photographs: Sequence[Pixels] = (),
    photograph_fraction: float = PHOTOGRAPH_FRACTION,
) -> Sample:
    """Draw a scene, ask for one edit of it, and let the serving code build the conditions.

    Args:
        flow: the way in which the conditions are ordered.
        seed: names the sample; the same arguments give the same pixels.
        size: side of every picture, in pixels.
        photographs: RGB uint8 [height, width, 3] each.
        photograph_fraction: fraction of the backgrounds that are cut from photographs, 0..1.
    """
    rng = np.random.default_rng([*seed, 1])
    scene = draw_scene([*seed, 2], size, photographs, photograph_fraction)
    image, mask, reference, reference_mask = scene.picture, scene.mask, None, None
    truth = scene.picture
    name = scene.name
    match flow:
        case Flow.REMOVAL:
            mask, truth = _grown(rng, scene.mask, REMOVAL_MARGIN), scene.background
        case Flow.DESCRIBED:
            image, mask = scene.background, _grown(rng, scene.mask, INSERTION_MARGIN)
        case Flow.REFERENCE:
            image, mask = scene.background, _grown(rng, scene.mask, INSERTION_MARGIN)
            reference = extract(scene.picture, scene.mask)
        case Flow.TWO_SOURCE:
            other = draw_scene([*seed, 3], size, photographs, photograph_fraction)
            image, mask = scene.background, _region(rng, scene.centre, other.mask)
            reference, reference_mask, name = other.picture, other.mask, other.name
        case Flow.WHITE_BALANCE:
            image = cast([*seed, 4], scene.picture)
    request = ConditionsRequest(
        task=flow.task,
        prompt=compose_prompt(flow.task, str(rng.choice(PROMPTS[flow])).format(name=name)),
        input_quality=InputQuality.ORIGINAL,
        mask_tool=_mask_tool(rng, size),
        picture=Picture(image, None, None),
        mask=mask if flow.task.needs_mask else None,
        reference_image=reference,
        reference_mask=reference_mask,
        # Training chooses the size: serving would enlarge a small picture.
        image_area=size * size,
    )
    [seen] = plan(request, shadow_hint=False).scenes
    conditions = build_conditions(request, seen, telea, shadow_hint=False)
    if flow is Flow.TWO_SOURCE:
        truth = _inserted(request, seen)
    return Sample(request, seen, conditions, truth)


def _inserted(request: ConditionsRequest, scene: Scene) -> Pixels:
    """Draw the reference's object onto the source, where the flow has positioned the mask."""
    positioned, reference = scene.positioned, request.reference_image
    if positioned is None or reference is None or request.reference_mask is None:
        raise ValueError("not a two-source insertion")
    found, placed = object_box(request.reference_mask), object_box(positioned)
    if found is None or placed is None:
        raise ValueError("an empty mask")
    # Laying one box on the other lays the one picture on the other.
    scale = max(placed.width / found.width, placed.height / found.height)
    onto = np.array(
        [
            [scale, 0, placed.left + placed.width / 2 - scale * (found.left + found.width / 2)],
            [0, scale, placed.top + placed.height / 2 - scale * (found.top + found.height / 2)],
        ]
    )
    size = positioned.shape[1], positioned.shape[0]
    moved = cv2.warpAffine(reference, onto, size, borderMode=cv2.BORDER_REPLICATE)
    fraction = positioned[..., None] / np.float32(255)
    mixed = scene.source + fraction * (moved - scene.source.astype(np.float32))
    return as_pixels(mixed)


def _grown(rng: np.random.Generator, mask: Pixels, margin: tuple[float, float]) -> Pixels:
    return dilate(mask, round(rng.uniform(*margin) * len(mask)))


def _region(rng: np.random.Generator, centre: tuple[float, float], wanted: Pixels) -> Pixels:
    """Draw a box or an ellipse around a place, as a user marks it.

    The region is no larger than the wanted object. A larger region would enlarge the reference
    beyond the picture, and its object could land outside.
    """
    mask = np.zeros_like(wanted)
    found = object_box(wanted)
    if found is None:
        raise ValueError("an empty mask")
    fraction = rng.uniform(0.65, 0.95, 2)
    half = [max(6, int(length / 2 * s)) for length, s in zip(found[2:], fraction, strict=True)]
    x, y = (
        min(max(round(place), margin), len(mask) - margin)
        for place, margin in zip(centre, half, strict=True)
    )
    if rng.random() < 0.5:
        mask[y - half[1] : y + half[1], x - half[0] : x + half[0]] = 255
    else:
        cv2.ellipse(mask, (x, y), half, 0, 0, 360, 255, -1)
    return mask


def _mask_tool(rng: np.random.Generator, size: int) -> MaskTool | None:
    return MaskTool.BRUSH if rng.random() < BRUSH_FRACTION and size >= MIN_BRUSH_SIZE else None
