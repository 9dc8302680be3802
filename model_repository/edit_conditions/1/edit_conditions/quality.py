"""Owns input_quality: the size at which an edit works on its picture."""

from enum import StrEnum

import numpy as np
from PIL.Image import Resampling

from edit_conditions.images import Pixels, resize, size_of
from model_kit.errors import invalid

# Longest side up to the first number -> side of the square.
_SQUARES = ((640, 512), (896, 768), (1280, 1024), (1792, 1536))
_LARGEST_SQUARE = 2048

# Qwen2-VL's image processor refuses more than 200:1, after rounding of its own.
MAX_ASPECT_RATIO = 100


class InputQuality(StrEnum):
    """RESIZED works on a padded square of a fixed size, ORIGINAL on the picture as sent."""

    RESIZED = "resized"
    ORIGINAL = "original"


def apply_quality(pixels: Pixels, quality: InputQuality, field: str) -> Pixels:
    """Make the working version of an input picture, or of its mask of the same size.

    Args:
        pixels: uint8 [height, width] or [height, width, 3].
        quality: RESIZED scales (LANCZOS, keeps the aspect) and centres on a black square.
        field: the input's name, for the error.

    Returns:
        The same rank and dtype: a square of 512, 768, 1024, 1536 or 2048, or the input.

    Raises:
        CodedError: INVALID_ARGUMENT: an unpadded picture more elongated than MAX_ASPECT_RATIO.
    """
    if quality is InputQuality.RESIZED:
        return _letterbox(pixels, square_side(max(size_of(pixels))))
    width, height = size_of(pixels)
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise invalid(field, f"{width}x{height} is more elongated than {MAX_ASPECT_RATIO}:1")
    return pixels


def square_side(longest: int) -> int:
    """Return the side of the working square for a picture with this longest side, in pixels."""
    return next((side for limit, side in _SQUARES if longest <= limit), _LARGEST_SQUARE)


def _letterbox(pixels: Pixels, side: int) -> Pixels:
    longest = max(size_of(pixels))
    width, height = (max(1, length * side // longest) for length in size_of(pixels))
    left, top = (side - width) // 2, (side - height) // 2
    square = np.zeros((side, side, *pixels.shape[2:]), dtype=np.uint8)
    square[top : top + height, left : left + width] = resize(
        pixels, (width, height), Resampling.LANCZOS
    )
    return square
