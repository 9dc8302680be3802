"""Owns picture files that are made to cost time or memory, each with the verdict it must get."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Hostile:
    """One attack, in a size that is quick to make and in the size that hurts."""

    name: str
    make: Callable[[int], bytes]
    """Makes the file; takes the number of whatever it has too many of."""
    small: int
    """Already refused, though cheap to read."""
    large: int
    """As large as a body may be, or as dear as the format allows."""
    says: str
    """Part of the refusal: what was seen."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def saved(kind: str, side: int = 64, mode: str = "RGB", **options: object) -> bytes:
    """A small plain picture of a format."""
    buffer = io.BytesIO()
    Image.new(mode, (side, side), 128 if mode in ("L", "P") else None).save(buffer, kind, **options)
    return buffer.getvalue()


def _behind_ihdr(chunks: bytes) -> bytes:
    png = saved("PNG")
    return png[:33] + chunks + png[33:]


def jpeg_scans(scans: int, side: int = 8190) -> bytes:
    """A progressive JPEG whose scans are all empty: each walks over every block."""
    sizes = struct.pack(">BHHB", 8, side, side, 1) + bytes((1, 0x11, 0))
    table = bytes((0x10, 1)) + bytes(15) + b"\0"
    scan = b"\xff\xda\0\x08\1\1\0\1\x3f\0" + b"\0"
    return (
        b"\xff\xd8\xff\xdb\0\x43\0" + bytes([1] * 64) + b"\xff\xc2\0\x0b" + sizes
        + b"\xff\xc4\0\x14" + table[:1] + table[1:17] + table[17:]
        + b"\xff\xc4\0\x14\0" + bytes((1,)) + bytes(15) + b"\0"
        + b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(side * side // 64 // 8 + 16)
        + scan * scans + b"\xff\xd9"
    )  # fmt: skip


def jpeg_segments(count: int, body: bytes = b"", marker: int = 0xE5) -> bytes:
    """A JPEG that begins with many segments of one kind."""
    segment = b"\xff" + bytes((marker,)) + struct.pack(">H", len(body) + 2) + body
    return b"\xff\xd8" + segment * count + saved("JPEG")[2:]


def exif(tags: int) -> bytes:
    """An EXIF block of very many tags."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + n, 7, 4, 0) for n in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)


def tiff(tags: list[tuple[int, int, list[int]]], tail: bytes = b"") -> bytes:
    """A TIFF of the given tags: number, type (3: 16 bits, 4: 32, 7: bytes) and values."""
    codes = {1: "B", 3: "H", 4: "I", 7: "B"}
    entries, values = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for number, kind, numbers in sorted(tags):
        packed = np.array(numbers, f"<u{struct.calcsize(codes[kind])}").tobytes()
        if len(packed) <= 4:
            place = packed.ljust(4, b"\0")
        else:
            place = struct.pack("<I", start + len(values))
            values += packed
        entries += struct.pack("<HHI", number, kind, len(numbers)) + place
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + values + tail


def _plain_tags(width: int, height: int) -> list[tuple[int, int, list[int]]]:
    return [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]),
        (277, 3, [1]),
    ]  # fmt: skip


def tiff_strips(count: int) -> bytes:
    """A TIFF that lists far more strips than it has rows."""
    strips = [(273, 4, [8] * count), (278, 4, [1]), (279, 4, [16] * count)]
    return tiff(_plain_tags(16, 16) + strips)


def tiff_rows(count: int) -> bytes:
    """A TIFF of one strip for each of its very many rows."""
    strips = [(273, 4, [8] * count), (278, 4, [1]), (279, 4, [16] * count)]
    return tiff(_plain_tags(16, count) + strips)


def tiff_tags(count: int) -> bytes:
    """A TIFF of very many tags that all show the same megabyte."""
    span = MIB
    entries = b"".join(struct.pack("<HHII", 40000 + n, 7, span, 8) for n in range(count))
    plain = b"".join(
        struct.pack("<HHI", number, kind, 1) + struct.pack("<I", values[0])
        for number, kind, values in [*_plain_tags(16, 16), (273, 4, [8]), (278, 4, [16])]
    )
    directory = struct.pack("<H", count + 8) + plain + entries + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + bytes(span)


def tiff_values(count: int) -> bytes:
    """A TIFF whose resolution is a list of millions."""
    strips = [(273, 4, [8]), (278, 4, [16]), (279, 4, [256])]
    return tiff([*_plain_tags(16, 16), *strips, (258, 3, [8] * count)])


def tiff_tiles(count: int) -> bytes:
    """A TIFF of very many tiles."""
    side = [(322, 3, [16]), (323, 3, [16]), (324, 4, [8] * count), (325, 4, [256] * count)]
    width = 16 * 256
    return tiff(_plain_tags(width, -(-count // 256) * 16) + side)


def gif_extensions(count: int) -> bytes:
    """A GIF of comments before its first frame; Pillow joins them one by one."""
    plain = saved("GIF", mode="P")
    comments = b"!\xfe\1a\0" * count
    return plain[:13] + plain[13 : 13 + (6 << (plain[10] & 7))] + comments + b";"


def webp_chunks(count: int) -> bytes:
    """A WebP of unknown chunks."""
    body = saved("WEBP")[12:] + b"junk\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp_runs(count: int) -> bytes:
    """A BMP of run-length codes; Pillow reads them in Python."""
    plain = saved("BMP", mode="L")
    return plain[:30] + struct.pack("<I", 1) + plain[34:1078] + b"\0\0" * count


def blanks(count: int) -> str:
    """Base64 that is mostly blanks; no file, so it is no attack of the models."""
    return "AA " * count


_PROFILE = b"x\0\0" + zlib.compress(bytes(MIB), 9)
_TEXT = b"x\0\0" + zlib.compress(bytes(MIB - 100), 9)

HOSTILE = [
    Hostile("progressive scans", lambda n: jpeg_scans(n), 40, 499, "scans"),
    Hostile("progressive scans, 4096", lambda n: jpeg_scans(n, 4096), 120, 499, "scans"),
    Hostile("empty APP segments", jpeg_segments, 5_000, 8 * MIB, "segments"),
    Hostile("comments", lambda n: jpeg_segments(n, b"", 0xFE), 5_000, 8 * MIB, "segments"),
    Hostile(
        "EXIF segments", lambda n: jpeg_segments(n, b"Exif\0\0" + bytes(60_000), 0xE1), 80, 760,
        "EXIF",
    ),
    Hostile(
        "EXIF tags", lambda n: jpeg_segments(1, b"Exif\0\0" + exif(n), 0xE1), 1_500, 5_000, "EXIF"
    ),
    Hostile(
        "profile segments",
        lambda n: jpeg_segments(n, b"ICC_PROFILE\0\1\1" + bytes(50), 0xE2), 1_000, 600_000,
        "profile",
    ),
    Hostile("strips", tiff_strips, 70_000, 5_000_000, "strips"),
    Hostile("a strip a row", tiff_rows, 70_000, 1_000_000, "70000"),
    Hostile("tags of one place", tiff_tags, 1_500, 20_000, "tags"),
    Hostile("values", tiff_values, 200_000, 10_000_000, "values"),
    Hostile("tiles", tiff_tiles, 70_144, 131_072, "tiles"),
    Hostile(
        "profiles", lambda n: _behind_ihdr(png_chunk(b"iCCP", _PROFILE) * n), 3, 40_000, "iCCP"
    ),
    Hostile(
        "unknown chunks", lambda n: _behind_ihdr(png_chunk(b"abCd", b"") * n), 5_000, 4 * MIB,
        "chunks",
    ),
    Hostile(
        "empty pixels", lambda n: saved("PNG")[:-12] + png_chunk(b"IDAT", b"") * n
        + png_chunk(b"IEND", b""), 70_000, 4 * MIB, "chunks",
    ),
    Hostile("GIF comments", gif_extensions, 20_000, 9 * MIB, "extensions"),
    Hostile("WebP chunks", webp_chunks, 20_000, 5 * MIB, "chunks"),
    Hostile("BMP runs", bmp_runs, 2 * MIB, 23 * MIB, "run-length"),
]  # fmt: skip
"""Each is refused for its structure, before anything is decoded."""


def b64(data: bytes) -> str:
    """Base64 as clients send it."""
    return base64.b64encode(data).decode()
