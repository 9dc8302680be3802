"""Owns the way from the generated regions to the picture that the client gets."""

from collections.abc import Sequence

import cv2
import numpy as np

from image_edit.colours import fit
from image_edit.conditions import Conditions, Pixels, Region
from image_edit.paste import blended, laid_over, resized, without_white
from model_kit.colour import from_srgb, tagged_png

WHITE_BALANCE = "white-balance"


def finish(generated: Sequence[Pixels], conditions: Conditions) -> Pixels:
    """Bring what was generated into its picture.

    - A white balance that was generated at another size than its picture's, or of a region, gives a
      smooth change of colours, which is applied to the picture: its detail stays.
    - A composited edit is laid over the picture through its feathered masks; elsewhere the
      picture's own values stay, in the picture's own profile. What is inserted where the picture
      is transparent keeps its own colour, also at its soft edge. Any other edit looks on white as
      it was generated, as far as the picture's transparency lets it.
    - Any other edit is the generated frame.

    Args:
        generated: for each region, sRGB uint8 [height, width, 3] of the canvas's size.
        conditions: of the edit.

    Returns:
        uint8 [height, width, 3 or 4], in the profile of `conditions`.
    """
    picture = conditions.picture.copy()
    for region, canvas in zip(conditions.regions, generated, strict=True):
        patch = canvas[: region.content[1], : region.content[0]]
        window = region.box.window
        below = picture[window]
        colours = below[..., :3]
        result = _result(patch, below, region, conditions)
        mask = region.paste_mask
        if below.shape[2] == 4 and mask is not None and _adds(conditions):
            picture[window][..., 3], mask = laid_over(below[..., 3], mask)
        picture[window][..., :3] = (
            result if mask is None or not conditions.composited else blended(colours, result, mask)
        )
    return resized(framed(picture, conditions.square), conditions.size)


def framed(picture: Pixels, square: int | None) -> Pixels:
    """Put a picture into the middle of its black square, if it has one."""
    if square is None:
        return picture
    height, width = picture.shape[:2]
    frame = np.zeros((square, square, picture.shape[2]), np.uint8)
    left, top = (square - width) // 2, (square - height) // 2
    frame[top : top + height, left : left + width] = picture
    return frame


def encode_png(picture: Pixels, profile: bytes | None) -> bytes:
    """Encode a picture, lossless, tagged with what its pixels are.

    OpenCV's default settings make larger files than Pillow's, some ten times faster.

    Args:
        picture: uint8 [height, width, 3 or 4].
        profile: an ICC profile; None: sRGB.
    """
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, order))
    return tagged_png(data.tobytes(), profile)


def _result(patch: Pixels, below: Pixels, region: Region, conditions: Conditions) -> Pixels:
    """Return one region's result at the picture's resolution and in its profile."""
    size = region.box.width, region.box.height
    alpha = below[..., 3] if below.shape[2] == 4 else None
    scaled = region.content != size
    if conditions.task_type == WHITE_BALANCE and (scaled or conditions.in_place):
        # The first condition is the picture itself, as the model saw it.
        seen = region.images[0][: region.content[1], : region.content[0]]
        shown = None if alpha is None else resized(alpha, region.content)
        # In the picture's own profile: sRGB would take its most vivid colours.
        return fit(seen, patch, shown, conditions.profile).apply(below[..., :3])
    result = resized(patch, size)
    if alpha is not None and not _adds(conditions):
        # The model saw the picture on white, which shows through once more.
        result = without_white(result, alpha)
    return result if conditions.profile is None else from_srgb(result, conditions.profile)


def _adds(conditions: Conditions) -> bool:
    """Return whether the edit may draw where the picture is transparent."""
    return conditions.task_type == "insertion"
