"""Owns training the demo's mask network: the loop, its schedule and its checkpoints."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.demo_masks.dataset import ScenePool, draw_batch
from export.devices import autocast
from export.errors import ExportError
from export.fastsam.yolo import segmentation_loss, segmentation_network
from export.folders import replacing_file

# About 2 M parameters.
DEPTH, WIDTH, MAX_CHANNELS = 0.33, 0.25, 512
LEARNING_RATE = 2e-3
FINAL_RATE = 0.01  # fraction of the learning rate
WARM_UP = 100  # iterations
WEIGHT_DECAY = 0.02
MAX_GRADIENT = 10.0
AVERAGE_DECAY = 0.998
CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 60.0
# (fraction of the training at which the size ends, side of the images). Small images teach the same
# in less time; the last images are as large as served ones.
SIZES = ((0.6, 192), (0.88, 256), (1.0, 320))
# From this fraction on, masks are compared at half the image's size instead of a quarter.
FINE_MASKS = 0.65


@dataclass(frozen=True)
class TrainingPlan:
    """How long and on what to train. Two runs of one plan by iterations give the same weights."""

    seed: int
    """Seed of the weights, the scenes and the batches."""
    scenes: int
    """How many scenes the pool holds."""
    batch: int
    """Images per iteration."""
    iterations: int | None
    """Stop after this many iterations; None: only `minutes` decides."""
    minutes: float | None
    """Stop after this many minutes; None: only `iterations` decides."""

    def __post_init__(self) -> None:
        if self.iterations is None and self.minutes is None:
            raise ValueError("iterations or minutes must be given")

    def fraction_done(self, iteration: int, seconds: float) -> float:
        """Return the fraction of the training that is done, 0..1."""
        by_iterations = iteration / self.iterations if self.iterations else 0.0
        by_time = seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(by_iterations, by_time))


@dataclass(frozen=True)
class Step:
    """One iteration, as reported while training."""

    iteration: int
    """Counted from 1."""
    fraction: float
    """The fraction of the training that is done, 0..1."""
    seconds: float
    """Time spent training, earlier runs included."""
    size: int
    """Side of the images, in pixels."""
    losses: dict[str, float]
    """Box, mask, class and distribution, averaged over recent iterations."""


@dataclass(frozen=True)
class Trained:
    """What training leaves: the averaged network, and how long the training took."""

    network: Any
    iterations: int
    seconds: float


def train(
    plan: TrainingPlan,
    pool: ScenePool,
    workspace: Path,
    device: str,
    on_step: Callable[[Step], None],
) -> Trained:
    """Train from the last checkpoint in the workspace, or from the beginning.

    A process that is killed at any moment loses at most the last minute.

    Args:
        plan: how long and on what.
        pool: the scenes.
        workspace: where the checkpoint lies.
        device: "cpu" or "cuda".
        on_step: called after every iteration.

    Returns:
        The network, ready for export; its weights are averaged over the last iterations.

    Raises:
        ExportError: the workspace holds a checkpoint of another plan.
    """
    run = _Run(plan, device)
    checkpoint = workspace / CHECKPOINT
    if checkpoint.exists():
        run.load(checkpoint)
    saved = time.monotonic()
    while run.fraction < 1.0:
        on_step(run.step(pool))
        if time.monotonic() - saved > CHECKPOINT_SECONDS or run.fraction >= 1.0:
            run.save(checkpoint)
            saved = time.monotonic()
    return Trained(run.average, run.iteration, run.seconds)


class _Run:
    """The state of a training run, and one step of it."""

    def __init__(self, plan: TrainingPlan, device: str) -> None:
        self.plan = plan
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            network = segmentation_network(DEPTH, WIDTH, MAX_CHANNELS)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.loss = segmentation_loss(self.network)
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        kernels = [weight for weight in trained if weight.ndim > 1]
        vectors = [weight for weight in trained if weight.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": kernels, "weight_decay": WEIGHT_DECAY},
                {"params": vectors, "weight_decay": 0.0},
            ],
            LEARNING_RATE,
        )
        self.iteration = 0
        self.seconds = 0.0
        self.losses: dict[str, float] = {}

    @property
    def fraction(self) -> float:
        return self.plan.fraction_done(self.iteration, self.seconds)

    def step(self, pool: ScenePool) -> Step:
        started = time.monotonic()
        fraction = self.fraction
        size = next(size for limit, size in SIZES if fraction <= limit)
        # Seeded by iteration, so that a run continued after a kill sees the same batches.
        rng = np.random.default_rng([self.plan.seed, self.iteration])
        batch = draw_batch(pool, rng, self.plan.batch, size, 4 if fraction < FINE_MASKS else 2)
        images = batch.images.to(self.device, memory_format=torch.channels_last)
        with autocast(self.device):
            predictions = self.network(images)
        terms, named = self.loss(_float32(predictions), batch.targets)
        rate = _learning_rate(self.iteration, fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        # Ultralytics multiplies the loss by the size of the batch.
        (terms.sum() / self.plan.batch).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimiser.step()
        self._take_average()
        for name, value in named.items():
            recent = self.losses.get(name, float(value))
            self.losses[name] = 0.98 * recent + 0.02 * float(value)
        self.iteration += 1
        self.seconds += time.monotonic() - started
        return Step(self.iteration, self.fraction, self.seconds, size, dict(self.losses))

    @torch.no_grad()
    def _take_average(self) -> None:
        # The average is short at first, because the earliest weights are worth nothing.
        decay = AVERAGE_DECAY * (1 - math.exp(-(self.iteration + 1) / 400))
        current = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(current[name], 1 - decay)

    def save(self, path: Path) -> None:
        state = {
            "plan": asdict(self.plan),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "losses": self.losses,
        }
        with replacing_file(path) as unfinished:
            torch.save(state, unfinished)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["plan"] != asdict(self.plan):
            raise ExportError(f"{path}: belongs to another training: {state['plan']}")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.losses = state["losses"]


def _learning_rate(iteration: int, fraction: float) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))
    falling = FINAL_RATE + (1 - FINAL_RATE) * cosine
    return LEARNING_RATE * falling * min(1.0, (iteration + 1) / WARM_UP)


def _float32(predictions: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.float() if torch.is_tensor(value) else [each.float() for each in value]
        for name, value in predictions.items()
    }
