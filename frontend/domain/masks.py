"""Owns the words of a smart mask: what is asked of smart_mask and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_ID_CHARS = 128
"""Of an image_id or a request_id."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture that a client has sent."""

    data: bytes = field(repr=False)
    """The file: PNG, JPEG, WebP, BMP, GIF or TIFF, unless the client sent something else."""
    image_id: str
    """SHA-256 of `data`, hexadecimal."""
    text_digest: bytes = field(repr=False)
    """SHA-256 of the base64 that the client sent; recognises the same upload at once."""


@dataclass(frozen=True, kw_only=True)
class MaskPrompts:
    """What to find in a picture; each field is the input tensor of the same name.

    Coordinates are pixels of the upright picture. A field that is None is not sent.
    """

    points: tuple[tuple[float, float], ...] = ()
    """x and y of each, in pixels."""
    point_labels: tuple[int, ...] = ()
    """For each point, 1 inside the object, 0 outside; empty: all 1."""
    bbox: tuple[float, ...] | None = None
    """x0, y0, x1, y1 in pixels."""
    mask: bytes | None = field(default=None, repr=False)
    """A rough mask of the object, as plain pixels."""
    auto_detect: bool | None = None
    """Find the most salient object."""
    border_adjustment: int | None = None
    """The mask grows by half as many pixels, or shrinks if negative; -50..50."""
    use_blur: bool | None = None
    """Softer edges."""


@dataclass(frozen=True)
class MaskResult:
    """The model's answer to a mask request."""

    mask: bytes = field(repr=False)
    """PNG, grey, of the upright picture's size; 255 = object."""
    image_id: str
    """The picture's."""
    score: float
    """The network's confidence in the object, 0..1."""
    cached: bool
    """Whether the mask was made without running the network."""
    points_missed: tuple[int, ...]
    """Positions in the prompts' points of the positive ones that the mask does not hold."""
    timings: dict[str, float]
    """Seconds by stage."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is doubtful in the rough mask."""
