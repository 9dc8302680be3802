"""Owns the tables of mask and extract-object requests that must be refused, and how."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from tests.fakes.bad_inputs import bomb, claimed_png
from tests.fakes.pictures import b64, encoded, grey, png

SMART_MASK, EXTRACT = "/api/smart-mask", "/api/image-utils/extract-object"
NO_IMAGE = "Either 'image' or 'image_id' must be provided"
NO_PROMPT = (
    "Either 'points', 'bbox', or 'auto_detect=True' must be provided, or 'mask', a rough mask"
)
BAD_BBOX = "bbox: must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1"
NOT_AN_IMAGE = "Invalid base64 image data or unsupported format"


class BadMask(NamedTuple):
    """One request that must be refused."""

    name: str
    """What is wrong with it."""
    content: bytes
    """The body."""
    detail: str
    """How the refusal begins."""
    status: int = 400
    """Its status."""
    path: str = SMART_MASK
    """Where it goes."""
    content_type: str = "application/json"
    """Of the body."""


def mask_request(**changes: Any) -> dict[str, Any]:
    """Return a small valid request for a mask; `changes` replace or (None) null its fields."""
    return {"image": b64(png()), "points": [[4, 4]]} | changes


def _mask(detail: str, status: int = 400, **changes: Any) -> BadMask:
    shown = ", ".join(f"{name} = {str(value)[:40]!r}" for name, value in changes.items())
    return BadMask(shown, json.dumps(mask_request(**changes)).encode(), detail, status)


def _raw(field: str, literal: str) -> BadMask:
    """Return a request with a literal that json.dumps would not write."""
    body = json.dumps(mask_request(**{field: "@"})).replace('"@"', literal)
    return BadMask(f"{field} = {literal[:30]}", body.encode(), field)


def _extract(name: str, detail: str, **changes: Any) -> BadMask:
    request = {"image": b64(png()), "mask": b64(png()), **changes}
    given = {field: value for field, value in request.items() if value != "absent"}
    return BadMask(f"extract: {name}", json.dumps(given).encode(), detail, path=EXTRACT)


_TRUNCATED = "image file is truncated"
_BLACK = encoded("PNG", (8, 8), "1")

# What the frontend refuses by itself; the pictures are the model's to judge.
BAD_MASKS = [
    # No picture.
    _mask(NO_IMAGE, image=None),
    _mask(NO_IMAGE, image="", image_id=""),
    _mask("Image ID not found or expired: nobody", 404, image=None, image_id="nobody"),
    _mask(f"Image ID not found or expired: {'0' * 64}", 404, image="", image_id="0" * 64),
    _mask("image_id", image=None, image_id="x" * 129),
    _mask("image_id", image_id=7),
    _mask("image", image=7),
    _mask("image", image=["x"]),
    _mask("Failed to cache image: not base64", image="????"),
    _mask("Failed to cache image: not base64", image="ảnh"),
    _mask("Failed to cache image: not base64", image="data:image/png;base64,AAAAA"),
    _mask(
        "Failed to cache image: not base64", image=base64.urlsafe_b64encode(b"\xff" * 9).decode()
    ),
    # No prompt.
    _mask(NO_PROMPT, points=None),
    _mask(NO_PROMPT, points=[], bbox=[], mask="", auto_detect=False),
    # Points.
    _mask("points", points=[4, 4]),
    _mask("points", points="4,4"),
    _mask("points", points=[[4]]),
    _mask("points", points=[[4, 4, 4]]),
    _mask("points", points=[[4, "4"]]),
    _mask("points", points=[[4, None]]),
    _mask("points", points=[[4, True]]),
    _mask("points", points=[[4, 2**24 + 1]]),
    _mask("points", points=[[4, -1e300]]),
    _mask("points", points=[[4, 4]] * 257),
    _raw("points", "[[NaN, 1]]"),
    _raw("points", "[[1, Infinity]]"),
    _raw("points", "[[1, 1e999]]"),
    _mask("point_labels", point_labels=[1, 1]),
    _mask("point_labels", point_labels=[0]),
    _mask("point_labels", point_labels=[2]),
    _mask("point_labels", point_labels=[-1]),
    _mask("point_labels", point_labels=[0.5]),
    _mask("point_labels", point_labels=["1"]),
    _mask("point_labels", point_labels=[True]),
    _mask("point_labels", point_labels=1),
    _mask("point_labels", points=None, auto_detect=True, point_labels=[1]),
    # Box.
    _mask(BAD_BBOX, points=None, bbox=[1, 2, 3]),
    _mask(BAD_BBOX, points=None, bbox=[1, 2, 3, 4, 5]),
    _mask(BAD_BBOX, bbox=[1, 2, 3]),
    _mask(BAD_BBOX, points=None, bbox=[3, 2, 1, 4]),
    _mask(BAD_BBOX, points=None, bbox=[1, 4, 3, 2]),
    _mask(BAD_BBOX, points=None, bbox=[1, 2, 1, 4]),
    _mask("bbox", points=None, bbox=["1", 2, 3, 4]),
    _mask("bbox", points=None, bbox=[[1, 2], [3, 4]]),
    _mask("bbox", points=None, bbox={"x": 1}),
    _mask("bbox", points=None, bbox=[0, 0, 1, 1e9]),
    _raw("bbox", "[0, 0, 1, Infinity]"),
    # The rest.
    _mask("border_adjustment", border_adjustment=51),
    _mask("border_adjustment", border_adjustment=-51),
    _mask("border_adjustment", border_adjustment=1.5),
    _mask("border_adjustment", border_adjustment="5"),
    _mask("border_adjustment", border_adjustment=True),
    _raw("border_adjustment", "9" * 400),
    _mask("use_blur", use_blur="yes"),
    _mask("use_blur", use_blur=1),
    _mask("auto_detect", points=None, auto_detect="true"),
    _mask("mask", points=None, mask=7),
    _mask(f"mask: {NOT_AN_IMAGE}: not base64", points=None, mask="????"),
    _mask("model_type", model_type="sam2"),
    _mask("model_type", model_type=""),
    _mask("model_type: birefnet is not built", 501, model_type="birefnet"),
    _mask("request_id", request_id="x" * 129),
    _mask("request_id", request_id="a/b"),
    _mask("request_id", request_id="a b"),
    *(_mask("request_id: must not be . or ..", request_id=dots) for dots in (".", "..")),
    _mask("request_id", request_id=7),
    # JSON.
    BadMask("no body", b"", "body"),
    BadMask("not JSON", b"{", "body: not JSON"),
    BadMask("not UTF-8", b'{"image": "\xff"}', "body"),
    BadMask(
        "half a surrogate in image",
        b'{"image": "\\ud800", "points": [[1, 1]]}',
        "Failed to cache image: not base64",
    ),
    BadMask(
        "half a surrogate in image_id", b'{"image_id": "\\ud800", "points": [[1, 1]]}', "image_id"
    ),
    BadMask(
        "half a surrogate in mask",
        json.dumps(mask_request(mask="@")).replace("@", "\\ud800").encode(),
        "mask: ",
    ),
    BadMask("a list", b"[]", "body"),
    BadMask("null", b"null", "body"),
    BadMask("deep", b"[" * 5_000 + b"]" * 5_000, "body"),
    BadMask("deep in a field", b'{"points":' * 5_000 + b"1" + b"}" * 5_000, "body"),
    BadMask("a million values", b"[" + b"0," * 1_000_000 + b"0]", "body"),
    BadMask("plain text", json.dumps(mask_request()).encode(), "body", content_type="text/plain"),
]

BAD_EXTRACTS = [
    _extract("no image", "image", image="absent"),
    _extract("no mask", "mask", mask="absent"),
    _extract("null image", "image", image=None),
    _extract("null mask", "mask", mask=None),
    _extract("image is a number", "image", image=7),
    _extract("mask is a list", "mask", mask=["x"]),
    _extract("empty image", f"image: {NOT_AN_IMAGE}", image=""),
    _extract("empty mask text", f"mask: {NOT_AN_IMAGE}", mask=""),
    _extract("image not base64", f"image: {NOT_AN_IMAGE}: not base64", image="????"),
    _extract("mask not base64", f"mask: {NOT_AN_IMAGE}: not base64", mask="????"),
    _extract("image is text", f"image: {NOT_AN_IMAGE}: not a PNG", image=b64(b"hello")),
    _extract(
        "image truncated",
        f"image: {NOT_AN_IMAGE}: image file is truncated",
        image=b64(png((64, 64))[:60]),
    ),
    _extract(
        "mask truncated",
        f"mask: {NOT_AN_IMAGE}: image file is truncated",
        mask=b64(png((64, 64))[:60]),
    ),
    _extract("mask of a foreign format", f"mask: {NOT_AN_IMAGE}", mask=b64(encoded("PPM"))),
    _extract(
        "image claims too much",
        "image: more than the 67108864 pixels",
        image=b64(claimed_png(30_000, 30_000)),
    ),
    _extract(
        "mask claims too much",
        "mask: more than the 67108864 pixels",
        mask=b64(claimed_png(30_000, 30_000)),
    ),
    _extract("a bomb for a mask", "mask: 9000x9000", mask=b64(bomb(9000))),
    _extract("32-bit mask", "mask: floating-point 32-bit", mask=b64(encoded("TIFF", mode="F"))),
    _extract("black mask", "No object found in mask (no white pixels)", mask=b64(_BLACK)),
    _extract(
        "mask at the threshold",
        "No object found in mask (no white pixels)",
        mask=b64(grey(127)),
    ),
    BadMask("extract: no body", b"", "body", path=EXTRACT),
    BadMask("extract: not JSON", b"{", "body: not JSON", path=EXTRACT),
    BadMask("extract: a list", b"[]", "body", path=EXTRACT),
]
