"""Owns the words of a smart mask: what is asked of smart_mask and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """An encoded picture that a client has sent.

    Attributes:
        data: the file (PNG, JPEG, WebP, BMP, GIF or TIFF), or what was sent for one.
        image_id: SHA-256 of `data`, hexadecimal.
        text_digest: SHA-256 of the base64 that it came as; tells the same upload at once.
    """

    data: bytes = field(repr=False)
    image_id: str
    text_digest: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class MaskPrompts:
    """What to find in a picture; each field is the input tensor of the same name.

    Coordinates are pixels of the upright picture. None is not sent.

    Attributes:
        points: x and y each.
        point_labels: of each point, 1 inside the object, 0 outside; empty: all 1.
        bbox: x0, y0, x1, y1.
        mask: a rough mask of the object, an encoded file.
        auto_detect: take the most salient object.
        border_adjustment: grows the mask, or shrinks it where negative; in pixels.
        use_blur: softer edges.
    """

    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    bbox: tuple[float, ...] | None = None
    mask: bytes | None = field(default=None, repr=False)
    auto_detect: bool | None = None
    border_adjustment: int | None = None
    use_blur: bool | None = None


@dataclass(frozen=True)
class MaskResult:
    """The model's answer to a mask request.

    Attributes:
        mask: PNG, grey, of the upright picture's size; 255 = object.
        image_id: of the picture.
        score: the network's confidence in the object, 0..1.
        cached: whether the network did not have to run.
        timings: seconds by stage.
    """

    mask: bytes = field(repr=False)
    image_id: str
    score: float
    cached: bool
    timings: dict[str, float]
