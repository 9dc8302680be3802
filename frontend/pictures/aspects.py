"""Owns the doubt about a mask that has another aspect than its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_kit.sizes import Size

# Ratio of two aspects up to which one is the other, scaled and rounded to whole pixels.
ALIKE = 1.05


def stretched(field: str, mask: Size, picture: Size) -> list[str]:
    """Return a warning if a mask is stretched out of its aspect, else nothing.

    It was likely drawn on another picture, or before its picture was turned.

    Args:
        field: the mask's, with which the warning begins.
        mask: width and height of the mask as shown.
        picture: of the picture, likewise.
    """
    (width, height), (across, down) = mask, picture
    if 1 / ALIKE < width * down / (height * across) < ALIKE:
        return []
    return [f"{field}: a mask of {width}x{height} is stretched to the picture of {across}x{down}"]
