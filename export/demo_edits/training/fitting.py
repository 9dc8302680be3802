"""Owns the loop of every training of the demo: schedule, optimisers, checkpoints."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.folders import replacing_file

WARM_UP = 30  # iterations
MAX_GRADIENT = 1.0
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class FitPlan:
    """How long and how fast to train. Two runs of one plan give the same weights."""

    iterations: int
    learning_rate: float


@dataclass(frozen=True)
class Step:
    """One iteration, as reported while training."""

    iteration: int
    """Counted from 1."""
    iterations: int
    loss: float
    """Averaged over recent iterations."""
    seconds: float
    """Time spent training, earlier runs included."""


# (iteration from 0, fraction of the training that is done) -> the loss: a scalar with a gradient.
Loss = Callable[[int, float], Tensor]


def fit(
    plan: FitPlan,
    weights: Mapping[str, nn.Parameter],
    matrices: Iterable[str],
    loss: Loss,
    checkpoint: Path,
    on_step: Callable[[Step], None],
) -> float:
    """Train in place, from the checkpoint if there is one.

    A process that is killed at any moment loses at most the last minute. A training that has
    ended is not repeated: its weights are read.

    Args:
        plan: how long and how fast.
        weights: the weights to train, by name.
        matrices: names of the weights that Muon moves: matrices between hidden layers. AdamW
            moves the others.
        loss: depends on nothing but its arguments and the weights.
        checkpoint: the file. Its folder exists.
        on_step: called after every iteration.

    Returns:
        The seconds spent training, earlier runs included.

    Raises:
        ExportError: the checkpoint belongs to another plan or to other weights.
    """
    run = _Run(plan, weights, set(matrices))
    if checkpoint.exists():
        run.load(checkpoint)
    saved = time.monotonic()
    while run.iteration < plan.iterations:
        on_step(run.step(loss))
        if time.monotonic() - saved > CHECKPOINT_SECONDS or run.iteration == plan.iterations:
            run.save(checkpoint)
            saved = time.monotonic()
    return run.seconds


class _Run:
    """The state of a training, and one step of it."""

    def __init__(
        self, plan: FitPlan, weights: Mapping[str, nn.Parameter], matrices: set[str]
    ) -> None:
        self.plan = plan
        self.weights = dict(weights)
        moved = [weight for name, weight in weights.items() if name in matrices]
        others = [weight for name, weight in weights.items() if name not in matrices]
        rate = plan.learning_rate
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0)
        ]
        if moved:
            # Muon's steps are scaled to the size of AdamW's, so one rate serves both.
            self.optimisers.append(
                torch.optim.Muon(moved, rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            )
        self.iteration = 0
        self.seconds = 0.0
        self.loss = 0.0

    def step(self, loss: Loss) -> Step:
        started = time.monotonic()
        fraction = self.iteration / self.plan.iterations
        rate = self.plan.learning_rate * min(1.0, (self.iteration + 1) / WARM_UP) * (1 - fraction)
        value = loss(self.iteration, fraction)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = rate
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights.values(), MAX_GRADIENT)
        for optimiser in self.optimisers:
            optimiser.step()
        recent = self.loss if self.iteration else value.item()
        self.loss = 0.98 * recent + 0.02 * value.item()
        self.iteration += 1
        self.seconds += time.monotonic() - started
        return Step(self.iteration, self.plan.iterations, self.loss, self.seconds)

    def save(self, path: Path) -> None:
        state = {
            "plan": asdict(self.plan),
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "iteration": self.iteration,
            "seconds": self.seconds,
            "loss": self.loss,
        }
        with replacing_file(path) as unfinished:
            torch.save(state, unfinished)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["plan"] != asdict(self.plan) or state["weights"].keys() != self.weights.keys():
            raise ExportError(f"{path}: belongs to another training: {state['plan']}")
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.loss = state["loss"]
