"""Owns the picture that shows a mask on its photograph, with the prompts that led to it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

TINT, OUTLINE = (255, 64, 160), (255, 255, 255)
INSIDE, OUTSIDE, BOX = (40, 200, 80), (230, 50, 40), (255, 200, 0)
TINT_STRENGTH = 0.5
# Fractions of the longer side, so that an overlay looks the same at every size.
LINE_FRACTION, MARK_FRACTION = 1 / 400, 1 / 90

# The user's own picture, which the server has accepted.
MAX_PIXELS = 2**28

Point = tuple[float, float]


def draw(
    image: bytes,
    mask: bytes,
    *,
    inside: Sequence[Point] = (),
    outside: Sequence[Point] = (),
    box: Sequence[float] | None = None,
) -> Image.Image:
    """Draw a photograph with its mask tinted and outlined.

    Args:
        image: the encoded photograph.
        mask: its mask, an encoded picture of the upright photograph's size.
        inside: points of the object, x and y in pixels.
        outside: points beside it.
        box: x0, y0, x1, y1 in pixels.

    Returns:
        RGB, of the upright photograph's size.

    Raises:
        OSError: the mask is no picture.
        ValueError: the photograph is no picture, or the mask or the box does not fit it.
    """
    # With numpy, a quarter of a command's start.
    from model_kit.pictures import ImageRefusedError, decode_rgb

    try:
        picture = Image.fromarray(decode_rgb(image, MAX_PIXELS))
    except ImageRefusedError as error:
        raise ValueError(str(error)) from error
    with Image.open(io.BytesIO(mask)) as opened:
        cover = opened.convert("L")
    line = max(1, round(max(picture.size) * LINE_FRACTION))
    tint = Image.new("RGB", picture.size, TINT)
    picture.paste(tint, mask=cover.point(lambda value: value * TINT_STRENGTH))
    picture.paste(OUTLINE, mask=_edge(cover, line))
    pen = ImageDraw.Draw(picture)
    if box is not None:
        pen.rectangle(box, outline=BOX, width=line)
    radius = max(2.0, max(picture.size) * MARK_FRACTION)
    for points, colour in ((inside, INSIDE), (outside, OUTSIDE)):
        for x, y in points:
            corners = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(corners, fill=colour, outline=OUTLINE, width=line)
    return picture


def _edge(cover: Image.Image, width: int) -> Image.Image:
    """Return the edge of a mask, as a line of `width` pixels on its inside."""
    solid = cover.point(lambda value: 255 if value > 128 else 0)
    # A pixel that a neighbour has dimmed is near the edge. A rank filter would take ten times as
    # long.
    inner = solid.filter(ImageFilter.BoxBlur(width)).point(lambda value: 255 if value == 255 else 0)
    return ImageChops.subtract(solid, inner)
