"""Owns small pictures for tests."""

from __future__ import annotations

import base64
import io

from PIL import Image

from model_kit import foreign


def encoded(
    image_format: str = "PNG", size: tuple[int, int] = (16, 16), mode: str = "RGB"
) -> bytes:
    """Return a grey picture of `size` (width, height)."""
    buffer = io.BytesIO()
    Image.new(mode, size, 128 if mode in ("L", "P") else None).save(buffer, image_format)
    return buffer.getvalue()


def grey(shade: int) -> bytes:
    """Return a PNG of 8 x 8 pixels of one shade."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def png(size: tuple[int, int] = (16, 16)) -> bytes:
    """Return a PNG of `size` (width, height)."""
    return encoded("PNG", size)


def noise(size: tuple[int, int]) -> bytes:
    """Return a PNG of `size` (width, height) that has nearly a byte for each pixel."""
    buffer = io.BytesIO()
    Image.effect_noise(size, 64).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    """Plain base64, as clients send it."""
    return base64.b64encode(data).decode()


def plain(data: bytes) -> bytes:
    """Return a file's picture as plain pixels, as models get it for an edit."""
    return b"".join(map(bytes, foreign.picture(data, 2**24)[0]))


def plain_mask(data: bytes) -> bytes:
    """Return a file's mask as plain pixels."""
    return b"".join(map(bytes, foreign.mask(data, 2**24)[0]))
