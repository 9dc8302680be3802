"""Owns reading and checking one request for a mask, from a request's tensors."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model_kit.errors import invalid
from model_kit.tensors import Tensors
from smart_mask.finish import MAX_BORDER
from smart_mask.letterbox import Floats

MAX_POINTS = 256
# Of one input: x and y of MAX_POINTS points.
MAX_ELEMENTS = 2 * MAX_POINTS
# Pixels. Far beyond any picture, and exact in float32.
_MAX_COORDINATE = 2**24
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """What to find in which picture; at least one of the prompts is present."""

    image: bytes | None = field(repr=False)
    """An encoded file; None if `image_id` names the picture."""
    image_id: str
    """64 hexadecimal digits; "" if there is an image."""
    points: Floats | None
    """float32 [n, 2], x and y in pixels of the picture."""
    positive: npt.NDArray[np.bool_] | None
    """bool [n]; at least one is True."""
    box: Floats | None
    """float32 [4]: x0, y0, x1, y1 in pixels of the picture, x0 < x1 and y0 < y1."""
    guidance: bytes | None = field(repr=False)
    """An encoded file."""
    border: int
    """-MAX_BORDER..MAX_BORDER; see `finish`."""
    blur: bool
    """Softer edges."""


def read_mask_request(tensors: Tensors, max_bytes: int) -> MaskRequest:
    """Check a request, except what needs a decoded picture.

    Args:
        tensors: the inputs, each as a list; Triton has checked shapes and types.
        max_bytes: of all encoded files together.

    Raises:
        CodedError: INVALID_ARGUMENT: names the first input that is missing or wrong.
    """
    size = sum(len(element) for name in ("IMAGE", "MASK") for element in tensors.get(name, ()))
    if size > max_bytes:
        raise invalid("IMAGE", f"{size} bytes with MASK, at most {max_bytes}")
    image = _file(tensors, "IMAGE")
    if image is None and not tensors.get("IMAGE_ID"):
        raise invalid("IMAGE", "either IMAGE or IMAGE_ID must be given")
    points = _points(tensors)
    box = _box(tensors)
    guidance = _file(tensors, "MASK")
    prompts = (points, box, guidance, tensors.get("AUTO_DETECT", [False])[0] or None)
    if all(prompt is None for prompt in prompts):
        raise invalid("POINTS", "POINTS, BBOX, MASK or AUTO_DETECT must be given")
    border = tensors.get("BORDER_ADJUSTMENT", [0])[0]
    if abs(border) > MAX_BORDER:
        raise invalid("BORDER_ADJUSTMENT", f"{border} is not within -{MAX_BORDER}..{MAX_BORDER}")
    return MaskRequest(
        image=image,
        image_id="" if image is not None else _image_id(tensors),
        points=points,
        positive=_positive(tensors, points),
        box=box,
        guidance=guidance,
        border=border,
        blur=tensors.get("USE_BLUR", [False])[0],
    )


def _file(tensors: Tensors, name: str) -> bytes | None:
    """Return an encoded file, or None if it is absent or empty."""
    return b"".join(tensors.get(name, ())) or None


def _image_id(tensors: Tensors) -> str:
    text = tensors["IMAGE_ID"][0].decode(errors="replace")
    if not _IMAGE_ID.fullmatch(text):
        raise invalid("IMAGE_ID", "must be 64 hexadecimal digits")
    return str(text)


def _points(tensors: Tensors) -> Floats | None:
    points = tensors.get("POINTS")
    if not points:
        return None
    if len(points) > MAX_POINTS:
        raise invalid("POINTS", f"at most {MAX_POINTS} points, not {len(points)}")
    return _coordinates("POINTS", points)


def _positive(tensors: Tensors, points: Floats | None) -> npt.NDArray[np.bool_] | None:
    labels = tensors.get("POINT_LABELS")
    if points is None:
        if labels:
            raise invalid("POINT_LABELS", "needs POINTS beside it")
        return None
    if labels is None:
        return np.ones(len(points), np.bool_)
    if len(labels) != len(points):
        raise invalid("POINT_LABELS", f"{len(labels)} labels for {len(points)} points")
    if not set(labels) <= {0, 1}:
        raise invalid("POINT_LABELS", "must each be 1 (inside) or 0 (outside)")
    if 1 not in labels:
        raise invalid("POINT_LABELS", "at least one point must be inside the object")
    return np.array(labels, np.bool_)


def _box(tensors: Tensors) -> Floats | None:
    box = tensors.get("BBOX")
    if not box:
        return None
    left, top, right, bottom = _coordinates("BBOX", box).tolist()
    if not (left < right and top < bottom):
        raise invalid("BBOX", "must be x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    return np.array(box, np.float32)


def _coordinates(name: str, values: Sequence[Any]) -> Floats:
    array = np.array(values, np.float32)
    if not np.isfinite(array).all():
        raise invalid(name, "must be finite numbers")
    if np.abs(array).max(initial=0) > _MAX_COORDINATE:
        raise invalid(name, f"must lie within {_MAX_COORDINATE} pixels")
    return array
