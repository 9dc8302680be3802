"""The commands that concern the mask network: export, demo, plan, training."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from export.errors import ExportError
from export.fastsam import bundle as fastsam_bundle
from export.fastsam import download as fastsam_download

if TYPE_CHECKING:
    from export.demo_masks.training import Plan, Step, Trained

# torch, ONNX and ultralytics take seconds to import: each command imports what it needs.

BUNDLE = Path("bundles/fastsam")
Out = Annotated[Path, typer.Option(help="The bundle folder.")]
# A mask of fewer equal pixels than this comes from another network than the checkpoint's.
LEAST_PARITY = 0.99
LOG_EVERY = 60.0


def export_fastsam(
    checkpoint: Annotated[Path | None, typer.Option(help="A .pt file.")] = None,
    download: Annotated[
        str | None, typer.Option(help="FastSAM-s or FastSAM-x; needs --sha256.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The hash of the file meant.")] = None,
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
    with _one_line_errors(console):
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
        digest = fastsam_download.digest(checkpoint)
        base = f"{checkpoint.name}, SHA-256 {digest}, exported for {size} x {size}"
        fastsam_bundle.place(out, checkpoint.stem, base, size, exported.SerializeToString(), parity)
        differences = parity["difference"]
        console.print(
            f"{out}: {checkpoint.stem}, {size} x {size}; greatest difference to PyTorch"
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
    with _one_line_errors(console):
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
    force: Annotated[bool, typer.Option("--force", help="Build even if it is there.")] = False,
) -> None:
    """Build the TensorRT plan, inside the image and on the GPU that serve it."""
    console = Console()
    with _one_line_errors(console):
        from export.fastsam import plan as fastsam_plan

        report, built = fastsam_plan.build_plan(bundle, model, force)
        console.print(
            f"{model / fastsam_plan.PLAN}: {'built' if built else 'already built'} by TensorRT"
            f" {report.tensorrt} for {report.device}"
        )


def train(
    workspace: Annotated[Path, typer.Option(help="Scenes and checkpoints.")] = Path(
        "bundles/.fastsam-training"
    ),
    out: Annotated[Path, typer.Option(help="Gets the network and its report.")] = (
        fastsam_bundle.DEMO
    ),
    sheet: Annotated[Path, typer.Option(help="Gets the contact sheet.")] = Path(
        "docs/images/fastsam-demo.png"
    ),
    photographs: Annotated[Path, typer.Option(help="Shown in the sheet.")] = Path("examples"),
    minutes: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Stop after so many.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and batches.")] = 1,
    scenes: Annotated[int, typer.Option(help="How many scenes to draw.")] = 12_000,
    batch: Annotated[int, typer.Option(help="Images per iteration.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that draw scenes.")] = 2,
    threads: Annotated[
        int | None, typer.Option(help="Of torch; on a busy machine one is fastest.")
    ] = None,
) -> None:
    """Train the demo's mask network; started again, it goes on where it was stopped."""
    console = Console()
    if minutes is None and iterations is None:
        minutes = 45.0
    with _one_line_errors(console):
        import cv2
        import torch

        from export.demo_masks import release as mask_release
        from export.demo_masks import training as mask_training

        # Beside torch's threads, OpenCV's would only be in the way.
        cv2.setNumThreads(1)
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        plan = mask_training.Plan(seed, scenes, batch, iterations, minutes)
        trained = _train(console, plan, workspace, device, workers)
        with console.status("measuring"):
            scores = mask_release.release(trained, plan, out, mask_release.HELD_OUT)
            mask_release.draw_sheet(out, sheet, sorted(photographs.glob("*.jpg")))
        for score in scores:
            console.print(
                f"{out}: at confidence {score.confidence}: click IoU {score.click_mean:.3f} (median"
                f" {score.click_median:.3f}, {score.click_missed:.0%} missed), box IoU"
                f" {score.box_mean:.3f}; {score.objects} objects in {score.scenes} scenes"
            )


def _train(console: Console, plan: "Plan", workspace: Path, device: str, workers: int) -> "Trained":
    """Draws the scenes and trains, with a bar for each; a line per minute where nobody watches."""
    from export.demo_masks import dataset as mask_dataset
    from export.demo_masks import training as mask_training

    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as progress:
        drawing = progress.add_task("scenes", total=plan.scenes, detail="")
        pool = mask_dataset.scene_pool(
            workspace / "scenes",
            plan.scenes,
            plan.seed,
            workers,
            lambda count: progress.advance(drawing, count),
        )
        training = progress.add_task("training", total=1.0, detail="")
        logged = 0.0

        def on_step(step: "Step") -> None:
            nonlocal logged
            losses = ", ".join(f"{name} {loss:.2f}" for name, loss in step.losses.items() if loss)
            detail = f"iteration {step.iteration} at {step.size}: {losses}"
            progress.update(training, completed=step.share, detail=detail)
            if hidden and step.seconds - logged > LOG_EVERY:
                logged = step.seconds
                console.print(f"{step.share:4.0%} {detail}", soft_wrap=True)

        return mask_training.train(plan, pool, workspace, device, on_step)


def _download(console: Console, name: str, sha256: str | None) -> Path:
    if name not in fastsam_download.NAMES:
        raise typer.BadParameter(
            f"must be one of {', '.join(fastsam_download.NAMES)}", param_hint="--download"
        )
    if sha256 is None:
        raise typer.BadParameter(
            "needs --sha256: the publisher states no hash, so none is known here",
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


@contextlib.contextmanager
def _one_line_errors(console: Console) -> Iterator[None]:
    try:
        yield
    except ExportError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
