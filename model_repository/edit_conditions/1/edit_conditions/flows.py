"""Owns the four flows from a request's pictures to the ordered conditions of its task."""

from dataclasses import dataclass, field

from PIL.Image import Resampling

from edit_conditions.edges import canny
from edit_conditions.fill import Inpaint, fill_masked
from edit_conditions.images import Pixels, resize, size_of
from edit_conditions.masks import HARD_THRESHOLD, as_rgb, binarise, dilate, grey, masked_background
from edit_conditions.placement import position_mask
from edit_conditions.quality import apply_quality
from edit_conditions.request import EditRequest, MaskTool
from edit_conditions.shadow import cast_shadow, darken, expand_mask
from edit_conditions.task import Task

# Pixels by which a brush mask grows before the fill. Strokes miss the object's rim, and the rest
# of it would colour the whole fill.
BRUSH_RADIUS = 35


@dataclass(frozen=True, eq=False)
class Conditions:
    """What one edit is conditioned on; every picture has the size of `source` unless stated."""

    source: Pixels
    """The processed input, RGB uint8 [height, width, 3]."""
    images: tuple[Pixels, ...]
    """RGB uint8 [height, width, 3], in model order."""
    shown: dict[str, Pixels]
    """Label -> picture or mask for debug_info, of any size."""
    composite_mask: Pixels | None = None
    """uint8 [height, width], 255 = generated picture, 0 = source; soft; only in two-source flow."""
    derived_masks: dict[str, Pixels] = field(default_factory=dict)
    """Key in debug_info -> mask that the flow computed."""


def build_conditions(request: EditRequest, inpaint: Inpaint, shadow_hint: bool) -> Conditions:
    """Build a request's conditions by the flow of its task.

    Args:
        request: checked and decoded.
        inpaint: the removal fill.
        shadow_hint: darken the background where an inserted object would cast a shadow.

    Raises:
        CodedError: INVALID_ARGUMENT: the picture is too elongated, or a two-source mask cannot
            be placed.
    """
    source = apply_quality(request.image, request.input_quality, "IMAGE")
    match request.task:
        case Task.WHITE_BALANCE:
            return _white_balance(source)
        case Task.REMOVAL:
            return _removal(request, source, inpaint)
        case Task.INSERTION:
            if request.reference_image is None:
                return _insertion(request, source)
            if request.reference_mask is None:
                return _reference_insertion(request, source, request.reference_image, shadow_hint)
            return _two_source_insertion(
                request, source, request.reference_image, request.reference_mask, shadow_hint
            )


def _white_balance(source: Pixels) -> Conditions:
    edges = as_rgb(canny(source))
    return Conditions(source, (source, edges), {"input": source, "canny": edges})


def _removal(request: EditRequest, source: Pixels, inpaint: Inpaint) -> Conditions:
    mask = _main_mask(request, Resampling.LANCZOS)
    hole = binarise(mask, HARD_THRESHOLD)
    derived = {}
    if request.mask_tool is MaskTool.BRUSH:
        hole = dilate(hole, BRUSH_RADIUS)
        derived["mask_mae_dilated"] = hole
    fill = fill_masked(source, hole, inpaint)
    extras = _extra_conditions(request, source)
    return Conditions(
        source,
        (masked_background(source, mask), as_rgb(mask), fill, *extras.values()),
        {"original": request.image, "mask": mask, "mae": fill, **extras},
        derived_masks=derived,
    )


def _insertion(request: EditRequest, source: Pixels) -> Conditions:
    mask = _main_mask(request, Resampling.LANCZOS)
    background = masked_background(source, mask)
    extras = _extra_conditions(request, source)
    return Conditions(
        source,
        (as_rgb(mask), background, *extras.values()),
        {"mask": mask, "masked_bg": background, **extras},
    )


def _reference_insertion(
    request: EditRequest, source: Pixels, reference: Pixels, shadow_hint: bool
) -> Conditions:
    stretched = resize(reference, size_of(source), Resampling.LANCZOS)
    mask, background = _mask_and_background(
        source, _main_mask(request, Resampling.LANCZOS), shadow_hint
    )
    extras = _extra_conditions(request, source)
    return Conditions(
        source,
        (stretched, as_rgb(mask), background, *extras.values()),
        {"ref_img": stretched, "mask": mask, "masked_bg": background, **extras},
    )


def _two_source_insertion(
    request: EditRequest,
    source: Pixels,
    reference: Pixels,
    reference_mask: Pixels,
    shadow_hint: bool,
) -> Conditions:
    main_mask = _main_mask(request, Resampling.NEAREST)
    object_mask = grey(resize(reference_mask, size_of(reference), Resampling.NEAREST))
    positioned, background = _mask_and_background(
        source, position_mask(main_mask, object_mask), shadow_hint
    )
    stretched = resize(reference, size_of(source), Resampling.LANCZOS)
    return Conditions(
        source,
        (stretched, as_rgb(positioned), background),
        {
            "original": source,
            "mask_A": main_mask,
            # masked_background() paints black; inverted twice it paints white.
            "masked_R": ~masked_background(~reference, ~object_mask),
            "reference_image": reference,
            "positioned_mask_R": positioned,
        },
        composite_mask=positioned,
        derived_masks={"positioned_mask_R": positioned},
    )


def _main_mask(request: EditRequest, resampling: Resampling) -> Pixels:
    """Return mask A in the geometry of the processed input, soft, uint8 [height, width].

    First stretch it to the size of the input as sent. So a mask of any size covers the same part
    of the padded picture.
    """
    mask = grey(request.conditional_images[0])
    stretched = resize(mask, size_of(request.image), resampling)
    return apply_quality(stretched, request.input_quality, "CONDITIONAL_IMAGES[0]")


def _extra_conditions(request: EditRequest, source: Pixels) -> dict[str, Pixels]:
    """Return the conditional images after mask A, stretched to the processed input, by label.

    Only removal and the two single-source insertions use them.
    """
    return {
        f"extra_{index}": resize(image, size_of(source), Resampling.LANCZOS)
        for index, image in enumerate(request.conditional_images[1:], start=1)
    }


def _mask_and_background(source: Pixels, mask: Pixels, shadow_hint: bool) -> tuple[Pixels, Pixels]:
    """Return the mask and masked_bg of an insertion with a reference, with the hint if it is on."""
    if not shadow_hint:
        return mask, masked_background(source, mask)
    shadow = cast_shadow(mask)
    return expand_mask(mask, shadow), masked_background(darken(source, mask, shadow), mask)
