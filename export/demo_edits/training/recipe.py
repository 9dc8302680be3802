"""Owns the whole training of the demo's weights: its recipe, its phases, its workspace."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.demo_edits.pipeline import build_pipeline
from export.demo_edits.samples import Flow, all_prompts
from export.demo_edits.training.fitting import FitPlan, Step
from export.demo_edits.training.flow import (
    Course,
    Emphasis,
    TrainingStage,
    train_adapter,
    train_base,
)
from export.demo_edits.training.pool import Pool, Portion, encoded_pool
from export.demo_edits.training.vae import train_vae, training_pictures
from export.errors import ExportError
from export.scenes import photographs
from export.scenes.edits import Pixels
from export.serving_code import Task

RECIPE = "recipe.json"
NUM_LAYERS, NUM_ATTENTION_HEADS = 3, 8
PICTURE_SIZE = 128

# Half of the time only the prompt says what to draw, so that the base learns to read it.
READING = tuple(
    flow for other in Flow if other is not Flow.DESCRIBED for flow in (Flow.DESCRIBED, other)
)
# Among the insertions, finding the object in a whole reference picture takes longest to learn.
SEARCHING = (Flow.TWO_SOURCE, Flow.REFERENCE, Flow.TWO_SOURCE, Flow.DESCRIBED)
BALANCED = (Flow.TWO_SOURCE, Flow.REFERENCE, Flow.TWO_SOURCE, Flow.REFERENCE, Flow.DESCRIBED)
ENDING = (*SEARCHING, Flow.TWO_SOURCE, Flow.REFERENCE)

# (phase, fraction of it that is done, what it does now)
Report = Callable[[str, float, str], None]


@dataclass(frozen=True)
class AdapterRecipe:
    """How one adapter is trained."""

    stages: tuple[TrainingStage, ...]
    portions: tuple[Portion, ...]
    """Samples of each flow of its task."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. One machine gives one recipe the same weights."""

    seed: int
    vae_samples: int
    """How many samples' pictures the VAE learns from."""
    portions: tuple[Portion, ...]
    """Samples of each flow that the base learns from."""
    vae: FitPlan
    base: FitPlan
    base_courses: tuple[Course, ...]
    adapters: dict[str, AdapterRecipe]
    """Task -> how its adapter is trained."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves."""

    pipeline: Any
    """QwenImageEditPlusPipeline, float32, without adapters."""
    adapters: dict[str, dict[str, Tensor]]
    """Task -> its adapter's weights as peft names them."""
    seconds: dict[str, float]
    """Phase -> time spent training, without drawing and encoding samples."""


def recipe(seed: int, length: float) -> Recipe:
    """Return the demo's recipe.

    Args:
        seed: seed of the weights, the scenes and the batches.
        length: factor on every phase's iterations; 1 takes about two hours on two cores.
    """

    def plan(iterations: int, learning_rate: float) -> FitPlan:
        return FitPlan(max(1, round(iterations * length)), learning_rate)

    def mending(
        iterations: int, learning_rate: float, flows: tuple[Flow, ...], emphasis: Emphasis
    ) -> TrainingStage:
        small, large = Course(1.0, 256, 4, flows), Course(1.0, 512, 1, flows)
        return TrainingStage(plan(iterations, learning_rate), (small, small, large), emphasis)

    courses = (Course(0.5, 128, 8), Course(0.85, 256, 4), Course(1.0, 512, 1))
    portions = (Portion(128, 800), Portion(256, 160), Portion(512, 24))
    simple = AdapterRecipe((TrainingStage(plan(500, 2e-3), courses),), portions)
    return Recipe(
        seed=seed,
        vae_samples=500,
        portions=portions,
        vae=plan(400, 5e-4),
        base=plan(6000, 3e-3),
        # Small pictures teach the same at a fraction of the time.
        base_courses=(
            Course(0.58, 128, 8),
            Course(0.72, 128, 8, READING, (Flow.DESCRIBED,)),
            Course(0.93, 256, 4, READING, (Flow.DESCRIBED,)),
            Course(1.0, 512, 1, READING, (Flow.DESCRIBED,)),
        ),
        adapters={
            Task.INSERTION: AdapterRecipe(
                (
                    TrainingStage(
                        plan(2400, 2e-3),
                        (
                            Course(0.5, 128, 8, SEARCHING),
                            Course(0.8, 256, 4, SEARCHING),
                            Course(1.0, 512, 1, SEARCHING),
                        ),
                        Emphasis(unseen_share=0.5),
                    ),
                    TrainingStage(
                        plan(560, 1e-3),
                        (Course(1.0, 256, 4, SEARCHING), Course(1.0, 512, 1, SEARCHING)),
                        Emphasis(unseen_share=0.5, start_share=0.5),
                    ),
                    mending(540, 1e-3, SEARCHING, Emphasis(0.5, 0.3, own_share=0.5)),
                    mending(900, 1e-3, BALANCED, Emphasis(0.5, 0.3, own_share=0.7, own_steps=3)),
                    mending(600, 7e-4, ENDING, Emphasis(0.5, 0.3, own_share=0.7, own_steps=3)),
                ),
                (Portion(128, 800), Portion(256, 320), Portion(512, 96)),
            ),
            Task.REMOVAL: simple,
            Task.WHITE_BALANCE: simple,
        },
    )


