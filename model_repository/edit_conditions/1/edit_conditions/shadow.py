"""Owns the shadow hint: a soft drop shadow that shows insertion where its object stands."""

import cv2
import numpy as np
import numpy.typing as npt

from edit_conditions.images import Pixels
from edit_conditions.masks import HARD_THRESHOLD, dilate

SHIFT_X, SHIFT_Y = 3, 5
BLUR_SIZE = 21
OPACITY = 0.4
EXPANSION_RADIUS = 3

# float32 [height, width], 0 = lit, 1 = darkest.
Shadow = npt.NDArray[np.float32]


def cast_shadow(mask: Pixels) -> Shadow:
    """Move the hard mask by the shift and fade it in from the top to the bottom of its box."""
    shadow = np.zeros(mask.shape, dtype=np.float32)
    shadow[SHIFT_Y:, SHIFT_X:] = (mask > HARD_THRESHOLD)[:-SHIFT_Y, :-SHIFT_X]
    rows = np.flatnonzero(shadow.any(axis=1))
    if rows.size:
        top, bottom = rows[0], rows[-1] + 1
        shadow[top:bottom] *= np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None]
    return shadow


def darken(image: Pixels, mask: Pixels, shadow: Shadow) -> Pixels:
    """Darken the picture by the blurred shadow, except on the object itself."""
    soft: Shadow = cv2.GaussianBlur(shadow, (BLUR_SIZE, BLUR_SIZE), 0)
    light = 1 - OPACITY * soft * (mask <= HARD_THRESHOLD)
    return np.rint(image * light[:, :, None]).astype(np.uint8)


def expand_mask(mask: Pixels, shadow: Shadow) -> Pixels:
    """Unite the mask with its shadow and grow it by a 7x7 ellipse; it stays soft."""
    return dilate(np.maximum(mask, np.rint(shadow * 255).astype(np.uint8)), EXPANSION_RADIUS)
