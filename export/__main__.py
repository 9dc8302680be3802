"""The command line of export: `python -m export demo --out bundles/demo` and others."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from export import demo_bundle, demo_commands, fastsam_commands, qwen_commands
from export.manifest import BundleError

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command("demo-train")(demo_commands.train)
app.command("demo-sheet")(demo_commands.draw_sheet)
app.command("fastsam")(fastsam_commands.export_fastsam)
app.command("fastsam-demo")(fastsam_commands.place_demo)
app.command("fastsam-plan")(fastsam_commands.build_plan)
app.command("fastsam-train")(fastsam_commands.train)
app.command("qwen")(qwen_commands.build)
app.command("qwen-memory")(qwen_commands.estimate)


@app.callback()
def main() -> None:
    """Build what the models load."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundles/demo"),
    force: Annotated[bool, typer.Option("--force", help="Build even if it is there.")] = False,
) -> None:
    """Build the demo bundle: a small pipeline, three adapters, a manifest. No download."""
    console = Console()
    if not force and demo_bundle.is_current(out):
        console.print(f"{out}: already built, every file intact")
        return
    started = time.monotonic()
    columns = (TextColumn("{task.description:12}"), BarColumn(), TimeElapsedColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=len(demo_bundle.STAGES))
        try:
            demo_bundle.build(
                out, on_stage=lambda stage: progress.update(task, description=stage, advance=1)
            )
        except BundleError as error:
            progress.stop()
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from None
    console.print(f"{out}: built in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    app()
