"""Owns the command `artmancer mask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frontend.cli import overlay, prompts
from frontend.cli.console import BAD_INPUT, DEFAULT_URL, FAILED, Url, as_base64, console, fail, read
from frontend.cli.output import Output, check_apart
from frontend.cli.session import session
from frontend.streams import forgive_lost_output

OPTIONS = prompts.OPTIONS | {"mask": "--rough-mask"}


def mask(
    image: Annotated[Path, typer.Option(help="The picture.")],
    point: prompts.Points = None,
    negative_point: prompts.NegativePoints = None,
    box: prompts.Box = None,
    rough_mask: Annotated[Path | None, typer.Option(help="A rough mask of the object.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Find the most salient object.")] = False,
    border: Annotated[
        int | None,
        typer.Option(help="Grow the mask by half as many pixels, or shrink it: -50 to 50."),
    ] = None,
    blur: Annotated[bool, typer.Option("--blur", help="Softer edges.")] = False,
    out: Annotated[Path, typer.Option(help="Where to write the mask.")] = Path("mask.png"),
    overlay_out: Annotated[
        Path | None,
        typer.Option("--overlay", help="Where to write the picture with its mask drawn in, too."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Find an object in a picture; coordinates are pixels.

    Ctrl-C or SIGTERM cancels the request on the server.
    """
    forgive_lost_output()
    data = read(image)
    asked = prompts.read(point, negative_point, box)
    rough = read(rough_mask) if rough_mask else None
    if not (asked.inside or asked.box or rough or auto):
        fail(
            "say which object: --point X,Y, --box X0,Y0,X1,Y1, --rough-mask FILE or --auto",
            BAD_INPUT,
        )
    mask_file = Output(out)
    overlay_file = Output(overlay_out) if overlay_out else None
    check_apart(
        {"--out": out, "--overlay": overlay_out}, {"--image": image, "--rough-mask": rough_mask}
    )
    with session(url, OPTIONS) as talk:
        found = prompts.find(
            talk,
            data,
            asked,
            mask=as_base64(rough) if rough else None,
            auto_detect=auto or None,
            border_adjustment=border,
            use_blur=blur or None,
        )
        mask_file.write(found.png)
        if overlay_file:
            # Not drawn beside points, because the server then ignores the box.
            box_shown = None if asked.inside else asked.box
            inside, outside = asked.inside, asked.outside
            try:
                shown = overlay.draw(data, found.png, inside=inside, outside=outside, box=box_shown)
            except (OSError, ValueError) as error:
                fail(f"cannot draw {overlay_out}: {error}", FAILED)
            overlay_file.write(shown)
    console.print(found.summary(*filter(None, (out, overlay_out))))
    found.print_missed()
