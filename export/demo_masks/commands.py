"""Owns the command that trains the demo network for masks: `python -m export fastsam-train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from export.console import bars, one_line_errors
from export.fastsam import bundle as fastsam_bundle

if TYPE_CHECKING:
    from export.demo_masks.training import Step, Trained, TrainingPlan

# torch, ONNX and ultralytics take seconds to import, so the command imports what it needs.


def train(
    workspace: Annotated[Path, typer.Option(help="Scenes and checkpoints.")] = Path(
        "bundles/.fastsam-training"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the network and its report.")] = (
        fastsam_bundle.DEMO
    ),
    sheet: Annotated[Path, typer.Option(help="The contact sheet to write.")] = Path(
        "docs/images/fastsam-demo.png"
    ),
    photographs: Annotated[
        Path, typer.Option(help="Folder of the photographs that the sheet shows.")
    ] = Path("examples"),
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Stop after this many iterations.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, scenes and batches.")] = 1,
    scenes: Annotated[int, typer.Option(help="How many scenes to draw.")] = 12_000,
    batch: Annotated[int, typer.Option(help="Images per iteration.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that draw scenes.")] = 2,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; on a busy machine 1 is fastest.")
    ] = None,
) -> None:
    """Train the demo's mask network. A stopped training continues where it was stopped."""
    console = Console()
    if minutes is None and iterations is None:
        minutes = 45.0
    with one_line_errors(console):
        import cv2
        import torch

        from export.demo_masks import release as mask_release
        from export.demo_masks import training as mask_training

        # OpenCV's threads would only compete with torch's.
        cv2.setNumThreads(1)
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        plan = mask_training.TrainingPlan(seed, scenes, batch, iterations, minutes)
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


def _train(
    console: Console, plan: "TrainingPlan", workspace: Path, device: str, workers: int
) -> "Trained":
    """Draw the scenes and train; report how far both are."""
    from export.demo_masks import dataset as mask_dataset
    from export.demo_masks import training as mask_training

    drawn = 0
    with bars(console) as report:

        def on_scenes(count: int) -> None:
            nonlocal drawn
            drawn += count
            report("scenes", min(1.0, drawn / plan.scenes), f"{drawn} of {plan.scenes}")

        def on_step(step: "Step") -> None:
            losses = ", ".join(f"{name} {loss:.2f}" for name, loss in step.losses.items() if loss)
            report(
                "training", step.fraction, f"iteration {step.iteration} at {step.size}: {losses}"
            )

        pool = mask_dataset.scene_pool(
            workspace / "scenes", plan.scenes, plan.seed, workers, on_scenes
        )
        return mask_training.train(plan, pool, workspace, device, on_step)
