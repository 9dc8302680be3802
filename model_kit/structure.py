"""Owns what a picture file may be made of, counted before any parser spends time on it.

A parser takes the file's word for how many parts it has. So a file of kilobytes can cost seconds,
and one of megabytes minutes. Each count here is far beyond what cameras and encoders write.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from model_kit.image_bounds import too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SCANS = 500
"""Of a JPEG; a progressive one has about ten."""
MAX_SCAN_PIXELS = 2**30
"""Scans times pixels: a decoder walks over the whole picture once a scan."""
MAX_SEGMENTS = 2_000
"""Of a JPEG; 64 MiB of metadata take half as many."""
MAX_PROFILE_SEGMENTS = 255
"""The ICC's own bound."""
MAX_EXIF_BYTES = 2**20
MAX_TAGS = 1_000
"""Of a TIFF or an EXIF block; a camera's raw file has about a hundred."""
MAX_STRIPS = 65_536
"""Or tiles. Pillow makes Python objects of each."""
MAX_VALUES = 3 * 65_536
"""Of one tag of numbers: the longest that TIFF 6.0 defines is a table of colours."""
MAX_CHUNKS = 65_536
"""Of a PNG; 64 MiB in chunks of 4 KiB, as some write them, are 16,384."""
MAX_OTHER_CHUNKS = 1_000
"""Of a PNG, beside its pixels."""
MAX_PROFILES = 2
"""Of a PNG; one is allowed, and each may unpack to MAX_PROFILE_BYTES."""
MAX_EXTENSIONS = 10_000
"""Parts of a GIF before its first frame, each of 255 bytes at most."""
MAX_WEBP_CHUNKS = 10_000
MAX_RUN_LENGTH_BYTES = 2**20
"""Of a BMP in run-length codes. Pillow reads these in Python, at a megabyte a second."""

# The last fill byte and what follows it. A pattern of all fill bytes would try each run of them
# from each of its bytes.
_MARKER = re.compile(rb"\xff[^\xff\x00\x01\xd0-\xd7]")
START_OF_SCAN, _END_OF_IMAGE, _START_OF_IMAGE = 0xDA, 0xD9, 0xD8
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_BYTE_TYPES = (1, 2, 6, 7)
_LISTS = {273: "strips", 279: "strips", 324: "tiles", 325: "tiles"}
_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 322, 323
_JPEG_IN_TIFF = (6, 7)


def reason_to_refuse(data: bytes, max_pixels: int) -> str | None:
    """Return why a file must not be given to a parser; None if it may be.

    It takes one pass over the file, and copies none of its pixels.

    Args:
        data: the encoded file, of any format or none.
        max_pixels: largest width x height.
    """
    for start, _, judge in _FORMATS:
        if data.startswith(start):
            return judge(data, max_pixels)
    return None


def format_of(data: bytes) -> str | None:
    """Return the format, of `image_bounds.FORMATS`, whose signature a file has; None: of none."""
    if data.startswith(b"RIFF") and not data.startswith(b"WEBP", 8):
        return None  # sound or video
    return next((name for start, name, _ in _FORMATS if data.startswith(start)), None)


def _jpeg(data: bytes, max_pixels: int) -> str | None:
    scans = profile = exif = pixels = 0
    for segments, (marker, start, end) in enumerate(jpeg_segments(data), start=1):
        if marker == _END_OF_IMAGE and scans:
            break  # libjpeg reads nothing behind it, such as a video
        if segments > MAX_SEGMENTS:
            return f"a JPEG of more than {MAX_SEGMENTS} segments"
        if marker == START_OF_SCAN:
            scans += 1
            if scans > MAX_SCANS:
                return f"a JPEG of more than {MAX_SCANS} scans"
        elif marker in _FRAMES and end - start >= 5:
            height, width = struct.unpack_from(">HH", data, start + 1)
            pixels = max(pixels, width * height)
        elif marker == 0xE1 and data.startswith(b"Exif\0", start):
            exif += end - start
            if reason := _exif(data[start + 6 : end]):
                return reason
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", start):
            profile += 1
        if exif > MAX_EXIF_BYTES:
            return f"a JPEG with more than {MAX_EXIF_BYTES} bytes of EXIF"
        if profile > MAX_PROFILE_SEGMENTS:
            return f"a JPEG of more than {MAX_PROFILE_SEGMENTS} profile segments"
        if pixels <= max_pixels and scans * pixels > MAX_SCAN_PIXELS:
            return f"a JPEG of {scans} scans or more over {pixels} pixels"
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each marker of a JPEG with the borders of its body."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, position = data[found.end() - 1], found.end()
        if marker in (_END_OF_IMAGE, _START_OF_IMAGE):
            yield marker, position, position
            continue
        end = position + max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, position + 2, min(end, len(data))
        position = end


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk of a PNG: its kind, where its body starts, and the body's length."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, length
        position += length + 12


def _png(data: bytes, _max_pixels: int) -> str | None:
    others = profiles = 0
    for chunks, (kind, start, length) in enumerate(png_chunks(data), 1):
        others += kind not in _PIXEL_CHUNKS
        profiles += kind == b"iCCP"
        if chunks > MAX_CHUNKS or others > MAX_OTHER_CHUNKS:
            return f"a PNG of {chunks} chunks or more, {others} of them beside its pixels"
        if profiles > MAX_PROFILES:
            return f"a PNG of more than {MAX_PROFILES} iCCP chunks"
        if kind == b"eXIf" and (reason := _exif(data[start : start + length])):
            return reason
        if kind == b"IEND":
            break
    return None


