"""Owns `make demo`: a whole server, a mask and edits through its HTTP API, pictures on disk."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from frontend.cli import console as cli
from frontend.cli import overlay, progress
from frontend.client import ApiError, Client
from frontend.domain.jobs import JobStatus
from frontend.launcher import ports
from frontend.launcher.errors import LaunchError
from frontend.serving import running
from frontend.settings import CHECKOUT

EXAMPLES = CHECKOUT / "examples"
STEPS, SEED = 8, 7
CLICKED = "warm-light.jpg"
CLICKS = ((285.0, 75.0), (350.0, 90.0))  # on the cup, in pixels
# Free ones are taken, so that the demo runs beside any other server.
PORTS = ("port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
_GAP = 8  # pixels between the panels of a strip

console = Console()


@dataclass(frozen=True)
class Example:
    """One edit of a sample picture.

    Attributes:
        task: its task_type.
        prompt: what to do, in words.
        image, mask, reference, reference_mask: file names in examples/.
    """

    task: str
    prompt: str
    image: str
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
            "num_inference_steps": STEPS,
            "seed": SEED,
        }

    def panels(self) -> list[Image.Image]:
        """Return the pictures that stand before the result in its strip."""
        names = (self.image, self.reference, self.mask)
        return [_open(EXAMPLES / name) for name in names if name]


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


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
) -> None:
    """Start Triton and the frontend, mask and edit the sample pictures over REST and SSE, stop."""
    cli.stop_on_signals()
    started = time.monotonic()
    settings = cli.read_settings().model_copy(
        update={
            **dict(zip(PORTS, ports.free(len(PORTS)), strict=True)),
            "triton_url": "",
            "log_level": "warning",
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    timings = {}
    try:
        console.print("Starting Triton and loading the models...")
        with running(settings) as serving, Client(serving.url) as client:
            console.print(f"Ready at {serving.url} after {time.monotonic() - started:.1f} s.")
            _mask(client, out)
            for example in EDITS:
                timings[example.task] = _edit(client, example, out)
            console.print("Stopping...")
    except LaunchError as error:
        cli.fail_to_launch(error)
    except ApiError as error:
        cli.fail(str(error), cli.FAILED)
    except KeyboardInterrupt:
        cli.fail("interrupted", cli.INTERRUPTED)
    _print_timings(timings)
    console.print(f"Done in {time.monotonic() - started:.1f} s.")


def _mask(client: Client, out: Path) -> None:
    """Click on the sample picture twice, and write the second mask and its overlay."""
    image = {"image": _base64(CLICKED)}
    milliseconds = []
    for click in CLICKS:
        started = time.perf_counter()
        answer = client.mask({**image, "points": [click]})
        milliseconds.append((time.perf_counter() - started) * 1000)
        image = {"image_id": answer["image_id"]}
    png = base64.b64decode(answer["mask_base64"])
    picture, shown = out / "mask.png", out / "mask-overlay.png"
    picture.write_bytes(png)
    overlay.draw((EXAMPLES / CLICKED).read_bytes(), png, inside=[CLICKS[-1]]).save(shown)
    first, second = milliseconds
    console.print(f"{'mask':13} first click {first:.0f} ms, second click {second:.0f} ms")
    console.print(f"              {picture}  {shown}")


def _edit(client: Client, example: Example, out: Path) -> dict[str, float]:
    """Run one edit, write its pictures, and return the seconds that each stage took."""
    task_id = client.submit(example.request())
    last = progress.show(client.follow(task_id), f"{example.task:13}", console)
    if last.status is not JobStatus.DONE:
        raise ApiError(f"{example.task} ended as {last.status}: {last.error}")
    result = client.result(task_id)
    png = base64.b64decode(result["image"])
    picture, strip = out / f"{example.task}.png", out / f"{example.task}-strip.png"
    picture.write_bytes(png)
    _side_by_side([*example.panels(), _open(io.BytesIO(png))]).save(strip)
    console.print(f"              {picture}  {strip}")
    timings: dict[str, float] = result["timings"]
    return timings


def _print_timings(timings: dict[str, dict[str, float]]) -> None:
    table = Table("seconds", *timings)
    for stage in next(iter(timings.values())):
        table.add_row(stage, *(f"{stages.get(stage, 0.0):.2f}" for stages in timings.values()))
    table.add_row("all", *(f"{sum(stages.values()):.2f}" for stages in timings.values()))
    console.print(table)


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    """Return the pictures in one row, scaled to the height of the first."""
    height = panels[0].height
    scaled = [panel.resize((panel.width * height // panel.height, height)) for panel in panels]
    width = sum(panel.width for panel in scaled) + _GAP * (len(scaled) - 1)
    strip = Image.new("RGB", (width, height), "white")
    left = 0
    for panel in scaled:
        strip.paste(panel, (left, 0))
        left += panel.width + _GAP
    return strip


def _open(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source) as image:
        return image.convert("RGB")


def _base64(name: str) -> str:
    return base64.b64encode((EXAMPLES / name).read_bytes()).decode()


if __name__ == "__main__":
    typer.run(main)
