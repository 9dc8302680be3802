"""Owns the command `artmancer edit`."""

from __future__ import annotations

import base64
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from frontend.cli import progress
from frontend.cli.console import (
    BAD_INPUT,
    DEFAULT_URL,
    FAILED,
    INTERRUPTED,
    Url,
    as_base64,
    console,
    fail,
    opened,
    read,
    save,
)
from frontend.client import ApiError, Client
from frontend.domain.jobs import JobStatus


class Task(StrEnum):
    """What to do with the picture."""

    REMOVAL = "removal"
    INSERTION = "insertion"
    WHITE_BALANCE = "white-balance"


class Quality(StrEnum):
    """Whether the picture is padded to a standard square before it is edited."""

    RESIZED = "resized"
    ORIGINAL = "original"


def edit(
    image: Annotated[Path, typer.Option(help="The picture to edit.")],
    task: Annotated[Task, typer.Option(help="What to do with it.")] = Task.REMOVAL,
    mask: Annotated[Path | None, typer.Option(help="White where to remove or insert.")] = None,
    reference: Annotated[Path | None, typer.Option(help="What to insert.")] = None,
    reference_mask: Annotated[
        Path | None, typer.Option(help="White on the object in the reference.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The edit in words.")] = "",
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid, in words.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = Path("edited.png"),
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 100.")] = None,
    guidance: Annotated[float | None, typer.Option(help="True guidance scale, 0.5 to 15.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the result, 256 to 2048.")] = None,
    height: Annotated[int | None, typer.Option(help="Of the result, 256 to 2048.")] = None,
    angle: Annotated[str | None, typer.Option(help="Camera angle, such as top-down.")] = None,
    background: Annotated[str | None, typer.Option(help="Background preset.")] = None,
    quality: Annotated[Quality | None, typer.Option(help="Size to work at.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Edit one picture; Ctrl-C cancels the edit on the server."""
    request = {
        "task_type": task,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "input_image": as_base64(read(image)),
        "conditional_images": [as_base64(read(mask))] if mask else None,
        "reference_image": as_base64(read(reference)) if reference else None,
        "reference_mask_R": as_base64(read(reference_mask)) if reference_mask else None,
        "num_inference_steps": steps,
        "true_cfg_scale": guidance,
        "seed": seed,
        "width": width,
        "height": height,
        "angle": angle,
        "background_preset": background,
        "input_quality": quality,
    }
    given = {name: value for name, value in request.items() if value is not None}
    try:
        with Client(url) as client:
            result = _run(client, given)
    except ApiError as error:
        fail(str(error), BAD_INPUT if error.status == 400 else FAILED)
    with opened(base64.b64decode(result["image"])) as picture:
        save(picture, out)
    console.print(f"{out}  ({result['generation_time']:.1f} s)")


def _run(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    task_id = client.submit(request)
    try:
        last = progress.show(client.follow(task_id), request["task_type"], console)
    except KeyboardInterrupt:
        client.cancel(task_id)
        *_, last = client.follow(task_id)
        fail(f"interrupted: the edit on the server ended as {last.status}", INTERRUPTED)
    if last.status is not JobStatus.DONE:
        fail(f"the edit ended as {last.status}: {last.error}", FAILED)
    return client.result(task_id)