def gif_blocks(data: bytes) -> int:
    """Return where the blocks of a GIF begin, behind its palette."""
    return 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)


def _gif(data: bytes, _max_pixels: int) -> str | None:
    parts, position = 0, gif_blocks(data)
    while position < len(data) and data[position : position + 1] not in (b",", b";"):
        if data[position : position + 1] == b"!":
            position += 2
            while position < len(data) and data[position] and parts <= MAX_EXTENSIONS:
                position += data[position] + 1
                parts += 1
        position += 1
        parts += 1
        if parts > MAX_EXTENSIONS:
            return f"a GIF of more than {MAX_EXTENSIONS} extensions before its first frame"
    return None


def _webp(data: bytes, max_pixels: int) -> str | None:
    chunks, position = 0, 12
    while data.startswith(b"WEBP", 8) and position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks += 1
        if chunks > MAX_WEBP_CHUNKS:
            return f"a WebP of more than {MAX_WEBP_CHUNKS} chunks"
        body = data[position + 8 : position + 18]
        if kind == b"VP8X" and len(body) == 10:
            # The decoder makes room for the whole canvas while it opens the file.
            width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
            if reason := too_large(width, height, max_pixels):
                return reason
        if kind == b"EXIF" and (reason := _exif(data[position + 8 : position + 8 + length])):
            return reason
        position += 8 + length + (length & 1)
    return None


def _bmp(data: bytes, _max_pixels: int) -> str | None:
    header, compression = int.from_bytes(data[14:18], "little"), data[30:34]
    in_runs = header >= 40 and compression in (b"\1\0\0\0", b"\2\0\0\0")
    if in_runs and len(data) > MAX_RUN_LENGTH_BYTES:
        return f"a BMP of {len(data)} bytes of run-length codes"
    return None


def _tiff(data: bytes, max_pixels: int) -> str | None:
    order = ">" if data.startswith(b"MM") else "<"
    # As Pillow tells them apart.
    large = data[2:3] == b"\x2b"
    found: dict[int, int] = {}
    tags, entries = _directory(data, order, large=large)
    if tags > MAX_TAGS:
        return f"a TIFF of {tags} tags"
    for tag, kind, count, value in entries:
        if tag in _LISTS and count > MAX_STRIPS:
            return f"a TIFF of {count} {_LISTS[tag]}"
        if kind not in _BYTE_TYPES and count > MAX_VALUES:
            return f"a TIFF of {count} values in tag {tag}"
        found.setdefault(tag, value)
    if found.get(_COMPRESSION) in _JPEG_IN_TIFF:
        width = found.get(_TILE_WIDTH) or found.get(_WIDTH, 0)
        height = found.get(_TILE_HEIGHT) or found.get(_HEIGHT, 0)
        strips = max((count for tag, _, count, _ in entries if tag in _LISTS), default=1)
        part = width * height if _TILE_WIDTH in found else width * height // max(1, strips)
        scans = data.count(bytes((0xFF, START_OF_SCAN)))
        if part <= max_pixels and scans * part > MAX_SCAN_PIXELS:
            return f"a TIFF of JPEGs with {scans} scans over {part} pixels each"
    return None


def _exif(block: bytes) -> str | None:
    block = block.removeprefix(b"Exif\0\0")
    tags, _ = _directory(block, ">" if block.startswith(b"MM") else "<", large=False)
    return f"EXIF of {tags} tags" if tags > MAX_TAGS else None


def _directory(
    data: bytes, order: str, *, large: bool
) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Return how many tags a TIFF's first directory has, and the first MAX_TAGS of them.

    A damaged one may say that it has more than there are; parsers stop at the end.

    Args:
        data: a TIFF, or what an EXIF block holds.
        order: of the bytes, as `struct` has it.
        large: whether it is a BigTIFF.

    Returns:
        The number, and for each the tag, its type, how many values it has, and the first of them
        where it stands in the directory, else their place.
    """
    try:
        if large:
            (start,) = struct.unpack_from(f"{order}Q", data, 8)
            (tags,) = struct.unpack_from(f"{order}Q", data, start)
            entry, start = struct.Struct(f"{order}HHQ8s"), start + 8
        else:
            (start,) = struct.unpack_from(f"{order}I", data, 4)
            (tags,) = struct.unpack_from(f"{order}H", data, start)
            entry, start = struct.Struct(f"{order}HHI4s"), start + 2
    except struct.error:
        return 0, []
    tags = max(0, min(tags, (len(data) - start) // entry.size))
    entries = []
    for number in range(min(tags, MAX_TAGS)):
        tag, kind, count, value = entry.unpack_from(data, start + number * entry.size)
        width = 2 if kind == 3 else 4
        first = int.from_bytes(value[:width], "big" if order == ">" else "little")
        entries.append((tag, kind, count, first))
    return tags, entries


_FORMATS = (
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (b"\x89PNG\r\n\x1a\n", "PNG", _png),
    (b"GIF87a", "GIF", _gif),
    (b"GIF89a", "GIF", _gif),
    (b"RIFF", "WEBP", _webp),
    (b"BM", "BMP", _bmp),
    *(
        (start, "TIFF", _tiff)
        for start in (b"II*\0", b"II\0*", b"MM\0*", b"MM*\0", b"II+\0", b"MM\0+")
    ),
)
