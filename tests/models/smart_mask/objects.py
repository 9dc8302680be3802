"""Features worked out by hand: each object is a rectangle with a prototype of its own."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from smart_mask.features import STRIDE, Features
from smart_mask.letterbox import Letterbox

SIDE = 64

Box = tuple[int, int, int, int]


def features(
    *objects: tuple[Box, float],
    width: int = SIDE,
    height: int = SIDE,
    holes: dict[int, Box] | None = None,
) -> Features:
    """Return detections that fill their boxes, most confident first as they are given.

    Args:
        objects: box (multiples of 4, in pixels of a square of SIDE) and score of each.
        width: of the picture.
        height: of the picture.
        holes: by object, a box within its own that its mask leaves out.
    """
    small = SIDE // STRIDE
    prototypes = np.full((32, small, small), -1, np.float16)
    coefficients = np.zeros((len(objects), 32), np.float16)
    for index, (box, _) in enumerate(objects):
        coefficients[index, index] = 1
        prototypes[index][_cells(box)] = 1
        if holes and index in holes:
            prototypes[index][_cells(holes[index])] = -1
    areas = [np.count_nonzero(prototypes[index] > 0) for index in range(len(objects))]
    return Features(
        Letterbox.fit(width, height, SIDE),
        boxes=np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in objects], np.float32),
        coefficients=coefficients,
        prototypes=prototypes,
        areas=np.array(areas, np.float32),
    )


def png(width: int = 40, height: int = 30, colour: tuple[int, int, int] = (9, 9, 9)) -> bytes:
    """Return a flat picture."""
    buffer = BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _cells(box: Box) -> tuple[slice, slice]:
    left, top, right, bottom = (edge // STRIDE for edge in box)
    return slice(top, bottom), slice(left, right)
