"""Owns reading the outputs of a FastSAM network: detections, and the mask of each."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
# These three are ultralytics' defaults for FastSAM.
CONFIDENCE = 0.25
OVERLAP = 0.7
MAX_DETECTIONS = 300


@dataclass(frozen=True)
class Detections:
    """Detections of one image, the surest first."""

    boxes: FloatArray
    """float32 [n, 4], x0, y0, x1, y1 in pixels of the network's input."""
    scores: FloatArray
    """float32 [n], 0..1."""
    masks: npt.NDArray[np.bool_]
    """bool [n, size, size]."""
    anchors: npt.NDArray[np.int64]
    """int64 [n], index of each detection in the network's predictions."""


def network_input(picture: npt.NDArray[np.uint8]) -> FloatArray:
    """Turn RGB uint8 [height, width, 3] into float32 [1, 3, height, width] in 0..1."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / 255


def decode(
    predictions: FloatArray,
    prototypes: FloatArray,
    size: int,
    confidence: float = CONFIDENCE,
    overlap: float = OVERLAP,
) -> Detections:
    """Read the network's outputs for one image.

    Args:
        predictions: float32 [37, anchors]: centre x, centre y, width, height, score, coefficients.
        prototypes: float32 [32, size / 4, size / 4].
        size: side of the network's input, in pixels.
        confidence: a detection must score more than this.
        overlap: of two boxes with a larger IoU, only the surer one stays.

    Returns:
        At most 300 detections. A mask is true where coefficients times prototypes are positive
        and inside the box.
    """
    sure = np.flatnonzero(predictions[4] > confidence)
    order = sure[np.argsort(-predictions[4, sure], kind="stable")]
    boxes = _boxes(predictions[:, order])
    kept = suppress(boxes, overlap)[:MAX_DETECTIONS]
    anchors = order[kept]
    masks = masks_at(anchors, predictions, prototypes, size)
    return Detections(boxes[kept], predictions[4, anchors], masks, anchors)


def masks_at(
    anchors: npt.NDArray[np.int64], predictions: FloatArray, prototypes: FloatArray, size: int
) -> npt.NDArray[np.bool_]:
    """Return the masks of given anchors, bool [n, size, size]; arguments as for `decode`."""
    chosen = predictions[:, anchors]
    logits = np.tensordot(chosen[5:].T, prototypes, axes=1)
    masks = np.zeros((len(anchors), size, size), bool)
    for mask, logit, box in zip(masks, logits, _boxes(chosen), strict=True):
        left, top = np.ceil(np.maximum(box[:2], 0)).astype(int)
        right, bottom = np.ceil(np.clip(box[2:], 0, size)).astype(int)
        enlarged = cv2.resize(logit, (size, size), interpolation=cv2.INTER_LINEAR)
        mask[top:bottom, left:right] = enlarged[top:bottom, left:right] > 0
    return masks


def suppress(boxes: FloatArray, overlap: float) -> list[int]:
    """Keep each box that overlaps no box kept before it by more than a given IoU.

    Args:
        boxes: float32 [n, 4], x0, y0, x1, y1, the surest first.
        overlap: the IoU above which the later box is dropped.

    Returns:
        Indices of the kept boxes, ascending.
    """
    kept: list[int] = []
    rest = np.arange(len(boxes))
    while len(rest):
        first, rest = int(rest[0]), rest[1:]
        kept.append(first)
        rest = rest[box_iou(boxes[first], boxes[rest]) <= overlap]
    return kept


def box_iou(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Return the IoU of one box [4] with each of [n, 4], float32 [n]; 0 where both are empty."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    iou: FloatArray = shared / np.maximum(union, 1e-9)
    return iou


def mask_iou(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Return the IoU of two masks of one shape; 1 where both are empty."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0


def _boxes(predictions: FloatArray) -> FloatArray:
    centres, halves = predictions[:2].T, predictions[2:4].T / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)
