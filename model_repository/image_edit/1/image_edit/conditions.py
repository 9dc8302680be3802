"""Owns what edit_conditions answers for one edit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in pixels."""
OUTPUTS = (
    *("CONDITIONS", "PICTURE", "PROFILE", "REGIONS", "CONTENT", "PASTE_MASKS", "COMPOSITED"),
    *("IN_PLACE", "SQUARE", "SIZE", "PROMPT", "TASK_TYPE"),
)
"""What is asked of edit_conditions."""
DEBUG_OUTPUT = "DEBUG_INFO"
"""What is asked of it too, unless the client wants none."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of an array that the box covers."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True, eq=False)
class Region:
    """One part of the picture that is generated."""

    box: Box
    """In pixels of the picture."""
    content: Size
    """Of the box's content on the canvas, in its upper left corner; the rest is padding."""
    images: Pixels
    """The condition images, sRGB uint8 [n, height, width, 3] of the canvas's size."""
    paste_mask: Pixels | None
    """Where the result goes into the picture, 255 = result; uint8 of the box's size."""

    @property
    def canvas(self) -> Size:
        """The size to generate."""
        return self.images.shape[2], self.images.shape[1]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The regions of an edit and what belongs to them."""

    picture: Pixels
    """What the results go into, uint8 [height, width, 3 or 4]; the fourth channel is alpha."""
    profile: bytes | None
    """ICC profile of `picture`; None: sRGB."""
    regions: tuple[Region, ...]
    """At least one; all of the same canvas."""
    composited: bool
    """Whether `picture` is kept, bit for bit, where the paste masks are 0."""
    in_place: bool
    """Whether the answer is the picture as it was sent, edited in place."""
    square: int | None
    """Side of the black square in whose middle `picture` is returned; None: as it is."""
    size: Size
    """Of the answer, to which the finished picture is stretched."""
    prompt: str
    task_type: str
    debug_info: dict[str, Any] | None
    """The keys of INFO's debug_info that conditioning knows; None: not asked for."""


def read_conditions(outputs: Mapping[str, npt.NDArray[Any]]) -> Conditions:
    """Read edit_conditions' outputs, by name; its config.pbtxt explains each."""
    boxes = [Box(*row) for row in outputs["REGIONS"].tolist()]
    masks: list[Pixels | None] = [None] * len(boxes)
    if (flat := outputs.get("PASTE_MASKS")) is not None:
        ends = np.cumsum([box.width * box.height for box in boxes])
        masks = [
            part.reshape(box.height, box.width)
            for part, box in zip(np.split(flat, ends[:-1]), boxes, strict=True)
        ]
    return Conditions(
        picture=outputs["PICTURE"],
        profile=outputs["PROFILE"][0] if "PROFILE" in outputs else None,
        regions=tuple(
            Region(box, (content[0], content[1]), images, mask)
            for box, content, images, mask in zip(
                boxes, outputs["CONTENT"].tolist(), outputs["CONDITIONS"], masks, strict=True
            )
        ),
        composited=bool(outputs["COMPOSITED"][0]),
        in_place=bool(outputs["IN_PLACE"][0]),
        square=int(outputs["SQUARE"][0]) if "SQUARE" in outputs else None,
        size=(int(outputs["SIZE"][0]), int(outputs["SIZE"][1])),
        prompt=outputs["PROMPT"][0].decode(),
        task_type=outputs["TASK_TYPE"][0].decode(),
        debug_info=json.loads(outputs[DEBUG_OUTPUT][0]) if DEBUG_OUTPUT in outputs else None,
    )