def train(recipe: Recipe, workspace: Path, device: str, report: Report) -> Trained:
    """Train VAE, transformer and adapters; continue where an earlier run was stopped.

    Args:
        recipe: what to train, and how.
        workspace: a folder that only this training uses.
        device: "cpu" or "cuda".
        report: called after every sample and iteration.

    Raises:
        ExportError: the workspace belongs to another recipe, or a photograph is missing.
    """
    _claim(workspace, recipe)
    seed, seconds = recipe.seed, {}
    pictures = photographs.load(photographs.TRAINING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = build_pipeline(NUM_LAYERS, NUM_ATTENTION_HEADS, all_prompts())
    pipeline.to(device)
    report("pictures", 0.0, "")
    drawn = training_pictures(seed, recipe.vae_samples, PICTURE_SIZE, pictures)
    seconds["vae"] = train_vae(
        pipeline.vae, recipe.vae, drawn, seed, workspace / "vae.pt", _steps(report, "vae")
    )
    pools = _pools(pipeline, recipe, pictures, workspace / "samples", report)
    seconds["base"] = train_base(
        pipeline.transformer,
        pipeline.scheduler,
        recipe.base,
        recipe.base_courses,
        pools[None],
        seed,
        workspace / "base.pt",
        _steps(report, "base"),
    )
    adapters = {}
    for task in Task:
        own = recipe.adapters[task]
        adapters[str(task)], seconds[str(task)] = train_adapter(
            pipeline.transformer,
            pipeline.scheduler,
            task,
            own.stages,
            pools[task],
            seed,
            workspace / f"{task}.pt",
            _steps(report, str(task)),
        )
    return Trained(pipeline.to("cpu"), adapters, seconds)


def _pools(
    pipeline: Any, recipe: Recipe, pictures: Sequence[Pixels], folder: Path, report: Report
) -> dict[Task | None, Pool]:
    """Encode what the base (None) and each task's adapter learn from."""
    wanted: dict[Task | None, tuple[Sequence[Portion], Sequence[Flow]]] = {
        None: (recipe.portions, list(Flow))
    }
    for task in Task:
        wanted[task] = recipe.adapters[task].portions, [flow for flow in Flow if flow.task == task]
    total = sum(
        portion.samples * len(flows) for portions, flows in wanted.values() for portion in portions
    )
    ready = 0

    def on_sample(count: int) -> None:
        nonlocal ready
        ready += count
        report("samples", ready / total, f"{ready} of {total}")

    return {
        user: encoded_pool(pipeline, portions, flows, recipe.seed, pictures, folder, on_sample)
        for user, (portions, flows) in wanted.items()
    }


def _claim(workspace: Path, recipe: Recipe) -> None:
    workspace.mkdir(parents=True, exist_ok=True)
    path, text = workspace / RECIPE, json.dumps(asdict(recipe), indent=2) + "\n"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ExportError(f"{workspace}: belongs to another recipe, see {path}")


def _steps(report: Report, phase: str) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        detail = f"iteration {step.iteration} of {step.iterations}, loss {step.loss:.4f}"
        report(phase, step.iteration / step.iterations, detail)

    return on_step
