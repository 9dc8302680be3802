"""Owns what makes a usable mask of a raw one: specks off, border moved, edges softened."""

import math

import cv2
import numpy as np

from smart_mask.letterbox import Pixels, above

MAX_BORDER = 50
# Radii in pixels, standard deviations and thresholds of the chain that existing clients know.
_OPENING, _CLOSING, _EROSION = 3, 2, 1
_SMOOTHING, _FIRST_THRESHOLD = 1.0, 0.25
_SECOND_SMOOTHING, _SECOND_THRESHOLD = 0.7, 0.4
_EDGE_SMOOTHING = 0.3
_BLUR = 1.5
# By how many standard deviations the first smoothing and its threshold move a straight edge out.
_MOST_GROWTH = 0.7
# Where the kernel of a smoothing ends, in standard deviations; OpenCV's own choice for 8 bits.
_KERNEL_REACH = 3
# Above it a pixel belongs to the mask.
_HALF = 127
# Pixels; a Gaussian is computed on a smaller copy as long as it stays as wide there.
_LEAST_SIGMA = 1.7


def finish(mask: Pixels, *, border: int, blur: bool) -> Pixels:
    """Cleans and softens a mask.

    Opening, growing or shrinking, median, then twice smoothing and thresholding with a closing
    and an erosion, then a last smoothing that makes the edges soft. All disks are Euclidean. An
    object too thin for the opening skips it, and one that is too small for the rest stays as it
    is, unless it was to be shrunk.

    Args:
        mask: uint8 [height, width], 0 or 255.
        border: -MAX_BORDER..MAX_BORDER; the mask grows, or below 0 shrinks, by half as many
            pixels, at least one.
        blur: softer edges.

    Returns:
        uint8 [height, width], 0..255; nothing above 127 where all was shrunk away.
    """
    height, width = mask.shape
    sigma = max(3.0, min(width, height) / 200) * (_BLUR if blur else 1)
    finished = np.zeros_like(mask)
    # All happens near the mask; beyond, everything is 0 and stays so. The region is the same for
    # every border, and so are the grids of the smaller copies: more border is never less mask.
    # The first threshold is passed at most 0.7 deviations beyond an edge, the second nowhere
    # beyond it; what the last smoothing leaves ends with its kernel.
    spread = (_MOST_GROWTH + _KERNEL_REACH * _EDGE_SMOOTHING) * sigma
    reach = math.ceil(spread) + MAX_BORDER // 2 + _CLOSING + 4
    left, top, region_width, region_height = cv2.boundingRect(mask)
    if region_width:
        region = (
            slice(max(0, top - reach), top + region_height + reach),
            slice(max(0, left - reach), left + region_width + reach),
        )
        finished[region] = _finish_region(mask[region], border, sigma)
    return mask if border >= 0 and finished.max() <= _HALF else finished


def _finish_region(mask: Pixels, border: int, sigma: float) -> Pixels:
    opened = _dilate(_erode(mask, _OPENING), _OPENING)
    mask = opened if opened.any() else mask
    if border:
        move = _dilate if border > 0 else _erode
        mask = move(mask, max(1, abs(border) // 2))
    mask = _median(mask)
    mask = above(_smooth(mask, _SMOOTHING * sigma), 255 * _FIRST_THRESHOLD)
    mask = _erode(_dilate(mask, _CLOSING), _CLOSING)
    mask = above(_smooth(mask, _SECOND_SMOOTHING * sigma), 255 * _SECOND_THRESHOLD)
    mask = _erode(mask, _EROSION)
    return _smooth(mask, _EDGE_SMOOTHING * sigma)


def _disk(radius: int) -> Pixels:
    """The pixels at most radius away from the middle; OpenCV's own ellipse is another shape."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.uint8)


def _dilate(mask: Pixels, radius: int) -> Pixels:
    # Beyond the picture there is nothing to grow from, nor, below, anything that shrinks.
    grown: Pixels = cv2.dilate(mask, _disk(radius))
    return grown


def _erode(mask: Pixels, radius: int) -> Pixels:
    shrunk: Pixels = cv2.erode(mask, _disk(radius))
    return shrunk


def _median(mask: Pixels) -> Pixels:
    """The majority of each pixel and its four neighbours; beyond the picture it goes on alike."""
    votes = cv2.filter2D(mask & 1, cv2.CV_8U, _disk(1), borderType=cv2.BORDER_REPLICATE)
    return above(votes, 2)


def _smooth(mask: Pixels, sigma: float) -> Pixels:
    """Gaussian of a standard deviation in pixels, on a copy as small as the result allows.

    What a wide Gaussian leaves has no detail that a copy of a third of its deviation could not
    hold: so it costs the same per pixel at any width. Eight bits and the copies move an edge by
    less than a thirtieth of the deviation.
    """
    shrink = max(1, int(sigma / _LEAST_SIGMA))
    height, width = mask.shape
    small = mask
    if shrink > 1:
        size = (math.ceil(width / shrink), math.ceil(height / shrink))
        small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        # Shrinking and enlarging smooth too: by the variances of a box and of a triangle.
        sigma = math.sqrt((sigma / shrink) ** 2 - 1 / 12 - 1 / 6)
    side = 2 * math.ceil(_KERNEL_REACH * sigma) + 1
    smooth: Pixels = cv2.GaussianBlur(small, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    if shrink > 1:
        smooth = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    return smooth
