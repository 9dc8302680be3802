"""Owns the command `artmancer edit`."""

from __future__ import annotations

import base64
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontend.cli import progress, prompts
from frontend.cli.console import (
    BAD_INPUT,
    DEFAULT_URL,
    FAILED,
    Url,
    as_base64,
    console,
    fail,
    numbers,
    opened,
    read,
)
from frontend.cli.output import Output, check_apart
from frontend.cli.session import Interrupted, Session, by_options, session
from frontend.client import ApiError
from frontend.domain.jobs import JobStatus
from frontend.streams import forgive_lost_output

if TYPE_CHECKING:
    from frontend.client import JobUpdate

# Fields of an edit -> options.
OPTIONS = prompts.OPTIONS | {
    "input_image": "--image",
    "conditional_images": "--mask",
    "reference_image": "--reference",
    "reference_mask_R": "--reference-mask",
    "prompt": "--prompt",
    "negative_prompt": "--negative-prompt",
    "num_inference_steps": "--steps",
    "true_cfg_scale": "--guidance",
    "seed": "--seed",
    "width": "--width",
    "height": "--height",
    "angle": "--angle",
    "background_preset": "--background",
    "region": "--region",
}
BAD_REQUEST, EXPIRED = 400, 404
# Of a mask found by a prompt, in units of the longer side: an edit needs the object's rim too.
BORDER_FRACTION, MIN_BORDER, MAX_BORDER = 1 / 25, 20, 50


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
    task: Annotated[
        Task | None,
        typer.Option(help="What to do.  [default: insertion with --reference, else removal]"),
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White where to remove or insert.")] = None,
    point: prompts.Points = None,
    negative_point: prompts.NegativePoints = None,
    box: prompts.Box = None,
    border: Annotated[
        int | None,
        typer.Option(
            help="Grow the mask that --point or --box finds by half as many pixels, or shrink it:"
            " -50 to 50.  [default: 20 to 50, by the picture's size]"
        ),
    ] = None,
    mask_out: Annotated[
        Path | None, typer.Option(help="Where to write the mask that --point or --box finds.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="What to insert.")] = None,
    reference_mask: Annotated[
        Path | None, typer.Option(help="White on the object in the reference.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The edit in words.")] = "",
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid, in words.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = Path("edited.png"),
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps, 1 to 100.  [default: 10]")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="True guidance scale, 0.5 to 15.  [default: 4]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same picture.  [default: drawn]")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Stretches the result to so many pixels, 256 to 2048.")
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(help="Likewise; one alone leaves the other side as it is."),
    ] = None,
    angle: Annotated[str | None, typer.Option(help="Camera angle, such as top-down.")] = None,
    background: Annotated[str | None, typer.Option(help="Background preset.")] = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            help="With --region full: your picture's size, or a standard square."
            "  [default: original]"
        ),
    ] = None,
    region: Annotated[
        str, typer.Option(help="What is edited: auto, full, or x0,y0,x1,y1 in pixels.")
    ] = "auto",
    url: Url = DEFAULT_URL,
) -> None:
    """Edit one picture.

    A removal or an insertion needs a place: a mask, or points or a box from which the server makes
    one. Ctrl-C or SIGTERM cancels the edit on the server; a second one leaves at once.
    """
    forgive_lost_output()
    task = task or (Task.INSERTION if reference else Task.REMOVAL)
    picture = read(image)
    asked = prompts.read(point, negative_point, box)
    prompted = bool(asked.inside or asked.box)
    _check_place(task, mask=mask, prompted=prompted)
    if reference and task is not Task.INSERTION:
        fail(f"{task} takes no --reference: only an insertion does", BAD_INPUT)
    if not prompted and (border is not None or mask_out):
        fail("--border and --mask-out need --point or --box", BAD_INPUT)
    # A crop goes back into the picture as it is, so `original` says the same there.
    if quality is Quality.RESIZED and region != "full":
        fail("--quality resized needs --region full", BAD_INPUT)
    if reference_mask and not reference:
        fail("--reference-mask needs --reference", BAD_INPUT)
    request = {
        "task_type": task,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "input_image": as_base64(picture),
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
        "input_quality": quality or Quality.ORIGINAL,
        "region": numbers(region, 4, "--region") if "," in region else region,
    }
    out_file = Output(out)
    mask_file = Output(mask_out) if mask_out else None
    check_apart(
        {"--out": out, "--mask-out": mask_out},
        {
            "--image": image,
            "--mask": mask,
            "--reference": reference,
            "--reference-mask": reference_mask,
        },
    )
    with session(url, OPTIONS) as talk:
        if prompted:
            grow = _border(picture) if border is None else border
            found = prompts.find(talk, picture, asked, border_adjustment=grow)
            if mask_file:
                mask_file.write(found.png)
            console.print(found.summary(mask_out or "mask"))
            found.print_missed()
            request["conditional_images"] = [as_base64(found.png)]
        given = {name: value for name, value in request.items() if value is not None}
        task_id = _run(talk, given)
        seconds = fetch(talk, task_id, out_file)
    console.print(f"{out}  (edited in {seconds:.1f} s)")


