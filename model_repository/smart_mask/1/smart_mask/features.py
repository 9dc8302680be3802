"""Owns the features kept of the network's answer for one picture, and the masks in them."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from smart_mask.letterbox import Floats, Letterbox, Pixels, above

Halves = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]

# Pixels of the network's input that one pixel of a prototype covers, each way.
STRIDE = 4
# Pixels of the network's input. A box ends so much before the border at most where its object goes
# on: the demo's network was off by up to 2.4. At 3 it would swallow real gaps of 3 more often.
_BORDER_REACH = 2.5
# Detections that are compared at most; ultralytics has the same limit.
_MAX_COMPARED = 30_000


@dataclass(frozen=True, eq=False)
class Features:
    """The detections in one picture, the most confident first, and the prototypes of masks.

    Kept in half precision: a mask differs by at most 0.1 % of its pixels.
    """

    letterbox: Letterbox
    boxes: Floats
    """float32 [n, 4]: x0, y0, x1, y1 in pixels of the network's input."""
    scores: Floats
    """float32 [n], 0..1."""
    coefficients: Halves
    """float16 [n, 32]."""
    prototypes: Halves
    """float16 [32, side / 4, side / 4]."""
    areas: Floats
    """float32 [n]: pixels of each mask at the prototypes' size, without the letterbox's bars."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that the arrays hold."""
        arrays = (self.boxes, self.scores, self.coefficients, self.prototypes, self.areas)
        return sum(array.nbytes for array in arrays)

    def reaching_border(self) -> "Features":
        """Let boxes that end shortly before the picture's border end at it.

        The network places the edges of its boxes within a pixel or two of its input, which are ten
        pixels of a large picture. The mask itself goes to the border only where the prototypes say
        so. Thus an object that ends before the border keeps its edge.
        """
        boxes = self.letterbox.stretch(self.boxes, _BORDER_REACH)
        moved = (boxes != self.boxes).any(axis=1)
        areas = self.areas.copy()
        areas[moved] = _areas(
            self.letterbox, boxes[moved], self.coefficients[moved], self.prototypes
        )
        return replace(self, boxes=boxes, areas=areas)

    def mask(self, index: int) -> Pixels:
        """Make the mask of one detection over the picture.

        Multiply coefficients and prototypes, enlarge to the network's input, keep what is above 0
        within the detection's box, and undo the letterbox. Ultralytics does the same by default
        (`process_mask(upsample=True)`, `scale_masks`).

        Returns:
            uint8 [height, width], 0 or 255.
        """
        side = self.letterbox.side
        whole = np.zeros((side, side), np.uint8)
        left, top, right, bottom = _pixels_inside(self.boxes[index], side)
        if left < right and top < bottom:
            # A pixel more on each side, so that the edge of the cut does not show in the box.
            x, y = max(0, left // STRIDE - 1), max(0, top // STRIDE - 1)
            cut = self.prototypes[:, y : bottom // STRIDE + 2, x : right // STRIDE + 2]
            logits = _logits(self.coefficients[index : index + 1], cut)[0]
            size = (STRIDE * logits.shape[1], STRIDE * logits.shape[0])
            fine = cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)
            x, y = STRIDE * x, STRIDE * y
            inside = fine[top - y : bottom - y, left - x : right - x]
            whole[top:bottom, left:right] = above(inside, 0)
        return self.letterbox.undo(whole)

    def hold(self, columns: Places, rows: Places) -> npt.NDArray[np.bool_]:
        """Find which masks hold which pixels of the picture, without making the masks.

        Args:
            columns: int64 [k] within the picture.
            rows: int64 [k].

        Returns:
            bool [n, k]: as `mask` has it, except for pixels whose value depends on rounding.
        """
        box = self.letterbox
        side = len(self.prototypes[0])
        # Each pixel lies between two columns of the network's input, and each of those between two
        # columns of the prototypes; likewise for rows.
        fine_x, weight_x = _between(columns, box.width, box.inner_width)
        fine_y, weight_y = _between(rows, box.height, box.inner_height)
        fine_x, fine_y = fine_x + box.left, fine_y + box.top
        coarse_x, part_x = _between(fine_x, box.side, side)
        coarse_y, part_y = _between(fine_y, box.side, side)
        # Shapes from here on: [n, pixel, fine row, fine column] and, before the sum, coarse row and
        # coarse column.
        cells = self.prototypes[:, coarse_y[:, :, None, :, None], coarse_x[:, None, :, None, :]]
        logits = np.einsum(
            "npyxvu,pyv,pxu->npyx",
            _logits(self.coefficients, cells.reshape(len(cells), -1, 1)).reshape(
                -1, *cells.shape[1:]
            ),
            part_y,
            part_x,
        )
        left, top, right, bottom = (edge[:, None, None] for edge in self.boxes.T)
        inside_x = (left <= fine_x) & (fine_x < right)
        inside_y = (top <= fine_y) & (fine_y < bottom)
        set_there = (logits > 0) & inside_y[:, :, :, None] & inside_x[:, :, None, :]
        held: npt.NDArray[np.bool_] = (
            np.einsum("npyx,py,px->np", set_there, weight_y, weight_x) > 0.5
        )
        return held

    def coarse_overlaps(self, box: Floats) -> Floats:
        """Estimate how many pixels of each mask lie in a box, at the prototypes' size.

        Args:
            box: float32 [4], x0 y0 x1 y1 in pixels of the network's input.

        Returns:
            float32 [n].
        """
        left, top = np.floor(box[:2] / STRIDE).clip(0).astype(int).tolist()
        right, bottom = np.ceil(box[2:] / STRIDE).astype(int).tolist()
        cut = self.prototypes[:, top:bottom, left:right]
        if not cut.size:
            return np.zeros(len(self.scores), np.float32)
        common = np.hstack(
            [np.maximum(self.boxes[:, :2], box[:2]), np.minimum(self.boxes[:, 2:], box[2:])]
        )
        places = common / STRIDE - np.array([left, top] * 2, np.float32)
        return _covered(_logits(self.coefficients, cut), places)


def read_features(
    letterbox: Letterbox,
    predictions: Floats,
    prototypes: Floats,
    *,
    confidence: float,
    iou: float,
    most: int,
) -> Features:
    """Keep the confident detections of the network's answer, no two of them in the same place.

    Ultralytics' `non_max_suppression` for one class keeps the same ones in the same order.

    Args:
        letterbox: where the picture lies in the network's input.
        predictions: float32 [37, anchors]: centre x, centre y, width, height, score, 32
            coefficients of each anchor.
        prototypes: float32 [32, side / 4, side / 4].
        confidence: every kept score is above it.
        iou: of two boxes that overlap by more, the less confident is dropped.
        most: largest number of detections.
    """
    rows = predictions[:, predictions[4] > confidence].T
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:_MAX_COMPARED]
    half = rows[:, 2:4] / 2
    boxes = np.hstack([rows[:, :2] - half, rows[:, :2] + half])
    corners_and_sizes = np.hstack([boxes[:, :2], rows[:, 2:4]])
    found: Any = cv2.dnn.NMSBoxes(corners_and_sizes, rows[:, 4], confidence, iou)  # type: ignore[arg-type]
    kept = np.array(found[:most], np.int64)
    coefficients = rows[kept, 5:].astype(np.float16)
    # OpenCV converts to and from halves 20 times as fast as numpy; it calls them 16-bit integers.
    halves = cv2.convertFp16(prototypes.reshape(len(prototypes), -1)).view(np.float16)
    halves = halves.reshape(prototypes.shape)
    return Features(
        letterbox,
        boxes=boxes[kept],
        scores=rows[kept, 4],
        coefficients=coefficients,
        prototypes=halves,
        areas=_areas(letterbox, boxes[kept], coefficients, halves),
    )


