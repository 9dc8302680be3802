"""Objects at the picture's border, found by the demo's network in a picture of 2000 x 1500."""

# cvat-ai/cvat#6250: objects at the border keep a gap

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fastsam.network import Network
from model_kit.laps import Laps
from smart_mask.progress import Progress
from smart_mask.request import read_mask_request
from smart_mask.segmenter import Segmenter

from .test_segmenter import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from smart_mask.letterbox import Floats, Pixels

    Ask = Callable[..., Pixels]

WIDTH, HEIGHT = 2000, 1500
# Left, top, right, bottom; the sides of an object are 400 and 300.
AT = {
    "left": (0, 600, 400, 900),
    "top": (800, 0, 1200, 300),
    "right": (1600, 600, 2000, 900),
    "bottom": (800, 1200, 1200, 1500),
    "top left": (0, 0, 400, 300),
    "bottom right": (1600, 1200, 2000, 1500),
}
# Pixels of the picture between border and mask.
MOST_GAP = 2
Box = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def ask(mask_bundle: Path) -> Ask:
    """Draws one object over a picture, asks for its mask and gives the mask."""
    network = Network(mask_bundle, "float32")

    def infer(image: Floats) -> tuple[Floats, Floats]:
        predictions, prototypes = network.run(image)
        return predictions[0], prototypes[0]

    settings = replace(
        SETTINGS, image_size=network.side, confidence=0.1, max_image_pixels=WIDTH * HEIGHT
    )
    segmenter = Segmenter(settings, infer)

    def asked(box: Box, turned: bool = False, **prompts: Any) -> Pixels:
        picture = Image.new("RGB", (WIDTH, HEIGHT), (90, 140, 90))
        left, top, right, bottom = box
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(220, 30, 30))
        if turned:
            picture = picture.transpose(Image.Transpose.TRANSPOSE)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        request = read_mask_request({"IMAGE": [buffer.getvalue()], **prompts}, 10**8)
        mask = segmenter.segment(request, Progress(Laps(), lambda: None))
        return np.asarray(Image.open(io.BytesIO(mask.png)))

    return asked


def middle(box: Box) -> list[float]:
    left, top, right, bottom = box
    return [(left + right) / 2, (top + bottom) / 2]


def gaps(mask: Pixels) -> list[int]:
    """Pixels between the mask and the left, top, right and bottom border."""
    rows, columns = np.nonzero(mask >= 128)
    height, width = mask.shape
    right, bottom = width - 1 - columns.max(), height - 1 - rows.max()
    return [int(gap) for gap in (columns.min(), rows.min(), right, bottom)]


def check_border(mask: Pixels, box: Box) -> None:
    height, width = mask.shape
    at_border = [end == border for end, border in zip(box, (0, 0, width, height), strict=True)]
    for gap, ends_there in zip(gaps(mask), at_border, strict=True):
        assert (gap <= MOST_GAP) == ends_there, (gaps(mask), box)
    left, top, right, bottom = box
    for ends_there, edge in zip(
        at_border,
        (mask[top:bottom, 0], mask[0, left:right], mask[top:bottom, -1], mask[-1, left:right]),
        strict=True,
    ):
        # Its own corners are round.
        assert not ends_there or (edge >= 128).mean() > 0.9


@pytest.mark.parametrize("place", AT)
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_a_mask_goes_on_to_the_border(ask: Ask, place: str, *, turned: bool) -> None:
    box = AT[place]
    # Turned, the other two sides lie at the letterbox's bars.
    shown = (box[1], box[0], box[3], box[2]) if turned else box
    check_border(ask(box, turned, POINTS=[middle(shown)]), shown)
    check_border(ask(box, turned, BBOX=list(shown)), shown)


@pytest.mark.parametrize("place", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("gap", [40, 80])  # pixels of the picture: 6 and 13 of the network's
def test_what_really_ends_before_the_border_keeps_its_gap(ask: Ask, place: str, gap: int) -> None:
    move = {"left": (gap, 0), "top": (0, gap), "right": (-gap, 0), "bottom": (0, -gap)}[place]
    left, top, right, bottom = AT[place]
    box = left + move[0], top + move[1], right + move[0], bottom + move[1]
    side = list(AT).index(place)
    kept = gaps(ask(box, POINTS=[middle(box)]))[side]
    assert abs(kept - gap) < 20, kept
    assert kept > MOST_GAP
