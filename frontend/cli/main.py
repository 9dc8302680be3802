"""Owns the command line `artmancer`: run a server, or edit and mask pictures on one.

Exit codes: 0 done; 1 the server or the request failed; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import base64
import io
import math
import signal
import time
import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pydantic
import typer
from PIL import Image
from pydantic_settings import SettingsError
from rich.console import Console

from frontend.cli import overlay, progress
from frontend.client import ApiError, Client
from frontend.domain.jobs import JobStatus
from frontend.launcher import installation
from frontend.launcher.errors import LaunchError
from frontend.settings import Settings

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

Url = Annotated[str, typer.Option(envvar="ARTMANCER_URL", help="Where `artmancer serve` runs.")]
DEFAULT_URL = "http://127.0.0.1:8080"

main = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True, highlight=False, markup=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class Task(StrEnum):
    """What to do with the picture."""

    REMOVAL = "removal"
    INSERTION = "insertion"
    WHITE_BALANCE = "white-balance"


class Quality(StrEnum):
    """Whether the picture is padded to a standard square before it is edited."""

    RESIZED = "resized"
    ORIGINAL = "original"


@main.command()
def serve() -> None:
    """Run the frontend, over a Triton of its own unless ARTMANCER_TRITON_URL names one.

    Everything is set by environment variables ARTMANCER_*; Ctrl-C stops it.
    """
    stop_on_signals()
    settings = read_settings()
    from frontend.serving import running  # builds on the whole server; the clients do without

    try:
        if not settings.triton_url:
            log = installation.log_file(settings.triton_grpc_port)
            console.print(f"Starting Triton and loading the models; its log is {log}")
        with running(settings) as serving:
            console.print(f"ArtMancer is ready: {serving.url} (API: {serving.url}/docs)")
            console.print(f"Triton listens for gRPC on {settings.triton_grpc_urls[0]}")
            serving.wait()
    except LaunchError as error:
        fail_to_launch(error)
    except KeyboardInterrupt:
        console.print("Stopped.")


@main.command()
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
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 100.")] = 10,
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
        "input_image": _base64(_read(image)),
        "conditional_images": [_base64(_read(mask))] if mask else None,
        "reference_image": _base64(_read(reference)) if reference else None,
        "reference_mask_R": _base64(_read(reference_mask)) if reference_mask else None,
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
    with _opened(base64.b64decode(result["image"])) as picture:
        _save(picture, out)
    console.print(f"{out}  ({result['generation_time']:.1f} s)")


@main.command()
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
    guidance: Annotated[Path | None, typer.Option(help="A rough mask of the object.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Find the most salient object.")] = False,
    border: Annotated[int, typer.Option(help="Grow the mask, or shrink it: -50 to 50.")] = 0,
    blur: Annotated[bool, typer.Option("--blur", help="Softer edges.")] = False,
    out: Annotated[Path, typer.Option(help="Where to write the mask.")] = Path("mask.png"),
    overlay_out: Annotated[
        Path | None,
        typer.Option("--overlay", help="Where to write the picture with its mask [beside --out]."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Find an object in a picture; coordinates are pixels. Ctrl-C cancels it on the server."""
    data = _read(image)
    inside = [_pair(text, "--point") for text in point or ()]
    outside = [_pair(text, "--negative-point") for text in negative_point or ()]
    corners = _numbers(box, 4, "--box") if box else None
    request = {
        "image": _base64(data),
        "points": [*inside, *outside] or None,
        "point_labels": [1] * len(inside) + [0] * len(outside) or None,
        "bbox": corners,
        "mask": _base64(_read(guidance)) if guidance else None,
        "auto_detect": auto,
        "border_adjustment": border,
        "use_blur": blur,
        "request_id": str(uuid.uuid4()),
    }
    started = time.perf_counter()
    try:
        with Client(url) as client:
            answer = _run_mask(client, request)
    except ApiError as error:
        fail(str(error), BAD_INPUT if error.status == 400 else FAILED)
    seconds = time.perf_counter() - started
    found = base64.b64decode(answer["mask_base64"])
    with _opened(found) as picture:
        _save(picture, out)
    beside = overlay_out or out.with_name(f"{out.stem}-overlay.png")
    # Beside points, the box does not count.
    box_shown = None if request["points"] else corners
    _save(overlay.draw(data, found, inside=inside, outside=outside, box=box_shown), beside)
    console.print(f"{out}  {beside}  (score {answer['score']:.2f}, {seconds * 1000:.0f} ms)")


def read_settings() -> Settings:
    """Return the settings, or say which variable is wrong and exit."""
    try:
        return Settings()
    except SettingsError as error:  # not even JSON
        stderr.print(f"artmancer: {error}: {error.__cause__}")
        raise typer.Exit(BAD_INPUT) from error
    except pydantic.ValidationError as error:
        for problem in error.errors():
            variable = f"ARTMANCER_{problem['loc'][0]}".upper()
            stderr.print(f"artmancer: {variable}: {problem['msg']}")
        raise typer.Exit(BAD_INPUT) from error


def stop_on_signals() -> None:
    """Make the first SIGINT, SIGTERM or SIGHUP a KeyboardInterrupt, and ignore the others.

    What stops then has its own limits of time, and must not be left half done.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is
        numbers.append(signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def fail(problem: str, code: int) -> NoReturn:
    """Say what is wrong in one line, and exit."""
    stderr.print(f"artmancer: {problem}")
    raise typer.Exit(code)


def fail_to_launch(error: LaunchError) -> NoReturn:
    """Say why nothing runs, and exit."""
    if error.log_tail:
        stderr.print(error.log_tail)
    for problem in error.problems:
        stderr.print(f"artmancer: {problem}")
    raise typer.Exit(FAILED)


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


def _run_mask(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return client.mask(request)
    except KeyboardInterrupt:
        client.cancel_mask(request["request_id"])
        fail("interrupted: the request was cancelled on the server", INTERRUPTED)


def _pair(text: str, option: str) -> tuple[float, float]:
    x, y = _numbers(text, 2, option)
    return x, y


def _numbers(text: str, count: int, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        fail(f"{option} takes {count} numbers with commas between them, not {text}", BAD_INPUT)
    return numbers


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", BAD_INPUT)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that names no format
        fail(f"cannot write {path}: {error}", BAD_INPUT)


if __name__ == "__main__":
    main()
