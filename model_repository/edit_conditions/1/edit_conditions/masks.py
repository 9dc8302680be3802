"""Owns masks as soft alpha, uint8 [height, width]: 255 = edit, 0 = keep."""

from typing import NamedTuple

import cv2
import numpy as np

from edit_conditions.images import Pixels

# Above it a soft mask counts as set; a brush of half opacity gives 128.
HARD_THRESHOLD = 127


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of an array that the box covers."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


def grey(image: Pixels) -> Pixels:
    """Return the luma (ITU-R BT.601) of an RGB picture, uint8 [height, width]."""
    luma: Pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return luma


def as_rgb(mask: Pixels) -> Pixels:
    """Return a mask as the grey RGB picture that the model takes, uint8 [height, width, 3]."""
    return np.repeat(mask[:, :, None], 3, axis=2)


def binarise(mask: Pixels, threshold: int) -> Pixels:
    """Return 255 where the mask is above the threshold, else 0."""
    return np.where(mask > threshold, np.uint8(255), np.uint8(0))


def masked_background(image: Pixels, mask: Pixels) -> Pixels:
    """Return the picture times (1 - mask): black where the mask is white, soft at its edges."""
    keep = 255 - mask[:, :, None].astype(np.uint16)
    return ((image * keep + 127) // 255).astype(np.uint8)


def touched(hard: Pixels, size: tuple[int, int]) -> Pixels:
    """Bring a mask to another size so that every pixel which holds some of it is set.

    In an enlarged mask these are all pixels into which interpolation mixes a set one.

    Args:
        hard: 255 where set, else 0.
        size: width and height, both larger than the mask's or neither.

    Returns:
        255 where set, else 0; uint8 [height, width].
    """
    if (hard.shape[1], hard.shape[0]) == size:
        return hard
    shrunk = size[0] < hard.shape[1] or size[1] < hard.shape[0]
    interpolation = cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR
    # In floats, because a speck in a large picture is less than one of 255.
    fractions = cv2.resize(hard.astype(np.float32), size, interpolation=interpolation)
    return np.where(fractions > 0, np.uint8(255), np.uint8(0))


def dilate(mask: Pixels, radius: int) -> Pixels:
    """Grow a mask by an ellipse of 2 x radius + 1 pixels."""
    side = 2 * radius + 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    grown: Pixels = cv2.dilate(mask, ellipse)
    return grown


def feathered(hard: Pixels, radius: int) -> Pixels:
    """Fade a mask out around its set pixels.

    Args:
        hard: 255 where set, else 0.
        radius: in pixels; from the next pixel on the result is exactly 0.

    Returns:
        255 where set, falling smoothly outside.
    """
    distance = cv2.distanceTransform(255 - hard, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = np.clip(1 - distance / (radius + 1), 0, 1)
    smooth: Pixels = np.rint(255 * near * near * (3 - 2 * near)).astype(np.uint8)
    return smooth


def object_box(mask: Pixels) -> Box | None:
    """Return the box around all pixels above HARD_THRESHOLD; None if there are none."""
    left, top, width, height = cv2.boundingRect(binarise(mask, HARD_THRESHOLD))
    return Box(left, top, width, height) if width else None


def region_boxes(mask: Pixels, min_area: int) -> list[Box]:
    """Box the 4-connected regions above HARD_THRESHOLD with min_area pixels or more."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(
        binarise(mask, HARD_THRESHOLD), connectivity=4
    )
    # Row 0 is the background; the columns are left, top, width, height, area.
    large = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= min_area]
    return [Box(*row[:4]) for row in large.tolist()]
