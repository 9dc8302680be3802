"""Owns the commands of the demo bundle: `python -m export demo`, `demo-train`, `demo-sheet`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.console import bars, one_line_errors
from export.demo_edits import bundle as demo_bundle


def place(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundles/demo"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace an intact demo bundle too.")
    ] = False,
) -> None:
    """Put the demo bundle in place: a small trained pipeline and three adapters. No download."""
    console = Console()
    if not force and demo_bundle.is_current(out):
        console.print(f"{out}: already there, every file intact", soft_wrap=True)
        return
    with one_line_errors(console):
        demo_bundle.place(out)
    console.print(f"{out}: put in place", soft_wrap=True)


def train(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = demo_bundle.SHIPPED,
    workspace: Annotated[
        Path, typer.Option(help="Samples and checkpoints; a stopped training continues from here.")
    ] = Path("bundles/.demo-training"),
    length: Annotated[
        float, typer.Option(min=0.0, help="1 takes about two hours on two cores.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, scenes and batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train the demo bundle: VAE, transformer and one adapter per task, on drawn scenes."""
    # torch and diffusers take seconds to import, and --help needs neither.
    from export.demo_edits import release as demo_release
    from export.demo_edits.training import recipe as demo_training

    console = Console()
    started = time.monotonic()
    recipe = demo_training.recipe(seed, length)
    with one_line_errors(console):
        with bars(console) as report:
            trained = demo_training.train(recipe, workspace, device, report)
        demo_release.release(trained, recipe, out)
    console.print(f"{out}: trained in {(time.monotonic() - started) / 60:.1f} min")


def draw_sheet(
    bundle: Annotated[Path, typer.Option(help="The bundle that edits.")] = Path("bundles/demo"),
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path(
        "docs/images/demo-edits.png"
    ),
) -> None:
    """Draw a contact sheet of a bundle's edits: input, conditions, result, truth."""
    from export.demo_edits.results import Editor
    from export.demo_edits.sheet import draw_sheet

    console = Console()
    with bars(console) as report:
        draw_sheet(
            Editor(bundle),
            out,
            lambda done, total: report("edits", done / total, f"{done} of {total}"),
        )
    console.print(f"{out}: drawn")
