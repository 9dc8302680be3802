"""Owns the table of requests that must be refused with 400, naming the field."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any, NamedTuple

from PIL import Image

from tests.fakes.pictures import b64, encoded, png
from tests.fakes.web_client import edit, square_mask

MASK_TEXT = "conditional_images must include at least one image (mask)"


class BadInput(NamedTuple):
    """One request that must be refused."""

    name: str
    """What is wrong with it."""
    content: bytes
    """The body."""
    field: str
    """What the detail must name."""
    content_type: str = "application/json"
    """Of the body."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def claimed_png(width: int, height: int) -> bytes:
    """Return a tiny file whose header claims width x height grey pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb(side: int) -> bytes:
    """Return a real PNG of side² black pixels, a thousandth of their size."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + side)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _corrupt(data: bytes) -> bytes:
    """Return the file with a byte in its middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def _field(field: str, value: Any, name: str = "", **others: Any) -> BadInput:
    shown = name or f"{field} = {str(value)[:40]!r}"
    return BadInput(shown, json.dumps(edit(**{field: value}, **others)).encode(), field)


def _without(field: str) -> BadInput:
    request = edit()
    del request[field]
    return BadInput(f"{field} missing", json.dumps(request).encode(), field)


def _image(name: str, data: bytes | str, field: str = "input_image") -> BadInput:
    text = b64(data) if isinstance(data, bytes) else data
    value: Any = [text] if field == "conditional_images" else text
    others = {"reference_image": b64(png())} if field == "reference_mask_R" else {}
    return _field(field, value, f"{field}: {name}", **others)


def _endless_jpeg() -> bytes:
    """Return a small progressive JPEG with 100,000 empty scans, each decoding the picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last_scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last_scan:end] * 100_000 + data[end:]


def _raw(field: str, literal: str) -> BadInput:
    """Return a request with a literal that json.dumps would not write."""
    body = json.dumps(edit(**{field: "@"})).replace('"@"', literal)
    return BadInput(f"{field} = {literal[:20]}", body.encode(), field)


_PNG = png((64, 64))
_NOISY = encoded("JPEG", (256, 256))

