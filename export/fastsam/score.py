"""Owns measuring a mask network on scenes that it has not seen."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from export.fastsam.decoding import FloatArray, box_iou, decode, mask_iou, network_input
from export.scenes.masks import Scene, draw_scene

# No training seed comes near this number.
FIRST_HELD_OUT = 2**40
# Images [n, 3, size, size] -> predictions and prototypes, as export.fastsam.decoding reads them.
RunNetwork = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Score:
    """Means over all objects. An object that gets no mask counts as IoU 0."""

    scenes: int
    """How many scenes."""
    objects: int
    """How many objects in them."""
    confidence: float
    """Each detection had to score more than this, 0..1."""
    click_mean: float
    """Mean IoU of the surest mask at the object's innermost point."""
    click_median: float
    """Median of the same IoU."""
    click_missed: float
    """The fraction of objects that have no mask at their innermost point."""
    box_mean: float
    """Mean IoU of the mask whose box fits the object's box best."""


def held_out_scenes(count: int, size: int) -> list[Scene]:
    """Draw the first scenes of those that are kept for measuring."""
    return [draw_scene(FIRST_HELD_OUT + index, size) for index in range(count)]


def score(network: RunNetwork, scenes: list[Scene], confidence: float) -> Score:
    """Ask the network for every object of every scene, by a click and by a box.

    Args:
        network: the network. Its input is as large as the scenes.
        scenes: they show at least one object.
        confidence: a detection must score more than this.

    Returns:
        The score.
    """
    clicks: list[float | None] = []
    boxes = []
    for scene in scenes:
        images = network_input(scene.picture)
        predictions, prototypes = network(images)
        found = decode(predictions[0], prototypes[0], images.shape[-1], confidence)
        for label in range(1, int(scene.labels.max()) + 1):
            truth = scene.labels == label
            x, y = innermost(truth)
            at_click = np.flatnonzero(found.masks[:, y, x])
            clicks.append(mask_iou(truth, found.masks[at_click[0]]) if len(at_click) else None)
            fits = box_iou(_box(truth), found.boxes)
            boxes.append(mask_iou(truth, found.masks[fits.argmax()]) if fits.any() else 0.0)
    ious = [click or 0.0 for click in clicks]
    return Score(
        scenes=len(scenes),
        objects=len(clicks),
        confidence=confidence,
        click_mean=float(np.mean(ious)),
        click_median=float(np.median(ious)),
        click_missed=clicks.count(None) / len(clicks),
        box_mean=float(np.mean(boxes)),
    )


def innermost(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return x and y of the pixel deepest inside a mask; the picture's edge counts as a rim."""
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def _box(mask: npt.NDArray[np.bool_]) -> FloatArray:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([left, top, left + width, top + height], np.float32)
