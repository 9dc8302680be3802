"""Owns the commands of the demo bundle: `python -m export demo`, `demo-train`, `demo-sheet`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from export.demo_edits import bundle as demo_bundle
from export.manifest import BundleError

LOG_EVERY = 60.0  # seconds, where nobody watches the bar


def place(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundles/demo"),
    force: Annotated[bool, typer.Option("--force", help="Even where it is already.")] = False,
) -> None:
    """Put the demo bundle in place: a small trained pipeline and three adapters. No download."""
    console = Console()
    if not force and demo_bundle.is_current(out):
        console.print(f"{out}: already there, every file intact", soft_wrap=True)
        return
    try:
        demo_bundle.place(out)
    except BundleError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{out}: put in place", soft_wrap=True)


def train(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = demo_bundle.SHIPPED,
    workspace: Annotated[
        Path, typer.Option(help="Samples and checkpoints; a stopped training goes on from here.")
    ] = Path("bundles/.demo-training"),
    length: Annotated[
        float, typer.Option(min=0.0, help="1 takes about two hours on two cores.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train the demo bundle: VAE, transformer and one adapter per task, on drawn scenes."""
    # Here because torch and diffusers take seconds to import, and --help needs neither.
    from export.demo_edits import release as demo_release
    from export.demo_edits.training import recipe as demo_training

    console = Console()
    started = time.monotonic()
    recipe = demo_training.recipe(seed, length)
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    hidden = not console.is_terminal
    try:
        with Progress(*columns, console=console, disable=hidden) as progress:
            bars: dict[str, TaskID] = {}
            logged = 0.0

            def report(phase: str, share: float, detail: str) -> None:
                nonlocal logged
                if phase not in bars:
                    bars[phase] = progress.add_task(phase, total=1.0, detail="")
                progress.update(bars[phase], completed=share, detail=detail)
                if hidden and (time.monotonic() - logged > LOG_EVERY or share >= 1):
                    logged = time.monotonic()
                    console.print(f"{phase:14} {share:4.0%} {detail}", soft_wrap=True)

            trained = demo_training.train(recipe, workspace, device, report)
        demo_release.release(trained, recipe, out)
    except BundleError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
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
    columns = (TextColumn("edits"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("edits")
        draw_sheet(
            Editor(bundle),
            out,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    console.print(f"{out}: drawn")