BAD_INPUTS = [
    # Ranges.
    _field("num_inference_steps", 0),
    _field("num_inference_steps", 101),
    _field("num_inference_steps", -1),
    _field("width", 255),
    _field("width", 2049),
    _field("height", 255),
    _field("height", 2**40),
    _field("guidance_scale", 0.49),
    _field("guidance_scale", 20.1),
    _field("true_cfg_scale", 0.4),
    _field("true_cfg_scale", 15.5),
    _field("seed", -1),
    _field("seed", 2**63),
    _field("prompt", "x" * 4097, "prompt too long"),
    _field("negative_prompt", "x" * 4097, "negative_prompt too long"),
    _field("angle", "x" * 257, "angle too long"),
    _field("background_preset", "x" * 257, "background_preset too long"),
    _raw("guidance_scale", "NaN"),
    _raw("true_cfg_scale", "Infinity"),
    _raw("true_cfg_scale", "1e999"),
    _raw("seed", "9" * 4000),
    # Types.
    _without("prompt"),
    _without("input_image"),
    _field("prompt", None),
    _field("prompt", 7),
    _field("prompt", ["remove"]),
    _raw("prompt", '"\\ud800"'),
    _field("input_image", None),
    _field("input_image", 7),
    _field("input_image", {"data": "x"}),
    _field("num_inference_steps", "10"),
    _field("num_inference_steps", 2.5),
    _field("num_inference_steps", True),
    _field("width", [512]),
    _field("seed", "seven"),
    _field("guidance_scale", "4.0"),
    _field("true_cfg_scale", False),
    _field("enable_flowmatch_scheduler", "yes"),
    _field("enable_flowmatch_scheduler", 1),
    _field("preview", "true"),
    _field("task_type", "upscale"),
    _field("task_type", ""),
    _field("input_quality", "best"),
    _field("mask_tool_type", "pen"),
    _field("region", "half"),
    _field("region", [0, 0, 0.5, 1]),
    _field("region", [16, 0, 0, 16]),
    _field("region", [0, 8, 16, 8]),
    _field("region", [-1, 0, 16, 16]),
    _field("region", [1, 2, 3]),
    _field("region", [0, 0, 65, 64]),
    _field("region", [600, 600, 900, 900], task_type="white-balance"),
    _field(
        "region",
        [0, 0, 8, 8],
        "region beside the mask",
        input_image=b64(png((256, 256))),
        conditional_images=[b64(square_mask(256, 0.75, 1))],
    ),
    _field("conditional_images", b64(png()), "conditional_images is no list"),
    _field("conditional_images", [None]),
    _field("conditional_images", [b64(png())] * 5, "conditional_images: five"),
    # A mask is missing.
    BadInput("removal, mask null", json.dumps(edit(conditional_images=None)).encode(), MASK_TEXT),
    BadInput("removal, no masks", json.dumps(edit(conditional_images=[])).encode(), MASK_TEXT),
    BadInput(
        "insertion, mask null",
        json.dumps(edit(task_type="insertion", conditional_images=None)).encode(),
        MASK_TEXT,
    ),
    _field("reference_mask_R", b64(png()), "reference_mask_R without reference_image"),
    # Base64.
    _image("empty", ""),
    _image("not base64", "!!!!"),
    _image("not ASCII", "ảnh"),
    _image("bad padding", b64(_PNG)[:-1] + "A="),
    _image("URL-safe alphabet", base64.urlsafe_b64encode(b"\xff\xfe\xfb" * 30).decode()),
    _image("data URL without data", "data:image/png;base64,"),
    _image("data URL without comma", "data:image/png;base64"),
    _image("not base64", "????", "reference_image"),
    _image("not base64", "????", "reference_mask_R"),
    _image("not base64", "????", "conditional_images"),
    # Not whole, or not an image.
    _image("text", b"hello"),
    _image("truncated PNG", _PNG[: len(_PNG) // 2]),
    _image("PNG without its end", _PNG[:-20]),
    _image("only a PNG signature", _PNG[:8]),
    _image("corrupt PNG", _corrupt(_PNG)),
    _image("truncated JPEG", _NOISY[: len(_NOISY) // 2]),
    _image("truncated WebP", encoded("WEBP", (64, 64))[:-10]),
    _image("truncated BMP", encoded("BMP", (64, 64))[:-100]),
    _image("truncated TIFF", encoded("TIFF", (64, 64))[:200]),
    _image("truncated GIF", encoded("GIF", (64, 64))[:30]),
    _image("truncated PNG", _PNG[:60], "reference_image"),
    _image("truncated PNG", _PNG[:60], "reference_mask_R"),
    _image("truncated PNG", _PNG[:60], "conditional_images"),
    # Formats that Pillow reads and the contract does not list.
    _image("HEIC", b"\0\0\0\x20ftypheic\0\0\0\0heic" + bytes(200)),
    _image("PPM", encoded("PPM")),
    _image("ICO", encoded("ICO")),
    _image("TGA", encoded("TGA")),
    _image("PCX", encoded("PCX")),
    _image("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    _image("PDF", b"%PDF-1.4\n%%EOF"),
    # Too large.
    _image("claims 30000x30000", claimed_png(30_000, 30_000)),
    _image("claims 2^31 x 1", claimed_png(2**31 - 1, 1)),
    _image("claims no pixels", claimed_png(0, 0)),
    _image("claims more rows than it has", claimed_png(2000, 2000)),
    _image("bomb", bomb(6000)),
    _image("bomb", bomb(6000), "conditional_images"),
    _image("JPEG of endless scans", _endless_jpeg()),
    _image("32-bit samples", encoded("TIFF", mode="F")),
    # JSON.
    BadInput("no body", b"", "body"),
    BadInput("not JSON", b"{", "body"),
    BadInput("not UTF-8", b'{"prompt": "\xff"}', "body"),
    BadInput("a list", b"[]", "body"),
    BadInput("null", b"null", "body"),
    BadInput("a string", b'"edit"', "body"),
    BadInput("deep", b"[" * 5_000 + b"]" * 5_000, "body"),
    BadInput("deep in a field", b'{"prompt":' * 5_000 + b"1" + b"}" * 5_000, "body"),
    BadInput("deeper", b"[" * 1_000_000, "body"),
    BadInput("a million values", b"[" + b"0," * 1_000_000 + b"0]", "body"),
    BadInput("a number of 10,000 digits", b'{"seed": ' + b"9" * 10_000 + b"}", "body"),
    BadInput("form", b"prompt=x", "body", "application/x-www-form-urlencoded"),
    BadInput("plain text", json.dumps(edit()).encode(), "body", "text/plain"),
]
