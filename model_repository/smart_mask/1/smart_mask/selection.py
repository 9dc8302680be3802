"""Owns which detection the prompts mean."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smart_mask.features import STRIDE, Features
from smart_mask.letterbox import Floats

# A smaller detection wins only if it has at least this fraction of the best one's confidence.
CONFIDENT_FRACTION = 0.7
# The coarse intersection over union with a box is at least this fraction of the true one, less
# this difference.
COARSE_FRACTION, COARSE_DIFFERENCE = 0.7, 0.02
# How many masks are made and compared exactly with a box, the best by the coarse comparison.
MAX_COMPARED = 24
# A detection that covers a larger fraction of the picture is its background.
BACKGROUND_FRACTION = 0.9
# Pixels of the network's input. Resizing may move a mask out of its box by so many.
_REACH = 1


def by_points(features: Features, points: Floats, labels: npt.NDArray[np.bool_]) -> int | None:
    """Find the smallest confident mask that holds every positive point and no negative one.

    If no mask holds every positive point, those that hold the most count: a brush stroke may
    leave its object.

    Args:
        features: of the picture.
        points: float32 [n, 2], x and y in pixels of the picture; no mask holds one outside.
        labels: [n], True for positive; at least one is.

    Returns:
        The detection's index; None if no mask holds a positive point.
    """
    letterbox = features.letterbox
    pixels = points.astype(np.int64).clip(0, (letterbox.width - 1, letterbox.height - 1))
    held = features.hold(*pixels.T) & letterbox.hold(points)
    counts = np.count_nonzero(held[:, labels], axis=1)
    counts[held[:, ~labels].any(axis=1)] = 0
    if not counts.any():
        return None
    best = np.flatnonzero(counts == counts.max())
    scores = features.scores[best]
    confident = best[scores >= CONFIDENT_FRACTION * scores.max()]
    return int(confident[np.argmin(features.areas[confident])])


def by_box(features: Features, box: Floats, check: Callable[[], None]) -> int | None:
    """Find the mask with the highest intersection over union with a box.

    Of equal masks the more confident wins.

    Args:
        features: of the picture.
        box: float32 [4], x0 y0 x1 y1 in pixels of the picture. It is cut to the picture, rounded
            down to whole pixels, and covers at least one each way.
        check: called before each exact comparison; whatever it raises ends the search.

    Returns:
        The detection's index; None if no mask overlaps the box.
    """
    letterbox = features.letterbox
    cut = box.clip(0, (letterbox.width, letterbox.height) * 2)
    if (cut[:2] >= cut[2:]).any():
        return None
    pixels = cut.astype(np.int64)
    pixels[2:] = np.maximum(pixels[2:], pixels[:2] + 1)
    left, top, right, bottom = pixels.tolist()
    area = (right - left) * (bottom - top)
    place = letterbox.into_square(pixels.reshape(2, 2).astype(np.float32)).reshape(4)
    coarse = _coarse_ious(features, place)
    near = np.flatnonzero(_overlapping(features, place))
    promising = near[np.argsort(-coarse[near], kind="stable")][:MAX_COMPARED]
    best, best_iou = None, 0.0
    for index in promising.tolist():
        if coarse[index] < COARSE_FRACTION * best_iou - COARSE_DIFFERENCE:
            break
        check()
        mask = features.mask(index)
        inside = np.count_nonzero(mask[top:bottom, left:right])
        iou = inside / (area + np.count_nonzero(mask) - inside)
        if iou > best_iou or (iou == best_iou and best is not None and index < best):
            best, best_iou = index, iou
    return best


def most_salient(features: Features) -> int | None:
    """Find the object that the picture is most likely about.

    Saliency is confidence times the square root of the covered fraction of the picture times
    1 - d / 2, where d is the distance of the box's centre from the picture's, in halves of its
    diagonal. So an object in a corner counts half as much as in the middle, and an object with
    twice the sides counts twice. A detection that covers nearly all of the picture wins only if
    there is no other.

    Returns:
        The detection's index; None if no detection has a mask.
    """
    if not features.areas.any():
        return None
    letterbox = features.letterbox
    size = np.array([letterbox.inner_width, letterbox.inner_height])
    middle = size / 2 + (letterbox.left, letterbox.top)
    offsets = (features.boxes[:, :2] + features.boxes[:, 2:]) / 2 - middle
    distances = np.hypot(*offsets.T) / np.hypot(*size / 2)
    fractions = features.areas * STRIDE**2 / size.prod()
    saliency = features.scores * np.sqrt(fractions) * (1 - distances.clip(0, 1) / 2)
    background = fractions > BACKGROUND_FRACTION
    return int(np.argmax(np.where(background & ~background.all(), 0, saliency)))


def _overlapping(features: Features, place: Floats) -> npt.NDArray[np.bool_]:
    """Find the masks that may have a pixel in a box, [4], in the network's input."""
    starts = np.maximum(features.boxes[:, :2] - _REACH, place[:2])
    ends = np.minimum(features.boxes[:, 2:] + _REACH, place[2:])
    touching: npt.NDArray[np.bool_] = (starts <= ends).all(axis=1)
    return touching


def _coarse_ious(features: Features, place: Floats) -> Floats:
    """Estimate the intersection over union of each mask with a box in the network's input."""
    inside = features.coarse_overlaps(place)
    area = float((place[2:] - place[:2]).prod()) / STRIDE**2
    return inside / (area + features.areas - inside)
