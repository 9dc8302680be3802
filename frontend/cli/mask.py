"""Owns the command `artmancer mask`."""

from __future__ import annotations

import base64
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from frontend.cli import overlay
from frontend.cli.console import (
    BAD_INPUT,
    DEFAULT_URL,
    FAILED,
    INTERRUPTED,
    Url,
    as_base64,
    console,
    fail,
    numbers,
    opened,
    read,
    save,
)
from frontend.client import ApiError, Client


def mask(
    image: Annotated[Path, typer.Option(help="The picture.")],
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="On the object; may be repeated.")
    ] = None,
    negative_point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="Beside the object; may be repeated.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Around the object.")
    ] = None,
    rough_mask: Annotated[Path | None, typer.Option(help="A rough mask of the object.")] = None,
    # The name that --rough-mask once had; `artmancer edit` has a --guidance of another meaning.
    guidance: Annotated[Path | None, typer.Option(hidden=True)] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Find the most salient object.")] = False,
    border: Annotated[
        int | None, typer.Option(help="Grow the mask, or shrink it: -50 to 50.")
    ] = None,
    blur: Annotated[bool, typer.Option("--blur", help="Softer edges.")] = False,
    out: Annotated[Path, typer.Option(help="Where to write the mask.")] = Path("mask.png"),
    overlay_out: Annotated[
        Path | None,
        typer.Option("--overlay", help="Where to write the picture with its mask [beside --out]."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Find an object in a picture; coordinates are pixels. Ctrl-C cancels it on the server."""
    data = read(image)
    inside = [_pair(text, "--point") for text in point or ()]
    outside = [_pair(text, "--negative-point") for text in negative_point or ()]
    corners = numbers(box, 4, "--box") if box else None
    request = {
        "image": as_base64(data),
        "points": [*inside, *outside] or None,
        "point_labels": [1] * len(inside) + [0] * len(outside) or None,
        "bbox": corners,
        "mask": as_base64(read(rough)) if (rough := rough_mask or guidance) else None,
        "auto_detect": auto or None,
        "border_adjustment": border,
        "use_blur": blur or None,
        "request_id": str(uuid.uuid4()),
    }
    given = {name: value for name, value in request.items() if value is not None}
    started = time.perf_counter()
    try:
        with Client(url) as client:
            answer = _run_mask(client, given)
    except ApiError as error:
        fail(str(error), BAD_INPUT if error.status == 400 else FAILED)
    seconds = time.perf_counter() - started
    found = base64.b64decode(answer["mask_base64"])
    with opened(found) as picture:
        save(picture, out)
    beside = overlay_out or out.with_name(f"{out.stem}-overlay.png")
    # Not drawn beside points, because the server then ignores the box.
    box_shown = None if request["points"] else corners
    save(overlay.draw(data, found, inside=inside, outside=outside, box=box_shown), beside)
    console.print(f"{out}  {beside}  (score {answer['score']:.2f}, {seconds * 1000:.0f} ms)")
    for x, y in (inside[index] for index in answer["points_missed"]):
        console.print(f"the mask does not hold the point {x:g},{y:g}: one mask is one object")


def _run_mask(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return client.mask(request)
    except KeyboardInterrupt:
        client.cancel_mask(request["request_id"])
        fail("interrupted: the request was cancelled on the server", INTERRUPTED)


def _pair(text: str, option: str) -> tuple[float, float]:
    x, y = numbers(text, 2, option)
    return x, y
