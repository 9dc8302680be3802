"""Owns the commands of the mask network: `python -m export fastsam`, `-demo`, `-plan`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from export import manifest
from export.console import one_line_errors
from export.errors import ExportError
from export.fastsam import bundle as fastsam_bundle
from export.fastsam import download as fastsam_download

# torch, ONNX and ultralytics take seconds to import: each command imports what it needs.

BUNDLE = Path("bundles/fastsam")
Out = Annotated[Path, typer.Option(help="The bundle folder.")]
# Lowest mean IoU of the two networks' masks. Below this, the exported network is another one.
LEAST_PARITY = 0.99


def export_fastsam(
    checkpoint: Annotated[Path | None, typer.Option(help="A .pt file.")] = None,
    download: Annotated[
        str | None, typer.Option(help="FastSAM-s or FastSAM-x; needs --sha256.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The hash of the file that you mean.")] = None,
    out: Out = BUNDLE,
    size: Annotated[int, typer.Option(help="Side of the images: 640 or 1024.")] = 1024,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the pickle run code. Only if you trust it.")
    ] = False,
) -> None:
    """Export a FastSAM checkpoint to ONNX, compare the two, and put the bundle in place."""
    console = Console()
    if (checkpoint is None) == (download is None):
        raise typer.BadParameter("give either --checkpoint or --download")
    if size not in (640, 1024):
        raise typer.BadParameter("must be 640 or 1024", param_hint="--size")
    with one_line_errors(console):
        if download is not None:
            checkpoint = _download(console, download, sha256)
        assert checkpoint is not None
        from export.fastsam import checkpoint as fastsam_checkpoint
        from export.fastsam import parity as fastsam_parity

        with console.status("opening the checkpoint"):
            network = fastsam_checkpoint.open_checkpoint(checkpoint, trust)
        with console.status("exporting"):
            exported = fastsam_checkpoint.export_onnx(network, size)
        with console.status("comparing"):
            parity = fastsam_parity.compare(network, exported, fastsam_parity.SCENES)
        if parity["masks"]["mean_iou"] < LEAST_PARITY:
            raise ExportError(f"{checkpoint}: the exported network's masks differ: {parity}")
        digest = manifest.sha256(checkpoint)
        base = f"{checkpoint.name}, SHA-256 {digest}, exported for {size} x {size}"
        fastsam_bundle.place(out, checkpoint.stem, base, size, exported.SerializeToString(), parity)
        differences = parity["difference"]
        console.print(
            f"{out}: {checkpoint.stem}, {size} x {size}; largest difference from PyTorch"
            f" {differences['boxes']['max']:.2g} px, {differences['scores']['max']:.2g} in score;"
            f" masks' IoU at least {parity['masks']['min_iou']:.4f}"
            f" ({parity['masks']['compared']} compared)"
        )


def place_demo(
    out: Out = BUNDLE,
    force: Annotated[bool, typer.Option("--force", help="Replace any other bundle.")] = False,
) -> None:
    """Put the shipped demo network in place; a bundle of another name is kept."""
    console = Console()
    with one_line_errors(console):
        outcome = fastsam_bundle.place_demo(out, force)
        said = {
            "placed": "the demo's mask network",
            "current": "already the demo's mask network, every file intact",
            "kept": "holds another mask network, kept (--force replaces it)",
        }
        console.print(f"{out}: {said[outcome]}")


def build_plan(
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = BUNDLE,
    model: Annotated[Path, typer.Option(help="The model's folder.")] = Path(
        "model_repository/fastsam"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Build even if the plan is there.")
    ] = False,
) -> None:
    """Build the TensorRT plan, inside the image and on the GPU that serve it."""
    console = Console()
    with one_line_errors(console):
        from export.fastsam import plan as fastsam_plan

        report, built = fastsam_plan.build_plan(bundle, model, force)
        console.print(
            f"{model / fastsam_plan.PLAN}: {'built' if built else 'already built'} by TensorRT"
            f" {report.tensorrt} for {report.device}"
        )


def _download(console: Console, name: str, sha256: str | None) -> Path:
    if name not in fastsam_download.NAMES:
        raise typer.BadParameter(
            f"must be one of {', '.join(fastsam_download.NAMES)}", param_hint="--download"
        )
    if sha256 is None:
        raise typer.BadParameter(
            "needs --sha256: the publisher states no hash, so you must say which file you mean",
            param_hint="--download",
        )
    target = Path("bundles/.checkpoints", f"{name}.pt")
    columns = (TextColumn(name), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        fastsam_download.download(
            fastsam_download.URL.format(name=name),
            sha256,
            target,
            lambda received, total: progress.update(task, completed=received, total=total or None),
        )
    return target
