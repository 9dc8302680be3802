"""Owns the part of debug_info that conditioning knows, as JSON."""

import json
from collections.abc import Sequence

from PIL.Image import Resampling

from edit_conditions.flows import SceneConditions
from edit_conditions.images import Pixels, encode_png, resize, size_of
from edit_conditions.request import ConditionsRequest

# Longest side of a picture in debug_info: it is there to be looked at, and the largest
# picture that a request may carry would make a JSON of hundreds of megabytes.
MAX_SIDE = 2048


def debug_info(request: ConditionsRequest, conditions: Sequence[SceneConditions]) -> str:
    """List what the edit was conditioned on.

    Args:
        request: the edit.
        conditions: of each of its regions.

    Returns:
        JSON object of `conditional_images` (base64 PNG each) with `conditional_labels`,
        `input_image_size` ("WxH" as decoded), `original_image`, and, where the edit has them,
        `mask_A`, `reference_image`, `reference_mask_R` (all as sent), `mask_mae_dilated`,
        `positioned_mask_R`. Labels and masks of a second region end in `_2`, and so on.
    """
    shown: dict[str, Pixels] = {}
    original = request.picture.shown()
    named = {"original_image": original}
    if request.mask is not None:
        named["mask_A"] = request.mask
    if request.reference_image is not None:
        named["reference_image"] = request.reference_image
    if request.reference_mask is not None:
        named["reference_mask_R"] = request.reference_mask
    for number, of_region in enumerate(conditions, start=1):
        suffix = f"_{number}" if number > 1 else ""
        shown |= {label + suffix: pixels for label, pixels in of_region.shown.items()}
        named |= {key + suffix: mask for key, mask in of_region.derived_masks.items()}

    # Several entries are one and the same array: it is encoded once.
    arrays = (*shown.values(), *named.values())
    encoded = {key: _encode(pixels) for key, pixels in {id(a): a for a in arrays}.items()}
    return json.dumps(
        {
            "conditional_images": [encoded[id(a)] for a in shown.values()],
            "conditional_labels": list(shown),
            "input_image_size": "{}x{}".format(*size_of(original)),
            **{key: encoded[id(pixels)] for key, pixels in named.items()},
        }
    )


def _encode(pixels: Pixels) -> str:
    longest = max(size_of(pixels))
    if longest > MAX_SIDE:
        width, height = (max(1, length * MAX_SIDE // longest) for length in size_of(pixels))
        pixels = resize(pixels, (width, height), Resampling.BOX)
    return encode_png(pixels)
