"""Owns the shadow hint: a soft drop shadow that shows insertion where its object stands."""

import cv2
import numpy as np
import numpy.typing as npt

from edit_conditions.images import Pixels
from edit_conditions.masks import HARD_THRESHOLD, dilate

# In pixels of the picture, however large the model sees it.
SHIFT_X, SHIFT_Y = 3, 5
BLUR_RADIUS = 10
EXPANSION_RADIUS = 3
OPACITY = 0.4
MAX_SCALE = 8.0
"""At which a shadow is cast on a part of a few pixels, however much the model sees it enlarged: a
mask that grows by as many pixels as the canvas has takes seconds."""

# float32 [height, width], 0 = lit, 1 = darkest.
Shadow = npt.NDArray[np.float32]


def cast_shadow(mask: Pixels, scale: float = 1.0) -> Shadow:
    """Move the hard mask by the shift and fade it in from the top to the bottom of its box.

    Args:
        mask: uint8 [height, width].
        scale: pixels of the mask for each pixel of the picture.
    """
    right, down = round(SHIFT_X * scale), round(SHIFT_Y * scale)
    height, width = mask.shape
    shadow = np.zeros(mask.shape, dtype=np.float32)
    hard = mask > HARD_THRESHOLD
    shadow[down:, right:] = hard[: max(0, height - down), : max(0, width - right)]
    rows = np.flatnonzero(shadow.any(axis=1))
    if rows.size:
        top, bottom = rows[0], rows[-1] + 1
        shadow[top:bottom] *= np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None]
    return shadow


def darken(image: Pixels, mask: Pixels, shadow: Shadow, scale: float = 1.0) -> Pixels:
    """Darken the picture by the blurred shadow, except on the object itself."""
    side = 2 * round(BLUR_RADIUS * scale) + 1
    soft: Shadow = cv2.GaussianBlur(shadow, (side, side), 0)
    light = 1 - OPACITY * soft * (mask <= HARD_THRESHOLD)
    return np.rint(image * light[:, :, None]).astype(np.uint8)


def expand_mask(mask: Pixels, shadow: Shadow, scale: float = 1.0) -> Pixels:
    """Unite the mask with its shadow and grow it by a 7x7 ellipse; it stays soft."""
    united = np.maximum(mask, np.rint(shadow * 255).astype(np.uint8))
    return dilate(united, round(EXPANSION_RADIUS * scale))