def _areas(letterbox: Letterbox, boxes: Floats, coefficients: Halves, prototypes: Halves) -> Floats:
    """Return `Features.areas` of some detections; see there for the shapes."""
    return _covered(_logits(coefficients, prototypes), letterbox.clip(boxes) / STRIDE)


def _logits(coefficients: Halves, prototypes: Halves) -> Floats:
    """Return float32 [n, height, width] from float16 [n, 32] and [32, height, width]."""
    channels, height, width = prototypes.shape
    flat = cv2.convertFp16(prototypes.reshape(channels, -1).view(np.int16))
    product: Floats = coefficients.astype(np.float32) @ flat
    return product.reshape(-1, height, width)


def _between(places: Places, size: int, source: int) -> tuple[Places, Floats]:
    """Find the pixels of one row between which those of another row lie, and their weights.

    Args:
        places: int64 [...], from 0 to size - 1.
        size: pixels of the row in which the places lie.
        source: pixels of the other row, which covers the same length.

    Returns:
        int64 and float32 [..., 2]: indices and weights of bilinear interpolation.
    """
    at = ((places + 0.5) * (source / size) - 0.5).clip(0, source - 1)
    first = at.astype(np.int64)
    fraction = (at - first).astype(np.float32)
    indices = np.stack([first, np.minimum(first + 1, source - 1)], axis=-1)
    return indices, np.stack([1 - fraction, fraction], axis=-1)


def _covered(logits: Floats, boxes: Floats) -> Floats:
    """Count the pixels above 0 in one box of each, fractions of pixels included.

    Args:
        logits: float32 [n, height, width].
        boxes: float32 [n, 4], x0 y0 x1 y1 in pixels of the logits.

    Returns:
        float32 [n].
    """
    _, height, width = logits.shape
    columns = _cover(boxes[:, 0], boxes[:, 2], width)
    rows = _cover(boxes[:, 1], boxes[:, 3], height)
    positive = (logits > 0).astype(np.float32)
    covered: Floats = (rows[:, None, :] @ positive @ columns[:, :, None]).reshape(-1)
    return covered


def _cover(starts: Floats, ends: Floats, count: int) -> Floats:
    """Return the fraction of each pixel that lies from start to end: float32 [n, count]."""
    pixels = np.arange(count, dtype=np.float32)
    cover: Floats = np.minimum(ends[:, None], pixels + 1) - np.maximum(starts[:, None], pixels)
    return cover.clip(0, 1)


def _pixels_inside(box: Floats, limit: int) -> tuple[int, int, int, int]:
    """Return the pixels that a box holds, as x0, y0, x1, y1 with x0 <= x < x1."""
    left, top, right, bottom = np.ceil(box).clip(0, limit).astype(int).tolist()
    return left, top, right, bottom
