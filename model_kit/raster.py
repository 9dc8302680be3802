"""Owns a picture as plain pixels: the form in which the frontend gives pictures to the models.

A head of 24 bytes, then the ICC profile, then the colours row by row, then the alpha row by row.
Reading it is a slice and copies nothing. It is not compressed, because that would cost every edit
time on both sides.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_kit.image_bounds import too_large

if TYPE_CHECKING:
    from collections.abc import Sequence

Pixels = npt.NDArray[np.uint8]
Buffer = bytes | memoryview | Pixels

MAGIC = b"ARTMPIX1"
# Magic, width, height, planes (1: grey, 3: RGB, 4: RGB and alpha), bytes of the profile.
_HEAD = struct.Struct("<8s4I")
_GREY, _RGB, _RGBA = 1, 3, 4


class RasterError(Exception):
    """Not such a picture, though it begins like one; the text says why, for its sender."""


def is_raster(data: bytes) -> bool:
    """Return whether a file is, or claims to be, plain pixels."""
    return data.startswith(MAGIC)


def has_profile(data: bytes) -> bool:
    """Return whether plain pixels come with a profile, which is a stranger's."""
    return len(data) >= _HEAD.size and _HEAD.unpack_from(data)[4] > 0


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height of a picture that `write` made."""
    _, width, height, _, _ = _HEAD.unpack_from(data)
    return width, height


def write(
    pixels: Pixels, alpha: Pixels | None = None, profile: bytes | None = None
) -> list[Buffer]:
    """Return the parts of a file, to be written one behind the other.

    Args:
        pixels: uint8 [height, width, 3], or [height, width] of a mask.
        alpha: uint8 [height, width], or None: opaque. Only beside RGB.
        profile: ICC profile of RGB pixels; None: sRGB.
    """
    height, width = pixels.shape[:2]
    planes = _GREY if pixels.ndim == 2 else _RGB if alpha is None else _RGBA
    head = _HEAD.pack(MAGIC, width, height, planes, len(profile or b""))
    parts: Sequence[Pixels] = (pixels,) if alpha is None else (pixels, alpha)
    return [head, profile or b"", *map(np.ascontiguousarray, parts)]


def read(data: bytes, max_pixels: int) -> tuple[Pixels, Pixels | None, bytes | None]:
    """Return what `write` was given; the arrays are views of `data`.

    Args:
        data: a file for which `is_raster` holds.
        max_pixels: largest width x height.

    Raises:
        RasterError: it is too large, or its length is not what its head says.
    """
    if len(data) < _HEAD.size:
        raise RasterError("plain pixels without a whole head")
    _, width, height, planes, profile = _HEAD.unpack_from(data)
    if reason := too_large(width, height, max_pixels):
        raise RasterError(reason)
    whole = _HEAD.size + profile + width * height * planes
    if planes not in (_GREY, _RGB, _RGBA) or not width * height or len(data) != whole:
        raise RasterError(
            f"plain pixels of {width}x{height} with {planes} planes and a profile of {profile} "
            f"bytes, in {len(data)} bytes"
        )
    start = _HEAD.size + profile
    colours = width * height * min(planes, _RGB)
    pixels = np.frombuffer(data, np.uint8, colours, start)
    pixels = pixels.reshape((height, width) if planes == _GREY else (height, width, 3))
    alpha = None
    if planes == _RGBA:
        alpha = np.frombuffer(data, np.uint8, width * height, start + colours)
        alpha = alpha.reshape(height, width)
    return pixels, alpha, data[_HEAD.size : start] or None
