"""Owns `make demo`: a whole server, a mask and edits through its HTTP API, pictures on disk."""

from __future__ import annotations

from frontend.cli.main import begin

if __name__ == "__main__":
    begin()  # the imports take longer than a quick Ctrl-C

import base64
import io
import queue
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import psutil
import typer
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.table import Table

from frontend.cli import console as cli
from frontend.cli import launching, overlay, progress
from frontend.client import ApiError, Client
from frontend.domain.jobs import JobStatus
from frontend.launcher import ports
from frontend.launcher.errors import LaunchError
from frontend.serving import running
from frontend.settings import CHECKOUT, Settings
from frontend.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from frontend.client import JobUpdate
    from frontend.serving import Serving

EXAMPLES = CHECKOUT / "examples"
STEPS, SEED = 4, 7
CLICKED = "photo.jpg"
CLICKS = ((255.0, 450.0), (255.0, 390.0))  # on the rocket, in pixels
# Free ones are taken, so that the demo runs beside any other server.
PORTS = ("port", "triton_grpc_port")
CHECK_S = 0.2

PANEL, GAP, LINE = 320, 12, 30  # of the sheet, in pixels: a picture, what parts them, a caption
PAPER, INK, PALE = "white", (32, 32, 32), (110, 110, 110)

console = Console()


@dataclass(frozen=True)
class Example:
    """One edit of a sample picture."""

    task: str
    """Its task_type."""
    prompt: str
    """What to do, in words."""
    image: str
    """The picture to edit; like the others, the name of a file in examples/."""
    mask: str | None = None
    reference: str | None = None
    reference_mask: str | None = None

    def request(self) -> dict[str, Any]:
        """Return it as the body of a GenerationRequest."""
        return {
            "task_type": self.task,
            "prompt": self.prompt,
            "input_image": _base64(self.image),
            "conditional_images": [_base64(self.mask)] if self.mask else None,
            "reference_image": _base64(self.reference) if self.reference else None,
            "reference_mask_R": _base64(self.reference_mask) if self.reference_mask else None,
            "region": "auto",
            "num_inference_steps": STEPS,
            "seed": SEED,
        }

    def panels(self) -> list[Panel]:
        """Return the pictures that stand before the result in its strip."""
        named = (("input", self.image), ("reference", self.reference), ("mask", self.mask))
        return [Panel(caption, _open(EXAMPLES / name)) for caption, name in named if name]


EDITS = (
    Example("removal", "remove the rocket", "photo.jpg", "mask.png"),
    Example(
        "insertion",
        "put the red ball here",
        "photo.jpg",
        "insertion-mask.png",
        "ball.jpg",
        "ball-mask.png",
    ),
    Example("white-balance", "correct the white balance", "warm-light.jpg"),
)


class Panel(NamedTuple):
    """One picture of the sheet, and what it is."""

    caption: str
    picture: Image.Image


class Strip(NamedTuple):
    """One row of the sheet: what was done, and the pictures of it."""

    title: str
    panels: list[Panel]


