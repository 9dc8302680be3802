"""Owns whole picture files of every kind that is read, and ways to damage them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.fakes.profiles import ADOBE_RGB, profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SIZE = (41, 29)
# Where parsers go wrong: none, one, the signs' ends, and all bits.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def whole_files() -> list[bytes]:
    """Small files of every format, with all that is read of each, in a fixed order."""
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 4), np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    palette = rgb.quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 6
    rich: dict[str, Any] = {"exif": turned, "icc_profile": profile(ADOBE_RGB)}
    sixteen = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((each, "PNG", {}) for each in (rgb, rgba, grey, rgba.convert("LA"), rgb.convert("1"))),
        (rgb, "PNG", rich | {"transparency": (1, 2, 3)}),
        (palette, "PNG", {"transparency": bytes(range(16))}),
        (sixteen, "PNG", {"transparency": 300}),
        (rgb, "PNG", {"save_all": True}),
        *((each, "JPEG", {}) for each in (rgb, grey, rgb.convert("CMYK"))),
        (rgb, "JPEG", rich),
        (rgb, "JPEG", {"progressive": True}),
        (rgb, "JPEG", {"restart_marker_blocks": 2, "subsampling": 0}),
        (grey, "JPEG", {"icc_profile": profile(space=b"GRAY")}),
        (rgb.convert("CMYK"), "JPEG", {"icc_profile": profile(space=b"CMYK")}),
        (rgb, "MPO", {"save_all": True}),
        (rgb, "WEBP", rich),
        (rgba, "WEBP", {"lossless": True}),
        (rgba, "WEBP", {}),
        (rgb, "WEBP", {"save_all": True}),
        (palette, "GIF", {}),
        (palette, "GIF", {"transparency": 3, "interlace": 1}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)], "disposal": 2}),
        *((each, "BMP", {}) for each in (rgb, rgba, grey, palette, rgb.convert("1"))),
        *(
            (rgb, "TIFF", {"compression": each})
            for each in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ),
        *((rgb.convert("1"), "TIFF", {"compression": each}) for each in ("group3", "group4")),
        (rgb, "TIFF", rich),
        (rgba, "TIFF", {}),
        (palette, "TIFF", {}),
        (sixteen, "TIFF", {}),
        (rgb.convert("CMYK"), "TIFF", {}),
        (rgb.convert("YCbCr"), "TIFF", {}),
        (rgb, "TIFF", {"save_all": True}),
    ]
    files = []
    for picture, kind, options in kinds:
        buffer = io.BytesIO()
        # Copies, because Pillow leaves the settings of one format in the picture.
        if options.get("save_all"):
            options = {"append_images": [rgb.rotate(90), rgb.rotate(180)]} | options
        picture.copy().save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def damaged(rng: Random, files: list[bytes]) -> bytes:
    """One of the files after a few damages; a PNG's checksums often fit again."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_DAMAGES)(rng, data, files)
    if data.startswith(PNG_SIGNATURE) and rng.random() < 0.7:
        return with_checksums(bytes(data))
    return bytes(data)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks all have the right checksum, as far as they can be told apart."""
    parts, start = [data[:8]], 8
    while start + 12 <= len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        end = min(start + 8 + length, len(data) - 4)
        parts.append(data[start:end] + struct.pack(">I", zlib.crc32(data[start + 4 : end])))
        start = end + 4
    return b"".join(parts) + data[start:]


def _place(rng: Random, data: bytearray) -> int:
    # Headers say more than pixels do.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    return rng.randrange(reach) if reach else 0


def _flip(rng: Random, data: bytearray, files: list[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _number(rng: Random, data: bytearray, files: list[bytes]) -> None:
    form = rng.choice(("<I", ">I", "<H", ">H", "B"))
    most = (1 << 8 * struct.calcsize(form)) - 1
    packed = struct.pack(form, rng.choice(NUMBERS) & most)
    start = _place(rng, data)
    data[start : start + len(packed)] = packed


def _cut(rng: Random, data: bytearray, files: list[bytes]) -> None:
    del data[_place(rng, data) :]


def _remove(rng: Random, data: bytearray, files: list[bytes]) -> None:
    start = _place(rng, data)
    del data[start : start + rng.randrange(1, 40)]


def _repeat(rng: Random, data: bytearray, files: list[bytes]) -> None:
    start = _place(rng, data)
    part = data[start : start + rng.randrange(1, 200)]
    data[start:start] = part * rng.choice((1, 2, 50))


def _insert(rng: Random, data: bytearray, files: list[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = rng.randbytes(rng.randrange(1, 30))


def _splice(rng: Random, data: bytearray, files: list[bytes]) -> None:
    other = rng.choice(files)
    start = rng.randrange(len(other))
    data[_place(rng, data) :] = other[start:]


_DAMAGES: tuple[Callable[[Random, bytearray, list[bytes]], None], ...] = (
    _flip,
    _flip,
    _number,
    _number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _splice,
)
