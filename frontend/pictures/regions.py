"""Owns what can be said of a region before the models see it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from frontend.errors import InvalidInputError
from model_kit import raster

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pixels of the mask that reach into others when it is stretched.
REACH = 4


def check_region(region: Sequence[int], image: bytes, mask: bytes | None) -> None:
    """Refuse a region that the model would refuse after the edit has waited.

    Args:
        region: x0, y0, x1, y1 with x0 < x1 and y0 < y1, in pixels of the image.
        image: plain pixels.
        mask: plain pixels, white = edit, which are stretched to the image; None: not looked at.

    Raises:
        InvalidInputError: the region does not lie inside the image, or nothing of the mask is in
            it. The model judges what is less clear.
    """
    left, top, right, bottom = region
    width, height = raster.size_of(image)
    if right > width or bottom > height:
        raise InvalidInputError(
            f"region: {list(region)} does not lie inside the picture of {width}x{height}"
        )
    if mask is not None:
        pixels, _, _ = raster.read(mask, sys.maxsize)
        rows = _near(top, bottom, pixels.shape[0] / height)
        columns = _near(left, right, pixels.shape[1] / width)
        if not pixels[rows, columns].any():
            raise InvalidInputError("region: holds nothing of the mask")


def _near(start: int, end: int, scale: float) -> slice:
    """Return the pixels of a mask that may be set between two of the image's."""
    return slice(max(int(start * scale) - REACH, 0), int(end * scale) + REACH + 1)
