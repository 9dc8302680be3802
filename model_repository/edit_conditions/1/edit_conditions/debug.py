"""Owns the part of debug_info that conditioning knows, as JSON."""

import json

from PIL.Image import Resampling

from edit_conditions.flows import Conditions
from edit_conditions.images import Pixels, encode_png, resize, size_of
from edit_conditions.request import EditRequest

# Longest side of a picture in debug_info. People only look at it, and the largest picture that a
# request may carry would make a JSON of hundreds of megabytes.
MAX_SIDE = 2048


def debug_info(request: EditRequest, conditions: Conditions) -> str:
    """List what the edit was conditioned on.

    Returns:
        JSON object of `conditional_images` (base64 PNG each) with `conditional_labels`,
        `input_image_size` ("WxH" as decoded), `original_image`, and, if the edit has them,
        `mask_A`, `reference_image`, `reference_mask_R` (all as sent), `mask_mae_dilated`,
        `positioned_mask_R`.
    """
    named = {"original_image": request.image}
    if request.task.needs_mask:
        named["mask_A"] = request.conditional_images[0]
    if request.reference_image is not None:
        named["reference_image"] = request.reference_image
    if request.reference_mask is not None:
        named["reference_mask_R"] = request.reference_mask
    named.update(conditions.derived_masks)

    # Several entries may be the same array, which is encoded once.
    arrays = (*conditions.shown.values(), *named.values())
    encoded = {key: _encode(pixels) for key, pixels in {id(a): a for a in arrays}.items()}
    return json.dumps(
        {
            "conditional_images": [encoded[id(a)] for a in conditions.shown.values()],
            "conditional_labels": list(conditions.shown),
            "input_image_size": "{}x{}".format(*size_of(request.image)),
            **{key: encoded[id(pixels)] for key, pixels in named.items()},
        }
    )


def _encode(pixels: Pixels) -> str:
    longest = max(size_of(pixels))
    if longest > MAX_SIDE:
        width, height = (max(1, length * MAX_SIDE // longest) for length in size_of(pixels))
        pixels = resize(pixels, (width, height), Resampling.BOX)
    return encode_png(pixels)