def fetch(talk: Session, task_id: str, out_file: Output) -> float:
    """Write the picture of an edit that is done.

    Returns:
        The seconds that the edit took.

    Raises:
        ApiError: the edit is not done, or has expired.
    """
    client, interrupts, _ = talk
    hint = f"; the server keeps the result: artmancer result {task_id} --out FILE"
    interrupts.left_behind = hint
    try:
        result = client.result(task_id)
        out_file.write(base64.b64decode(result["image"]), hint)
    except Interrupted as interrupted:
        interrupts.heard()
        fail(f"interrupted{hint}", interrupted.code)
    except ApiError as error:
        kept = "" if error.status == EXPIRED else hint
        raise ApiError(f"{error}{kept}", error.status) from error
    seconds: float = result["generation_time"]
    return seconds


def check_done(last: JobUpdate) -> None:
    """Say how an edit ended and exit, unless it is done."""
    if last.status is not JobStatus.DONE:
        error = last.error or ""
        code = BAD_INPUT if error.startswith(f"{BAD_REQUEST}: ") else FAILED
        fail(f"the edit ended as {last.status}: {by_options(error, OPTIONS)}", code)


def _check_place(task: Task, *, mask: Path | None, prompted: bool) -> None:
    if task is Task.WHITE_BALANCE:
        if mask or prompted:
            fail("white-balance takes no --mask, --point or --box: it has no place", BAD_INPUT)
    elif mask and prompted:
        fail("give --mask, or --point and --box, not both", BAD_INPUT)
    elif not mask and not prompted:
        where = "what to remove" if task is Task.REMOVAL else "where to insert"
        fail(f"say {where}: --mask FILE, --point X,Y or --box X0,Y0,X1,Y1", BAD_INPUT)


def _border(picture: bytes) -> int:
    try:
        with opened(picture) as header:
            side = max(header.size)
    except Exception:
        # Damaged files make Pillow's parsers raise whatever they stumble over, and so does one of
        # too many pixels. The server says what is wrong with it.
        side = 0
    return min(MAX_BORDER, max(MIN_BORDER, round(side * BORDER_FRACTION)))


def _run(talk: Session, request: dict[str, Any]) -> str:
    """Submit an edit and follow it to its end.

    Returns:
        Its task_id.

    Raises:
        ApiError: the edit was refused.
    """
    client, interrupts, _ = talk
    task_id = ""
    try:
        interrupts.left_behind = ": `artmancer jobs` shows whether the server took the edit"
        with interrupts.held("the server to take the edit"):
            submitted = client.submit(request)
            task_id = submitted.task_id
            interrupts.left_behind = f": stop the edit by `artmancer cancel {task_id}`"
        console.print(f"task {task_id}")
        talk.warn(submitted.warnings)
        last = progress.show(client.follow(task_id), request["task_type"], console)
    except Interrupted as interrupted:
        interrupts.heard()
        if not task_id:
            raise
        try:
            client.cancel(task_id)
            *_, last = client.follow(task_id)
        except ApiError as error:
            fail(
                f"interrupted, but the edit may go on: {error}; stop it by "
                f"`artmancer cancel {task_id}`",
                interrupted.code,
            )
        fail(f"interrupted: the edit on the server ended as {last.status}", interrupted.code)
    except ApiError as error:
        if not task_id:
            raise
        fail(
            f"{error}; the edit may go on, and `artmancer result {task_id} --out FILE` fetches it",
            FAILED,
        )
    check_done(last)
    return task_id
