"""Owns where a two-source insertion places the reference's object in the picture."""

import math

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from edit_conditions.images import Pixels, size_of
from edit_conditions.masks import Box, object_box, region_boxes
from model_kit.errors import invalid

MIN_REGION_AREA = 100
# Each region costs one resize of the whole mask R.
MAX_REGIONS = 64


def position_mask(main_mask: Pixels, reference_mask: Pixels, *, by_object: bool) -> Pixels:
    """Place mask R in every region of mask A and unite the copies.

    Each copy of the whole mask R is scaled so that its object fits the region's box.

    Args:
        main_mask: mask A, uint8 [height, width], at the picture's size.
        reference_mask: mask R, uint8 [any height, any width], with the reference's geometry.
        by_object: the middle of R's object is put on the middle of the region's box. Else it is the
            middle of the whole of R, as existing clients expect, and the copy is then moved so that
            it lies inside the picture, or covers the picture if it is larger: an object beside R's
            middle lies beside the region's.

    Returns:
        The positioned mask R, soft, uint8 [height, width] of mask A.

    Raises:
        CodedError: INVALID_ARGUMENT: mask R is empty, mask A has no region of MIN_REGION_AREA
            pixels or more than MAX_REGIONS of them, or no part of R's object lands in the picture
            as a pixel at least.
    """
    found = object_box(reference_mask)
    if found is None:
        raise invalid("REFERENCE_MASK_R", "No object found in mask (no white pixels)")
    regions = region_boxes(main_mask, MIN_REGION_AREA)
    if not regions:
        raise invalid(
            "CONDITIONAL_IMAGE_0",
            "No valid mask regions detected in main_mask_A: none has "
            f"{MIN_REGION_AREA} connected pixels; draw a larger mask",
        )
    if len(regions) > MAX_REGIONS:
        raise invalid(
            "CONDITIONAL_IMAGE_0", f"{len(regions)} separate regions, at most {MAX_REGIONS}"
        )
    positioned = np.zeros_like(main_mask)
    for region in regions:
        _place(positioned, reference_mask, found, region, by_object=by_object)
    if object_box(positioned) is None:
        raise invalid(
            "REFERENCE_MASK_R",
            "its object falls outside the image, or is smaller than a pixel, when placed on mask A",
        )
    return positioned


def _place(canvas: Pixels, mask: Pixels, found: Box, region: Box, *, by_object: bool) -> None:
    """Unite one scaled copy of the mask with the canvas, in place, by maximum."""
    scale = min(region.width / found.width, region.height / found.height)
    # Scaled lengths, canvas lengths and region centres, horizontal then vertical.
    scaled = [max(1, round(length * scale)) for length in size_of(mask)]
    centres = (region.left + region.width / 2, region.top + region.height / 2)
    x_ratio, y_ratio = (length / new for length, new in zip(size_of(mask), scaled, strict=True))
    if by_object:
        middles = (found.left + found.width / 2) / x_ratio, (found.top + found.height / 2) / y_ratio
        starts = [centre - own for centre, own in zip(centres, middles, strict=True)]
    else:
        starts = [
            float(_clamp(round(centre - length / 2), limit - length))
            for centre, length, limit in zip(centres, scaled, size_of(canvas), strict=True)
        ]
    (left, right), (top, bottom) = (
        _covered(start, length, limit)
        for start, length, limit in zip(starts, scaled, size_of(canvas), strict=True)
    )
    # Only the visible window is resized, so a very large copy costs no more.
    window = (
        max((left - starts[0]) * x_ratio, 0.0),
        max((top - starts[1]) * y_ratio, 0.0),
        min((right - starts[0]) * x_ratio, mask.shape[1]),
        min((bottom - starts[1]) * y_ratio, mask.shape[0]),
    )
    source, size = Image.fromarray(mask), (right - left, bottom - top)
    copy = np.asarray(source.resize(size, Resampling.LANCZOS, window))
    # LANCZOS rings: what it adds beyond the object would show as a second, faint outline.
    reached = np.asarray(source.resize(size, Resampling.BILINEAR, window)) > 0
    visible = canvas[top:bottom, left:right]
    np.maximum(visible, copy, out=visible, where=reached)


def _covered(start: float, length: int, limit: int) -> tuple[int, int]:
    """Return the first pixel that a copy covers whole and the one after the last, of `limit`.

    A copy of one pixel that starts within one covers none whole: then it is the one in its middle.
    """
    first, end = max(0, math.ceil(start)), min(limit, math.floor(start + length))
    if first < end:
        return first, end
    middle = min(max(0, math.floor(start + length / 2)), limit - 1)
    return middle, middle + 1


def _clamp(start: int, slack: int) -> int:
    """Keep a start between 0 and slack, which is negative if the copy is larger."""
    return max(min(0, slack), min(start, max(0, slack)))
