"""Owns where an edit works: the parts of a picture that the model sees, and at what size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edit_conditions.images import Pixels, size_of
from edit_conditions.masks import HARD_THRESHOLD, Box, binarise

Size = tuple[int, int]
"""Width and height in pixels."""
Labels = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

GRID = 32
"""Sides of the canvas are multiples of it: twice the 16 of packed latents, as conditions have."""
CONTEXT = 0.5
"""Of the object's box, added on each side: what the model must see to continue it."""
MAX_REGIONS = 4
"""Each costs a whole edit at the model's size."""
LEAST_SHARE = 1 / 8
"""Of the area that the model was made for: with less it draws rubbish, nearly black as a white
balance and mud as an insertion. The demo's white balance needs 128x128 of its 384x384 pixels, its
insertion 128x128 of 512x512."""
CELLS = 96
"""Cells of the longer side in which objects are grouped; closer ones are one object."""


@dataclass(frozen=True)
class Region:
    """One part of a picture and the size at which the model works on it."""

    box: Box
    """In pixels of the picture."""
    content: Size
    """The box's content as the model sees it; larger than the box only where that is very small."""

    @property
    def scale(self) -> float:
        """Pixels of the content for each pixel of the box, along a side; above 1 if enlarged."""
        return math.sqrt(math.prod(self.content) / (self.box.width * self.box.height))


def whole(picture: Size, area: int, asked: int | None = None) -> Region:
    """Take the whole picture, no larger than the model was made for, and not much smaller.

    Args:
        picture: its width and height.
        area: the pixels that the model was made for.
        asked: pixels of the answer, if the client asked for a size; more would be lost again.
    """
    box = Box(0, 0, *picture)
    return _region(box, _scale(box, area, asked))


def cropped(box: Box, area: int) -> Region:
    """Take a part of the picture, no larger than the model was made for, and not much smaller."""
    return _region(box, _scale(box, area))


def around(mask: Pixels, area: int, most: int = MAX_REGIONS) -> list[tuple[Region, Pixels]]:
    """Find the parts of a picture that an edit of the masked objects needs.

    One crop holds objects that lie close together. Objects far apart get a crop each where
    these have fewer pixels together than one crop around all of them.

    Args:
        mask: 255 = edit, of the picture's size, uint8 [height, width]; not empty above
            HARD_THRESHOLD.
        area: the pixels that the model was made for.
        most: regions, at least 1.

    Returns:
        The regions, each with its own objects' part of the mask: uint8, of the
        region's box, 255 where set and else 0.
    """
    picture = size_of(mask)
    hard = binarise(mask, HARD_THRESHOLD)
    cell = max(1, math.ceil(max(picture) / CELLS))
    labels, boxes = _objects(hard, cell)
    groups = _merged(boxes, picture, area, most)
    crops, parts = [], []
    for group in groups:
        box = _context(_union([boxes[index] for index in group]), picture, area)
        own = _enlarged(np.isin(labels, [index + 1 for index in group]), cell, picture)
        crops.append(box)
        parts.append(np.where(own[box.window], hard[box.window], np.uint8(0)))
    return list(zip(_on_one_canvas(crops, area), parts, strict=True))


