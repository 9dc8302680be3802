"""Owns the pictures that every benchmark sends, drawn from a fixed seed."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw


def photograph(size: int, seed: int) -> Image.Image:
    """Draw smooth colours under sensor noise; the PNG is about as large as a photograph's.

    Returns:
        An RGB image of size x size.
    """
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + random.normal(0, 4, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def disc(size: int) -> Image.Image:
    """Draw a mask with a white middle: L, size x size."""
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).ellipse([size / 4, size / 4, 3 * size / 4, 3 * size / 4], fill=255)
    return mask


def flat_disc(size: int) -> Image.Image:
    """Draw a light disc on smooth dark colours, which any network finds: RGB, size x size."""
    picture = photograph(size, seed=3).point([value // 3 for value in range(256)] * 3)
    picture.paste((240, 235, 220), mask=disc(size))
    return picture


def png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(picture: Image.Image) -> str:
    """Encode a picture as the REST interface takes it."""
    return base64.b64encode(png(picture)).decode()


def from_base64(text: str) -> Image.Image:
    """Decode a picture as the REST interface gives it: RGB."""
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
