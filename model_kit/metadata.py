"""Owns what is left out of a picture file before it is decoded: what says nothing of its pixels.

Browsers pass over metadata that they cannot read, and show the picture. Pillow's parsers read all
of it first, and refuse the whole file for a damaged part. Those of WebP, TIFF and BMP do not.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from model_kit import structure
from model_kit.colour import MAX_PROFILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ANCILLARY = 32  # bit of a PNG chunk's first letter
_BEHIND_LENGTH_AND_KIND, _CHECKSUM = 8, 4  # bytes of a PNG chunk around its body
_OF_ANY_LENGTH = (b"iCCP", b"eXIf")
_LENGTHS = {b"gAMA": (4,), b"cHRM": (32,), b"sRGB": (1,), b"cICP": (4,)}
# By the byte that says what the samples of a PNG are: grey, RGB or a palette.
_COLOUR_TYPE = 25
_TRANSPARENT: dict[bytes, Sequence[int]] = {b"\0": (2,), b"\2": (6,), b"\3": range(1, 257)}
_MAX_NAME = 79  # of an iCCP chunk
# Marker, signature and fewest bytes of those APP segments that Pillow and libjpeg have use for.
_SEGMENTS = (
    (0xE0, b"JFIF", 14),
    (0xE1, b"Exif\0\0", 6),
    (0xE2, b"ICC_PROFILE\0", 14),
    (0xEE, b"Adobe", 12),
)
_GRAPHIC_CONTROL, _GRAPHIC_CONTROL_BYTES = 0xF9, 4


def without_metadata(data: bytes) -> bytes:
    """Return a file without the metadata that changes no pixel, and without what is damaged of it.

    - PNG: of the ancillary chunks the first sound one is kept of each of tRNS, gAMA, cHRM, sRGB,
      iCCP and cICP before the pixels, and eXIf. One is sound if its checksum and its length are
      right, and a profile if it unpacks to MAX_PROFILE_BYTES at most. So of an animation only the
      picture remains that is shown where animations are not known.
    - JPEG: of the APP segments JFIF, EXIF, ICC profile and Adobe's are kept, if they are whole.
    - GIF: of the extensions before the first frame those are kept that say what is transparent.

    Args:
        data: a file that `structure.reason_to_refuse` does not refuse, of any format or none.

    Returns:
        The file itself where nothing is left out.
    """
    left_out = next((find for start, find in _FORMATS if data.startswith(start)), None)
    if left_out is None:
        return data
    view, parts, position = memoryview(data), [], 0
    for start, end in left_out(data):
        if start > position:
            parts.append(view[position:start])
        position = end
    return b"".join([*parts, view[position:]]) if position else data


def _png(data: bytes) -> Iterator[tuple[int, int]]:
    taken = set()
    for kind, start, length in structure.png_chunks(data):
        if kind == b"IEND" or not kind.isalpha():
            return
        if kind[0] & _ANCILLARY and (
            kind in taken
            or (b"IDAT" in taken and kind != b"eXIf")
            or not _is_sound(data, kind, start, length)
        ):
            yield start - _BEHIND_LENGTH_AND_KIND, start + length + _CHECKSUM
        else:
            taken.add(kind)


def _is_sound(data: bytes, kind: bytes, start: int, length: int) -> bool:
    """Return whether an ancillary chunk of a PNG has something to say, and is whole."""
    if kind == b"tRNS":
        lengths = _TRANSPARENT.get(data[_COLOUR_TYPE : _COLOUR_TYPE + 1], ())
    else:
        lengths = _LENGTHS.get(kind, ())
    if kind not in _OF_ANY_LENGTH and length not in lengths:
        return False
    body = memoryview(data)[start : start + length]
    checksum = zlib.crc32(body, zlib.crc32(kind))
    if data[start + length : start + length + _CHECKSUM] != checksum.to_bytes(_CHECKSUM, "big"):
        return False
    return kind != b"iCCP" or _is_readable(body)


def _is_readable(body: memoryview) -> bool:
    """Return whether the profile of an iCCP chunk can be unpacked, and is not too large."""
    # The name, a zero, the method, of which there is only 0, and the profile.
    name, zero, method = bytes(body[: _MAX_NAME + 2]).partition(b"\0")
    if not zero or not method.startswith(b"\0"):
        return False
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(body[len(name) + 2 :], MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return bool(unpacked) and not unpacking.unconsumed_tail


def _jpeg(data: bytes) -> Iterator[tuple[int, int]]:
    for marker, start, end in structure.jpeg_segments(data):
        if marker == structure.START_OF_SCAN:
            return
        if marker & 0xF0 == 0xE0 and not any(
            marker == one and end - start >= fewest and data.startswith(signature, start)
            for one, signature, fewest in _SEGMENTS
        ):
            # With what does not belong to any segment: a picture begins with two markers.
            behind = data.find(b"\xff", end)
            yield start - 4, behind if behind >= 0 else len(data)


def _gif(data: bytes) -> Iterator[tuple[int, int]]:
    position = structure.gif_blocks(data)
    while position < len(data) and data[position : position + 1] not in (b",", b";"):
        start = position
        if data[start : start + 1] == b"!":
            label, first = data[start + 1 : start + 3].ljust(2, b"\0")
            position += 2
            while position < len(data) and data[position]:
                position += data[position] + 1
            if label != _GRAPHIC_CONTROL or first < _GRAPHIC_CONTROL_BYTES:
                yield start, position + 1
        position += 1


_FORMATS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
)
