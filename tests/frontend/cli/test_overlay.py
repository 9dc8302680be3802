from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frontend.cli import overlay

Pixels = np.ndarray[Any, Any]


def png(pixels: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def disc(side: int = 200, radius: int = 60) -> Pixels:
    rows, columns = np.ogrid[:side, :side]
    inside = (rows - side // 2) ** 2 + (columns - side // 2) ** 2 < radius**2
    return (inside * 255).astype(np.uint8)


def draw(photo: Pixels, mask: Pixels, **prompts: Any) -> Pixels:
    return np.asarray(overlay.draw(png(photo), png(mask), **prompts))


def test_the_mask_is_tinted_and_outlined_and_the_rest_is_untouched() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    mask = disc()
    shown = draw(photo, mask)
    assert (shown[mask == 0] == photo[mask == 0]).all()
    tinted = photo[100, 100] * 0.5 + np.array(overlay.TINT) * 0.5
    assert np.abs(shown[100, 100] - tinted).max() <= 2
    outline = (shown == overlay.OUTLINE).all(axis=2) & (mask > 0)
    assert (np.abs(outline.nonzero()[1] - 100) <= 60).all()
    assert outline[100, 41:44].any()
    assert not outline[70:130, 70:130].any()


def test_an_empty_mask_changes_nothing() -> None:
    photo = np.full((50, 40, 3), 90, np.uint8)
    assert (draw(photo, np.zeros((50, 40), np.uint8)) == photo).all()


def test_prompts_are_marked_in_their_colours() -> None:
    photo, mask = np.zeros((200, 200, 3), np.uint8), disc(radius=20)
    shown = draw(photo, mask, inside=[(100, 100)], outside=[(20, 180)], box=(60, 50, 140, 150))
    assert tuple(shown[100, 100]) == overlay.INSIDE
    assert tuple(shown[180, 20]) == overlay.OUTSIDE
    assert tuple(shown[50, 100]) == tuple(shown[100, 140]) == overlay.BOX
    assert tuple(shown[60, 100]) == (0, 0, 0)


def test_prompts_beyond_the_picture_do_no_harm() -> None:
    photo, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    shown = draw(photo, mask, inside=[(-500, 9)], outside=[(1e6, 1e6)], box=(-5.5, -5, 900, 900))
    assert (shown == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (2000, 20)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    photo, mask = np.zeros((*size, 3), np.uint8), np.full(size, 255, np.uint8)
    assert draw(photo, mask, inside=[(0, 0)]).shape == (*size, 3)


def test_a_turned_photograph_is_shown_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = png(np.zeros((30, 50, 3), np.uint8), exif=exif)
    mask = np.zeros((50, 30), np.uint8)
    assert overlay.draw(photo, png(mask)).size == (30, 50)
