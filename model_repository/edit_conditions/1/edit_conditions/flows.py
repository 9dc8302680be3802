"""Owns the four flows: one scene to the ordered conditions of its task."""

from dataclasses import dataclass, field

from PIL.Image import Resampling

from edit_conditions.edges import canny
from edit_conditions.fill import Inpaint, fill_masked
from edit_conditions.images import Pixels, resize, resize_part, size_of
from edit_conditions.masks import as_rgb, masked_background
from edit_conditions.plan import Scene
from edit_conditions.request import ConditionsRequest, MaskTool
from edit_conditions.shadow import MAX_SCALE, cast_shadow, darken, expand_mask
from edit_conditions.task import Task


@dataclass(frozen=True, eq=False)
class SceneConditions:
    """What the model is conditioned on for one scene."""

    images: tuple[Pixels, ...]
    """sRGB uint8 [height, width, 3] of the scene's size, in model order."""
    shown: dict[str, Pixels]
    """Label -> picture or mask as debug_info lists them, of any size."""
    derived_masks: dict[str, Pixels] = field(default_factory=dict)
    """Key of debug_info -> mask that the flow computed."""


def build_conditions(
    request: ConditionsRequest, scene: Scene, inpaint: Inpaint, shadow_hint: bool
) -> SceneConditions:
    """Build a scene's conditions in its task's flow.

    Args:
        request: checked and decoded.
        scene: a region of the request's picture.
        inpaint: the removal fill.
        shadow_hint: darken the background where an inserted object would cast a shadow.
    """
    if request.task is Task.WHITE_BALANCE:
        return _white_balance(scene.source)
    assert scene.mask is not None, "removal and insertion have a mask"
    if request.task is Task.REMOVAL:
        return _removal(request, scene, scene.mask, inpaint)
    if request.reference_image is None:
        return _insertion(request, scene, scene.mask)
    stretched = resize(request.reference_image, size_of(scene.source), Resampling.LANCZOS)
    if scene.positioned is None or request.reference_mask is None:
        return _reference_insertion(request, scene, scene.mask, stretched, shadow_hint)
    return _two_source_insertion(request, scene, scene.positioned, stretched, shadow_hint)


def _white_balance(source: Pixels) -> SceneConditions:
    edges = as_rgb(canny(source))
    return SceneConditions((source, edges), {"input": source, "canny": edges})


def _removal(
    request: ConditionsRequest, scene: Scene, mask: Pixels, inpaint: Inpaint
) -> SceneConditions:
    assert scene.hole is not None, "it comes with the mask"
    derived = {}
    if request.mask_tool is MaskTool.BRUSH:
        derived["mask_mae_dilated"] = scene.hole
    fill = fill_masked(scene.source, scene.hole, inpaint)
    extras = _extras(request, scene)
    return SceneConditions(
        (masked_background(scene.source, mask), as_rgb(mask), fill, *extras.values()),
        {"original": scene.source, "mask": mask, "mae": fill, **extras},
        derived_masks=derived,
    )


def _insertion(request: ConditionsRequest, scene: Scene, mask: Pixels) -> SceneConditions:
    background = masked_background(scene.source, mask)
    extras = _extras(request, scene)
    return SceneConditions(
        (as_rgb(mask), background, *extras.values()),
        {"mask": mask, "masked_bg": background, **extras},
    )


def _reference_insertion(
    request: ConditionsRequest, scene: Scene, mask: Pixels, stretched: Pixels, shadow_hint: bool
) -> SceneConditions:
    mask, background = _mask_and_background(scene, mask, shadow_hint)
    extras = _extras(request, scene)
    return SceneConditions(
        (stretched, as_rgb(mask), background, *extras.values()),
        {"ref_img": stretched, "mask": mask, "masked_bg": background, **extras},
    )


def _two_source_insertion(
    request: ConditionsRequest, scene: Scene, placed: Pixels, stretched: Pixels, shadow_hint: bool
) -> SceneConditions:
    positioned, background = _mask_and_background(scene, placed, shadow_hint)
    reference, object_mask = request.reference_image, request.reference_mask
    assert reference is not None, "the two-source flow has a reference"
    assert object_mask is not None, "and its mask"
    assert scene.mask is not None, "and mask A"
    object_mask = resize(object_mask, size_of(reference), Resampling.NEAREST)
    return SceneConditions(
        (stretched, as_rgb(positioned), background),
        {
            "original": scene.source,
            "mask_A": scene.mask,
            # masked_background() paints black; inverted twice it paints white.
            "masked_R": ~masked_background(~reference, ~object_mask),
            "reference_image": reference,
            "positioned_mask_R": positioned,
        },
        derived_masks={"positioned_mask_R": positioned},
    )


def _extras(request: ConditionsRequest, scene: Scene) -> dict[str, Pixels]:
    """Stretch the conditional images after mask A to the picture, and take the scene; by label.

    Only removal and the two single-source insertions take them.
    """
    return {
        f"extra_{index}": resize_part(image, scene.part, size_of(scene.source))
        for index, image in enumerate(request.extra_images, start=1)
    }


def _mask_and_background(scene: Scene, mask: Pixels, shadow_hint: bool) -> tuple[Pixels, Pixels]:
    """Return the mask and masked_bg of an insertion with a reference, with the hint where on."""
    if not shadow_hint:
        return mask, masked_background(scene.source, mask)
    scale = min(scene.scale, MAX_SCALE)
    shadow = cast_shadow(mask, scale)
    darkened = darken(scene.source, mask, shadow, scale)
    return expand_mask(mask, shadow, scale), masked_background(darkened, mask)