class Phase(NamedTuple):
    """One line of the closing table."""

    seconds: float
    what: str
    files: list[str]
    """The names of the pictures that came of it."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
) -> None:
    """Start Triton and the frontend, mask and edit the sample pictures over REST and SSE, stop."""
    stop_on_signals()
    settings = launching.read_settings().model_copy(
        update={
            **dict(zip(PORTS, ports.free(len(PORTS)), strict=True)),
            "triton_http_port": None,
            "triton_metrics_port": None,
            "loading_file": None,
            "model_config_name": Settings.model_fields["model_config_name"].default,
            "triton_url": "",
            "advertised_url": "",
            "roles": "serve,dispatch",
            "store_url": "",
            # A server for itself, whatever the environment says of one for others.
            "host": "127.0.0.1",
            "published_at": "",
            "keys_file": None,
            "log_level": "warning",
        }
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        cli.fail(f"cannot write to {out}: {error.strerror}", cli.BAD_INPUT)
    started = time.time()
    phases = [Phase(started - psutil.Process().create_time(), "Python starts and imports", [])]
    strips = []
    try:
        console.print("Starting Triton and loading the models...")
        with (
            # Its jobs are no other server's.
            tempfile.TemporaryDirectory(prefix="artmancer-demo-") as state,
            running(settings.model_copy(update={"state_folder": Path(state)})) as serving,
            Client(serving.url) as client,
        ):
            ready = time.time()
            phases.append(Phase(ready - started, "Triton starts and loads the models", []))
            console.print(f"Ready at {serving.url} after {ready - started:.1f} s.")
            try:
                made = [_mask(client, out), *(_edit(serving, client, each, out) for each in EDITS)]
            except ApiError:
                serving.check()  # it may be the reason
                raise
            for phase, strip in made:
                phases.append(phase)
                strips.append(strip)
            console.print("Stopping...")
            stopping = time.time()
    except LaunchError as error:
        launching.fail_to_launch(error)
    except ApiError as error:
        cli.fail(str(error), cli.FAILED)
    except KeyboardInterrupt:
        cli.fail("interrupted", cli.INTERRUPTED)
    phases.append(Phase(time.time() - stopping, "The frontend and Triton stop", []))
    _sheet(strips).save(out / "demo.png")
    _print(phases)
    console.print(
        f"The pictures are in {out}; all of them side by side: {out / 'demo.png'}", soft_wrap=True
    )


def _mask(client: Client, out: Path) -> tuple[Phase, Strip]:
    """Click on the sample picture twice, and write the second mask and its overlay."""
    image = {"image": _base64(CLICKED)}
    seconds = []
    for click in CLICKS:
        started = time.perf_counter()
        answer = client.mask({**image, "points": [click]})
        seconds.append(time.perf_counter() - started)
        image = {"image_id": answer["image_id"]}
    png = base64.b64decode(answer["mask_base64"])
    files = ["mask.png", "mask-overlay.png"]
    (out / files[0]).write_bytes(png)
    shown = overlay.draw((EXAMPLES / CLICKED).read_bytes(), png, inside=[CLICKS[-1]])
    shown.save(out / files[1])
    clicks = f"first click {seconds[0] * 1000:.0f} ms, second click {seconds[1] * 1000:.0f} ms"
    console.print(f"{'mask':13} {clicks}")
    panels = [
        Panel("input", _open(EXAMPLES / CLICKED)),
        Panel("mask", _open(io.BytesIO(png))),
        Panel("click and mask", shown),
    ]
    what = f"The mask of what was clicked: {clicks}"
    return Phase(sum(seconds), what, files), Strip("smart mask: one click on the rocket", panels)


def _edit(serving: Serving, client: Client, example: Example, out: Path) -> tuple[Phase, Strip]:
    """Run one edit, and write its picture."""
    started = time.perf_counter()
    task_id = client.submit(example.request()).task_id
    updates = _while_serving(serving, client.follow(task_id))
    last = progress.show(updates, f"{example.task:13}", console)
    if last.status is not JobStatus.DONE:
        raise ApiError(f"{example.task} ended as {last.status}: {last.error}")
    result = client.result(task_id)
    seconds = time.perf_counter() - started
    png = base64.b64decode(result["image"])
    file = f"{example.task}.png"
    (out / file).write_bytes(png)
    stages = ", ".join(f"{stage} {took:.1f}" for stage, took in result["timings"].items())
    title = f'{example.task}: "{example.prompt}"'
    panels = [*example.panels(), Panel("result", _open(io.BytesIO(png)))]
    return Phase(seconds, f"{title}: {stages}", [file]), Strip(title, panels)


def _while_serving(serving: Serving, updates: Iterable[JobUpdate]) -> Iterator[JobUpdate]:
    """Yield an edit's updates; without a Triton there would be none for minutes.

    Raises:
        LaunchError: the server's Triton was given up.
    """
    arrived: queue.SimpleQueue[JobUpdate | Exception] = queue.SimpleQueue()

    def read() -> None:
        try:
            for update in updates:
                arrived.put(update)
        except Exception as error:
            arrived.put(error)

    threading.Thread(target=read, name="updates", daemon=True).start()
    while True:
        serving.check()
        try:
            update = arrived.get(timeout=CHECK_S)
        except queue.Empty:
            continue
        if isinstance(update, Exception):
            raise update
        yield update
        if update.status.terminal:
            return


def _print(phases: list[Phase]) -> None:
    table = Table("seconds", "what", "pictures")
    for phase in phases:
        table.add_row(f"{phase.seconds:7.1f}", phase.what, "\n".join(phase.files))
    table.add_section()
    table.add_row(f"{sum(phase.seconds for phase in phases):7.1f}", "all", "")
    console.print(table)


def _sheet(strips: list[Strip]) -> Image.Image:
    """Return a picture of one row for each strip, its title above and captions below."""
    title, caption = (ImageFont.load_default(size) for size in (20, 15))
    row = LINE + PANEL + LINE + GAP
    columns = max(len(strip.panels) for strip in strips)
    width = GAP + columns * (PANEL + GAP)
    sheet = Image.new("RGB", (width, GAP + len(strips) * row), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, strip in enumerate(strips):
        top = GAP + index * row
        pen.text((GAP, top), strip.title, INK, title)
        for number, panel in enumerate(strip.panels):
            left = GAP + number * (PANEL + GAP)
            scaled = ImageOps.pad(panel.picture, (PANEL, PANEL), color=PAPER)
            sheet.paste(scaled, (left, top + LINE))
            pen.text((left, top + LINE + PANEL + 6), panel.caption, PALE, caption)
    return sheet


def _open(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source) as image:
        return image.convert("RGB")


def _base64(name: str) -> str:
    return base64.b64encode((EXAMPLES / name).read_bytes()).decode()


if __name__ == "__main__":
    typer.run(main)