def canvas_of(regions: Sequence[Region]) -> Size:
    """Return the size that the model generates for each region: on the grid, holding them all."""
    width, height = (
        max(-(-region.content[side] // GRID) * GRID for region in regions) for side in (0, 1)
    )
    return width, height


def on_canvas(pixels: Pixels, canvas: Size) -> Pixels:
    """Pad a picture or mask to the canvas, on its right and at its bottom.

    The padding mirrors the picture: black bars or stretched rims would show in the result.

    Args:
        pixels: uint8 [height, width] or [height, width, 3], no larger than the canvas.
        canvas: width and height.
    """
    width, height = size_of(pixels)
    right, bottom = canvas[0] - width, canvas[1] - height
    if not (right or bottom):
        return pixels
    padding = ((0, bottom), (0, right), *[(0, 0)] * (pixels.ndim - 2))
    # `symmetric` repeats as often as it has to, also for a picture of one pixel.
    return np.pad(pixels, padding, mode="symmetric")


def _on_one_canvas(crops: Sequence[Box], area: int) -> list[Region]:
    """Take crops at scales at which a canvas that holds them all is no larger than the area."""
    scales = [_scale(box, area) for box in crops]
    width, height = (
        max(side * scale for side, scale in zip(sides, scales, strict=True))
        for sides in zip(*((box.width, box.height) for box in crops), strict=True)
    )
    # Crops of unlike aspects: one's width beside another's height.
    less = min(1.0, math.sqrt(area / (width * height)))
    return [_region(box, scale * less) for box, scale in zip(crops, scales, strict=True)]


def _scale(box: Box, area: int, asked: int | None = None) -> float:
    """Return the scale at which a box is neither more than the model can do nor too little."""
    pixels = box.width * box.height
    most = min(pixels, area, asked or pixels)
    # No longer than the model's own square: a hairline would become a canvas of unheard-of length.
    least = min(LEAST_SHARE * area, pixels * area / max(box.width, box.height) ** 2)
    return math.sqrt(max(most, least) / pixels)


def _region(box: Box, scale: float) -> Region:
    width, height = (max(1, round(side * scale)) for side in (box.width, box.height))
    return Region(box, (width, height))


def _objects(hard: Pixels, cell: int) -> tuple[Labels, list[Box]]:
    """Label the mask's objects on a coarse grid, and give the exact box of each."""
    height, width = hard.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((rows * cell, columns * cell), np.uint8)
    padded[:height, :width] = hard
    coarse = padded.reshape(rows, cell, columns, cell).max(axis=(1, 3))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(coarse, connectivity=8)
    boxes = []
    for left, top, wide, tall, _pixels in stats[1:count].tolist():
        x, y = left * cell, top * cell
        window = padded[y : y + tall * cell, x : x + wide * cell]
        dx, dy, w, h = cv2.boundingRect(window)
        boxes.append(Box(x + dx, y + dy, w, h))
    return labels, boxes


def _merged(boxes: list[Box], picture: Size, area: int, most: int) -> list[list[int]]:
    """Group objects so that the crops have the fewest pixels in all, and are not too many.

    Pixels of the picture, because that is what a crop has to show. In pixels that the model works
    on, one crop of the whole picture would always win, and a small object would lose its detail.
    """
    groups = [[index] for index in range(len(boxes))]
    if most == 1 or len(groups) > 8 * MAX_REGIONS:
        return [[index for group in groups for index in group]]

    def pixels(group: list[int]) -> int:
        box = _context(_union([boxes[index] for index in group]), picture, area)
        return box.width * box.height

    while len(groups) > 1:
        gain, first, second = max(
            (pixels(a) + pixels(b) - pixels(a + b), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups[:i])
        )
        if gain < 0 and len(groups) <= most:
            break
        groups[second] += groups.pop(first)
    return groups


def _context(box: Box, picture: Size, area: int) -> Box:
    """Widen an object's box to the crop that the model is given."""
    side = math.isqrt(area)
    # A square, as models are made for squares above all; less where the picture ends.
    wanted = max(side, math.ceil(max(box.width, box.height) * (1 + 2 * CONTEXT)))
    width, height = (min(limit, wanted) for limit in picture)
    left = _clamp(box.left + (box.width - width) // 2, picture[0] - width)
    top = _clamp(box.top + (box.height - height) // 2, picture[1] - height)
    return Box(left, top, width, height)


def _clamp(start: int, slack: int) -> int:
    return max(0, min(start, slack))


def _union(boxes: Sequence[Box]) -> Box:
    left, top = min(box.left for box in boxes), min(box.top for box in boxes)
    right = max(box.left + box.width for box in boxes)
    bottom = max(box.top + box.height for box in boxes)
    return Box(left, top, right - left, bottom - top)


def _enlarged(cells: Flags, cell: int, picture: Size) -> Flags:
    large = np.repeat(np.repeat(cells, cell, axis=0), cell, axis=1)
    return large[: picture[1], : picture[0]]
