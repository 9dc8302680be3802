"""Owns the contact sheet of a mask network: pictures above the masks that it finds."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from export.fastsam.decoding import Detections, decode, network_input
from export.fastsam.score import RunNetwork

TILE = 176  # pixels
GAP = 4  # pixels
# The value that fills a letterbox.
GREY = 114

Picture = npt.NDArray[np.uint8]


def write_sheet(
    path: Path, network: RunNetwork, pictures: list[Picture], size: int, columns: int
) -> None:
    """Draw every picture above its masks; each mask has its own colour.

    Args:
        path: the PNG to write.
        network: the mask network.
        pictures: uint8 [height, width, 3] each, RGB, any size.
        size: side of the network's input, in pixels.
        columns: pictures in a row.
    """
    tiles = [_tile(network, letterboxed(picture, size)) for picture in pictures]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [
        np.concatenate(tiles[start : start + columns], axis=1)
        for start in range(0, len(tiles), columns)
    ]
    sheet = np.concatenate(rows)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def letterboxed(picture: Picture, size: int) -> Picture:
    """Fit a picture into a grey square.

    Args:
        picture: uint8 [height, width, 3].
        size: side of the square, in pixels.

    Returns:
        uint8 [size, size, 3]: the picture in the middle, in its own proportions.
    """
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.full((size, size, 3), GREY, np.uint8)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    square[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        picture, inner, interpolation=method
    )
    return square


def _tile(network: RunNetwork, picture: Picture) -> Picture:
    predictions, prototypes = network(network_input(picture))
    found = decode(predictions[0], prototypes[0], len(picture))
    pair = [
        cv2.resize(each, (TILE, TILE), interpolation=cv2.INTER_AREA)
        for each in (picture, _painted(picture, found))
    ]
    bordered = [np.pad(each, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for each in pair]
    return np.concatenate(bordered)


def _painted(picture: Picture, found: Detections) -> Picture:
    painted: Picture = picture // np.uint8(2)
    # The largest comes first, so that a mask inside another mask stays visible.
    order = np.argsort([-mask.sum() for mask in found.masks], kind="stable")
    for rank, index in enumerate(order):
        mask = found.masks[index]
        hue = np.array([[[rank * 67 % 180, 200, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
        painted[mask] = picture[mask] * 0.35 + colour * 0.65
        outline, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(painted, outline, -1, (255, 255, 255), 1)
    return painted
