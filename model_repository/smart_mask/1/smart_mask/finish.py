"""Owns turning a raw mask into a usable one: remove specks, move the border, soften edges."""

import math

import cv2
import numpy as np

from smart_mask.letterbox import Pixels, above

MAX_BORDER = 50
# Existing clients expect these radii (pixels), standard deviations and thresholds.
_OPENING, _CLOSING, _EROSION = 3, 2, 1
_SMOOTHING, _FIRST_THRESHOLD = 1.0, 0.25
_SECOND_SMOOTHING, _SECOND_THRESHOLD = 0.7, 0.4
_EDGE_SMOOTHING = 0.3
_BLUR = 1.5
# The first smoothing and its threshold move a straight edge out by so many standard deviations.
_MOST_GROWTH = 0.7
# Reach of a smoothing's kernel in standard deviations; OpenCV's own choice for 8 bits.
_KERNEL_REACH = 3
# A pixel above it belongs to the mask.
_HALF = 127
# Pixels. A Gaussian is computed on a smaller copy as long as it is at least so wide there.
_LEAST_SIGMA = 1.7


def finish(mask: Pixels, *, border: int, blur: bool) -> Pixels:
    """Clean and soften a mask.

    The steps: opening; growing or shrinking; median; smoothing and threshold; closing; smoothing
    and threshold; erosion; a last smoothing that makes the edges soft. All disks are Euclidean.
    An object too thin for the opening skips it. An object too small for the other steps stays as
    it is, unless it should shrink.

    Args:
        mask: uint8 [height, width], 0 or 255.
        border: -MAX_BORDER..MAX_BORDER; the mask grows, or below 0 shrinks, by half as many
            pixels, at least one.
        blur: softer edges.

    Returns:
        uint8 [height, width], 0..255; nothing above 127 if the mask has shrunk to nothing.
    """
    height, width = mask.shape
    sigma = max(3.0, min(width, height) / 200) * (_BLUR if blur else 1)
    finished = np.zeros_like(mask)
    # Only a region near the mask changes; beyond it, everything is and stays 0. The region is the
    # same for every border, and so are the grids of the smaller copies: otherwise more border could
    # give less mask. The first threshold moves an edge out by at most 0.7 deviations, the second
    # not at all. The last smoothing reaches as far as its kernel.
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
    """Return the pixels at most radius away from the middle; OpenCV's ellipse differs from it."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.uint8)


def _dilate(mask: Pixels, radius: int) -> Pixels:
    # Nothing beyond the picture's border grows into it or, in `_erode`, shrinks the mask.
    grown: Pixels = cv2.dilate(mask, _disk(radius))
    return grown


def _erode(mask: Pixels, radius: int) -> Pixels:
    shrunk: Pixels = cv2.erode(mask, _disk(radius))
    return shrunk


def _median(mask: Pixels) -> Pixels:
    """Return the majority of each pixel and its four neighbours; the border is repeated."""
    votes = cv2.filter2D(mask & 1, cv2.CV_8U, _disk(1), borderType=cv2.BORDER_REPLICATE)
    return above(votes, 2)


def _smooth(mask: Pixels, sigma: float) -> Pixels:
    """Smooth by a Gaussian of a standard deviation in pixels, on a copy as small as possible.

    A wide Gaussian leaves no detail that a copy, shrunk by a fraction of its deviation, would lose.
    So the cost per pixel is the same at any width. Rounding to 8 bits and the copies move an edge
    by less than a thirtieth of the deviation.
    """
    shrink = max(1, int(sigma / _LEAST_SIGMA))
    height, width = mask.shape
    small = mask
    if shrink > 1:
        size = (math.ceil(width / shrink), math.ceil(height / shrink))
        small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        # Shrinking and enlarging smooth too, by the variances of a box and of a triangle.
        sigma = math.sqrt((sigma / shrink) ** 2 - 1 / 12 - 1 / 6)
    side = 2 * math.ceil(_KERNEL_REACH * sigma) + 1
    smooth: Pixels = cv2.GaussianBlur(small, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    if shrink > 1:
        smooth = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    return smooth
