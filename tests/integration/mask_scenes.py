"""Owns drawn pictures whose objects are known, for masks to be measured against."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.fakes.web_client import png

Bools = np.ndarray[Any, np.dtype[np.bool_]]

_SCALE = 4  # shapes are drawn larger, so that their edges are smooth


@dataclass(frozen=True)
class Scene:
    """One large object near the middle, two smaller ones in opposite corners.

    Attributes:
        png: the picture.
        truth: bool [height, width], True on the large object.
    """

    png: bytes
    truth: Bools

    @property
    def middle(self) -> list[float]:
        """A point in the large object, x and y."""
        rows, columns = np.nonzero(self.truth)
        return [float(columns.mean()), float(rows.mean())]

    @property
    def box(self) -> list[float]:
        """Around the large object: x0, y0, x1, y1."""
        rows, columns = np.nonzero(self.truth)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return [float(edge) for edge in edges]

    def guidance(self) -> bytes:
        """Return a rough stroke within the object, PNG."""
        x, y = self.middle
        height, width = self.truth.shape
        stroke = Image.new("L", (width, height))
        ImageDraw.Draw(stroke).line([x - 15, y - 10, x, y, x + 15, y - 5], fill=255, width=9)
        return png(np.asarray(stroke))


def scene(number: int, side: int = 512) -> Scene:
    """Draw a scene of side² pixels; every number gives another."""
    random = np.random.default_rng(number)
    truth = _shape(number % 4, random.uniform(0.42, 0.58, 2), random.uniform(0.17, 0.26), side)
    picture = _texture(random, side, 20, 110)
    for corner in ((0.12, 0.14), (0.88, 0.86)):
        other = _shape((number + 1) % 4, np.array(corner), 0.08, side)[:, :, None]
        picture = picture * (1 - other) + _texture(random, side, 60, 250) * other
    alpha = truth[:, :, None]
    picture = picture * (1 - alpha) + _texture(random, side, 150, 250) * alpha
    return Scene(png(picture.astype(np.uint8)), truth > 0.5)


def enlarged(data: bytes, side: int) -> bytes:
    """Resize a picture to side² pixels, JPEG."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def numbered(data: bytes, count: int) -> list[bytes]:
    """Return so many pictures that differ in a corner: a model knows a picture by its pixels."""
    picture = Image.open(io.BytesIO(data))
    files = []
    for number in range(count):
        changed = picture.copy()
        changed.paste((2 * number, 0, 0), (0, 0, 16, 16))
        buffer = io.BytesIO()
        changed.save(buffer, str(picture.format), compress_level=1)
        files.append(buffer.getvalue())
    return files


def mask_of(data: bytes) -> Bools:
    """Decode a mask PNG: True above one half."""
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode) == ("PNG", "L")
    return np.asarray(picture) > 127


def iou(one: Bools, other: Bools) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def _texture(random: np.random.Generator, side: int, low: int, high: int) -> Any:
    coarse = Image.fromarray(random.integers(low, high, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255)


def _shape(kind: int, place: Any, radius: float, side: int) -> Any:
    """Coverage, float32 [side, side] in 0..1, of a shape at a place given in parts of the side."""
    x, y = place * side * _SCALE
    r = radius * side * _SCALE
    canvas = Image.new("L", (side * _SCALE, side * _SCALE))
    draw = ImageDraw.Draw(canvas)
    match kind:
        case 0:
            draw.ellipse([x - r, y - 0.7 * r, x + r, y + 0.7 * r], fill=255)
        case 1:
            draw.rectangle([x - r, y - 0.6 * r, x + r, y + 0.6 * r], fill=255)
        case 2:
            angles = np.arange(6) * np.pi / 3
            draw.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a in angles], fill=255)
        case _:
            draw.rounded_rectangle([x - r / 2, y - r, x + r / 2, y + r], r * 0.3, fill=255)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32) / 255
