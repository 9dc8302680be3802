"""Owns whether a JPEG that lacks its end marker still holds its whole picture."""

from __future__ import annotations

import itertools
import re
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

_END_OF_IMAGE = b"\xff\xd9"
# Runs of entropy-coded bits that differ: a decoder that still wants bits shows which it got.
_PADDINGS = (b"\x55" * 64, b"\xaa" * 64)
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; libjpeg reads no others
_START_OF_SCAN = 0xDA
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Of a whole file; a profile or XMP of megabytes takes some hundred.
_MAX_SEGMENTS = 10_000
_RESTARTS = 8  # their markers are numbered round
_COEFFICIENTS = frozenset(range(64))


def without_end(data: bytes) -> Image.Image | None:
    """Load a JPEG whose end marker is missing, as browsers do, if no pixel is missing.

    Args:
        data: a file that Pillow has found truncated.

    Returns:
        The loaded picture; None where part of it is missing.
    """
    if not _has_all_scans(data):
        return None
    cut = data.rstrip(b"\xff")
    restart = _next_restart(cut)
    ends = []
    for padding in _PADDINGS:
        # Behind a whole interval a decoder skips all that comes before the next restart marker.
        whole = cut + padding + restart + padding + _END_OF_IMAGE
        picture = Image.open(BytesIO(whole), formats=("JPEG",))
        picture.load()
        ends.append(picture)
    first, second = ends
    return first if np.array_equal(np.asarray(first), np.asarray(second)) else None


def _next_restart(data: bytes) -> bytes:
    """Return the restart marker that would come next in the last scan, if it has any."""
    numbers = _RESTART.findall(data, data.rfind(bytes((0xFF, _START_OF_SCAN))))
    return bytes((0xFF, 0xD0 + (numbers[-1][0] - 0xD0 + 1) % _RESTARTS if numbers else 0xD0))


def _has_all_scans(data: bytes) -> bool:
    """Return whether each component's coefficients have begun to come at full precision."""
    missing: dict[int, set[int]] = {}
    for marker, body in itertools.islice(_segments(data), _MAX_SEGMENTS):
        if marker in _FRAMES:
            missing = {body[6 + 3 * n]: set(_COEFFICIENTS) for n in range(body[5])}
        elif marker == _START_OF_SCAN:
            count = body[0]
            first, last, precision = body[2 * count + 1 : 2 * count + 4]
            if precision & 15 == 0:
                for n in range(count):
                    missing.get(body[1 + 2 * n], set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each whole marker segment: its marker and its body, without the length."""
    position = 2
    while (found := _SEGMENT.search(data, position)) and found.end() + 2 <= len(data):
        position = found.end()
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        if length < 2 or len(body) != length - 2:
            return
        yield data[position - 1], body
        position += length
