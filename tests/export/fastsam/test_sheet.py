"""The contact sheet shows each picture above its masks."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from export.fastsam.decoding import FloatArray
from export.fastsam.sheet import GAP, TILE, letterboxed, write_sheet

SIZE = 64


@pytest.mark.parametrize(("height", "width"), [(10, 40), (200, 100), (1, 300), (64, 64)])
def test_a_picture_fits_into_the_square_in_proportion(height: int, width: int) -> None:
    square = letterboxed(np.full((height, width, 3), 200, np.uint8), SIZE)
    assert square.shape == (SIZE, SIZE, 3)
    rows, columns = np.nonzero((square == 200).all(axis=2))
    long, short = max(height, width), min(height, width)
    sides = sorted((np.ptp(rows) + 1, np.ptp(columns) + 1))
    assert sides == [max(1, round(SIZE * short / long)), SIZE]
    assert abs(rows.min() + rows.max() - (SIZE - 1)) <= 1
    assert abs(columns.min() + columns.max() - (SIZE - 1)) <= 1
    assert ((square == 200) | (square == 114)).all()


def test_masks_are_painted_below_their_picture(tmp_path: Path) -> None:
    predictions = np.zeros((1, 37, 1), np.float32)
    predictions[0, :6, 0] = 16, 16, 16, 16, 0.9, 1

    def network(images: FloatArray) -> tuple[FloatArray, FloatArray]:
        return predictions, np.ones((1, 32, SIZE // 4, SIZE // 4), np.float32)

    pictures = [np.full((SIZE, SIZE, 3), 100, np.uint8)] * 3
    write_sheet(tmp_path / "sheet.png", network, pictures, SIZE, columns=2)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    tile = TILE + GAP
    assert sheet.shape == (4 * tile, 2 * tile, 3)
    assert (sheet[:TILE, :TILE] == 100).all()
    inside, outside = sheet[tile + TILE // 4, TILE // 4], sheet[tile + TILE // 2, TILE // 2]
    assert np.ptp(inside.astype(int)) > 50
    assert (outside == 50).all()
    assert (sheet[2 * tile :, tile:] == 255).all()
