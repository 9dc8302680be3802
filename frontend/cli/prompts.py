"""Owns the options that say which object is meant, and asking the server for its mask."""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontend.cli.console import BAD_INPUT, as_base64, fail, numbers, stderr
from frontend.cli.session import Interrupted
from frontend.errors import IMAGE_REFUSED

if TYPE_CHECKING:
    from frontend.cli.session import Session

Points = Annotated[
    list[str] | None, typer.Option("--point", metavar="X,Y", help="On the object; repeatable.")
]
NegativePoints = Annotated[
    list[str] | None,
    typer.Option("--negative-point", metavar="X,Y", help="Beside the object; repeatable."),
]
Box = Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Around the object.")]

OPTIONS = {
    "image": "--image",
    IMAGE_REFUSED: "--image",
    "points": "--point",
    "bbox": "--box",
    "border_adjustment": "--border",
}
"""Fields of a mask request -> options."""


@dataclass(frozen=True)
class Prompts:
    """Points and a box, in pixels of the upright picture."""

    inside: list[tuple[float, float]]
    outside: list[tuple[float, float]]
    box: tuple[float, ...] | None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a SmartMaskRequest; those without a value are None."""
        return {
            "points": [*self.inside, *self.outside] or None,
            "point_labels": [1] * len(self.inside) + [0] * len(self.outside) or None,
            "bbox": self.box,
        }


def read(points: list[str] | None, negative: list[str] | None, box: str | None) -> Prompts:
    """Return the prompts that the options give, or say what is wrong with them and exit."""
    if negative and not points:
        fail("--negative-point needs a --point on the object", BAD_INPUT)
    return Prompts(
        inside=[_pair(text, "--point") for text in points or ()],
        outside=[_pair(text, "--negative-point") for text in negative or ()],
        box=numbers(box, 4, "--box") if box is not None else None,
    )


@dataclass(frozen=True)
class Found:
    """The server's answer."""

    png: bytes
    """The mask, grey."""
    score: float
    """The network's confidence, 0..1."""
    seconds: float
    missed: list[tuple[float, float]]
    """The points inside that the mask does not hold."""

    def summary(self, *files: object) -> str:
        """Return a line on the mask that begins with the files that hold it."""
        named = "  ".join(map(str, files))
        return f"{named}  (score {self.score:.2f}, {self.seconds * 1000:.0f} ms)"

    def print_missed(self) -> None:
        """Say which points the mask does not hold."""
        for x, y in self.missed:
            point = f"{round(x, 3):.12g},{round(y, 3):.12g}"
            stderr.print(
                f"artmancer: the mask does not hold the point {point}: one mask is one object"
            )


def find(talk: Session, picture: bytes, prompts: Prompts, **fields: Any) -> Found:
    """Ask for a mask and show the server's doubts; an interrupt cancels the request and exits.

    Args:
        talk: with the server.
        picture: the encoded picture.
        prompts: which object.
        fields: further fields of the SmartMaskRequest; None is none.

    Raises:
        ApiError: the server refused, or found nothing.
    """
    request_id = str(uuid.uuid4())
    request = {"image": as_base64(picture), **prompts.fields, **fields, "request_id": request_id}
    started = time.perf_counter()
    try:
        answer = talk.client.mask(
            {name: value for name, value in request.items() if value is not None}
        )
    except Interrupted as interrupted:
        talk.interrupts.heard()
        talk.client.cancel_mask(request_id)
        fail("interrupted: the request was cancelled on the server", interrupted.code)
    talk.warn(answer["warnings"])
    return Found(
        png=base64.b64decode(answer["mask_base64"]),
        score=answer["score"],
        seconds=time.perf_counter() - started,
        missed=[prompts.inside[index] for index in answer["points_missed"]],
    )


def _pair(text: str, option: str) -> tuple[float, float]:
    x, y = numbers(text, 2, option)
    return x, y
