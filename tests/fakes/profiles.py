"""Owns small ICC profiles and hand-made files: what strangers' pictures carry."""

from __future__ import annotations

import struct
import zlib

Primaries = tuple[tuple[float, float, float], ...]

# X, Y and Z of red, green and blue under D50.
DISPLAY_P3: Primaries = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB: Primaries = (
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)
RED_AND_BLUE_SWAPPED: Primaries = (
    (0.14307, 0.06061, 0.71410),
    (0.38515, 0.71687, 0.09708),
    (0.43607, 0.22249, 0.01392),
)


def profile(primaries: Primaries = DISPLAY_P3, gamma: float = 2.2, space: bytes = b"RGB ") -> bytes:
    """Make a matrix profile (ICC.1:2001-04), or a grey one where `space` is b"GRAY"."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    text += bytes(-len(text) % 4)
    tags = [
        (b"desc", text),
        (b"cprt", b"text\0\0\0\0x\0\0\0"),
        (b"wtpt", xyz((0.9642, 1, 0.8249))),
    ]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        tags += zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True)
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _assembled(tags, b"mntr", space, b"XYZ ")


def scanner_profile() -> bytes:
    """Make a profile that leads from RGB to Lab by a table, and not back; its red shows as blue."""
    text = b"text\0\0\0\0x\0\0\0"
    ramp = struct.pack(">2H", 0, 0xFFFF)
    # Lightness, a and b of each corner of the cube, the last channel the fastest.
    lightness, even, blue = (0x0000, 0x4000, 0xC000, 0xFF00), 0x8000, 0x3000
    corners = b"".join(
        struct.pack(">3H", lightness[r + g + b], even, blue if r and not g and not b else even)
        for r in (0, 1)
        for g in (0, 1)
        for b in (0, 1)
    )
    unit = b"".join(_fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft2\0\0\0\0" + bytes([3, 3, 2, 0]) + unit + struct.pack(">HH", 2, 2)
    table += ramp * 3 + corners + ramp * 3
    white = b"XYZ \0\0\0\0" + _fixed(0.9642) + _fixed(1) + _fixed(0.8249)
    tags = [(b"desc", text), (b"cprt", text), (b"wtpt", white), (b"A2B0", table)]
    return _assembled(tags, b"scnr", b"RGB ", b"Lab ")


def _assembled(
    tags: list[tuple[bytes, bytes]], device: bytes, space: bytes, connection: bytes
) -> bytes:
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s",
        128 + len(table) + len(body),
        b"none",
        0x02400000,
        device,
        space,
        connection,
    )
    white = _fixed(0.9642) + _fixed(1) + _fixed(0.8249)
    return head + bytes(12) + b"acsp" + bytes(28) + white + bytes(48) + table + body


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Make one chunk of a PNG, whatever it holds."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(
    size: tuple[int, int], depth: int, colour_type: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """Make a PNG of a kind that Pillow cannot write.

    Args:
        size: width and height.
        depth: bits of a sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        rows: each with its filter byte, not compressed.
        extra: chunks between the header and the pixels.
    """
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def raw_tiff(
    size: tuple[int, int],
    bits: int,
    photometric: int,
    rows: bytes,
    order: str = "<",
    **tags: tuple[int, ...],
) -> bytes:
    """Make a TIFF of a kind that Pillow cannot write: one strip, not compressed.

    Args:
        size: width and height.
        bits: of a sample.
        photometric: 0 grey with white as 0, 1 grey with black as 0, 2 RGB.
        rows: the pixels.
        order: of the bytes, as `struct` has it.
        tags: further numbers, by tag: `t338=(1,)` says that there is alpha, already applied.
    """
    entries = {
        **{256: size[:1], 257: size[1:], 258: (bits,), 259: (1,), 262: (photometric,)},
        **{273: (0,), 277: (1,), 278: size[1:], 279: (len(rows),)},
        **{int(name[1:]): values for name, values in tags.items()},
    }
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = (start,)
    table = b""
    for tag, values in sorted(entries.items()):
        # Short numbers, of which two find room in the entry.
        table += struct.pack(f"{order}HHI", tag, 3, len(values))
        table += struct.pack(f"{order}{len(values)}H", *values).ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IH", 8, len(entries)) + table + bytes(4) + rows


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))
