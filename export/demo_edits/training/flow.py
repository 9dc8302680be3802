"""Owns the training of the demo's transformer by flow matching, and of its adapters."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from torch.nn import functional

from export.demo_edits.samples import Flow
from export.demo_edits.training import attention_start
from export.demo_edits.training.fitting import FitPlan, Step, fit
from export.demo_edits.training.pool import Encoded, Pool
from export.devices import autocast
from export.serving_code import Task

# How often the prompt is blank: guidance compares with the answer to a blank prompt.
BLANK_FRACTION = 0.2
# How often the base is asked for the edit; otherwise it is asked to copy one of the conditions. The
# base learns to find its way in all pictures; the adapters know which picture is wanted.
EDIT_FRACTION = 0.5
# With less noise than this, the way from a wrong picture to the wanted one is too steep to learn
# from.
LEAST_OWN_NOISE = 0.15
# A condition shows a token if it is this close to the token at the same place. The measure is the
# mean squared difference of latents, which vary by about 0.15.
SEEN = 0.005
LORA_RANK = 16
LORA_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0",
    "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "img_mlp.net.0.proj", "img_mlp.net.2",
]  # fmt: skip


@dataclass(frozen=True)
class Course:
    """What is trained on, up to some fraction of the training.

    Courses that end together take turns.
    """

    until: float
    """Fraction of the training at which the course ends, 0..1."""
    size: int
    """Side of the pictures, in pixels."""
    batch: int
    """Samples per iteration."""
    flows: tuple[Flow, ...] = ()
    """Flows that take turns; empty: all flows of the training."""
    edits_only: tuple[Flow, ...] = ()
    """Flows in which the base is only asked for the edit, never for a condition."""


@dataclass(frozen=True)
class Emphasis:
    """What an adapter's training dwells on.

    The manifests of shipped bundles hold the names of these fields.
    """

    unseen_share: float = 0.0
    """Fraction of a sample's loss that is about the tokens that no condition shows at their place,
    however few these are, 0..1; 0: every token counts the same."""
    start_share: float = 0.0
    """How often noise hides the whole picture, as at the start of an edit, 0..1. The first steps
    decide the colours, and later steps keep them."""
    own_share: float = 0.0
    """How often the transformer's own steps have led to the noisy picture, 0..1, as in serving.
    Otherwise nothing teaches the transformer to correct its own errors."""
    own_steps: int = 1
    """At most this many of its own steps."""


@dataclass(frozen=True)
class TrainingStage:
    """A part of an adapter's training; it continues from the weights of the part before."""

    plan: FitPlan
    courses: tuple[Course, ...]
    emphasis: Emphasis = field(default_factory=Emphasis)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one flow and size."""

    noisy: Tensor
    """float32 [n, tokens, channels]: the wanted picture, mixed with noise."""
    velocity: Tensor
    """float32, shaped as `noisy`: noise minus wanted picture."""
    conditions: Tensor
    """float32 [n, conditions x tokens, channels]"""
    sigma: Tensor
    """float32 [n]: the fraction of noise, 0..1."""
    prompts: list[Tensor]
    """float16 [length, dim] each."""


def train_base(
    transformer: Any,
    scheduler: Any,
    plan: FitPlan,
    courses: Sequence[Course],
    pool: Pool,
    seed: int,
    checkpoint: Path,
    on_step: Callable[[Step], None],
) -> float:
    """Train all of the transformer's weights in place, on every flow in turn.

    Args:
        transformer: as `build_pipeline` makes it.
        scheduler: the scheduler that serves; noise is drawn at its levels.
        plan: how long and how fast.
        courses: sizes in order, the last until 1.0. The pool has samples of each size.
        pool: encoded samples of every flow.
        seed: seed of the batches and the noise.
        checkpoint: the file to continue from.
        on_step: called after every iteration.

    Returns:
        The seconds spent training.
    """
    attention_start.start(transformer)
    weights = dict(transformer.requires_grad_(True).named_parameters())
    matrices = [
        name
        for name, weight in weights.items()
        if weight.ndim == 2 and name.startswith("transformer_blocks") and "_mod." not in name
    ]
    loss = _loss(transformer, scheduler, courses, pool, list(Flow), EDIT_FRACTION, Emphasis(), seed)
    seconds = fit(plan, weights, matrices, loss, checkpoint, on_step)
    transformer.requires_grad_(False)
    return seconds


def train_adapter(
    transformer: Any,
    scheduler: Any,
    task: Task,
    stages: Sequence[TrainingStage],
    pool: Pool,
    seed: int,
    checkpoint: Path,
    on_step: Callable[[Step], None],
) -> tuple[dict[str, Tensor], float]:
    """Train a LoRA adapter for one task; the frozen transformer stays as it was.

    Args:
        transformer: a trained transformer.
        scheduler: the scheduler that serves.
        task: its flows are trained on, and the adapter is only asked for the edit.
        stages: in order; the last course of each lasts until 1.0. The pool has samples of each
            size.
        pool: encoded samples of the task's flows.
        seed: seed of the adapter's first weights, the batches and the noise.
        checkpoint: the file to continue from. The files of later stages lie beside it.
        on_step: called after every iteration.

    Returns:
        The adapter's weights as peft names them, and the seconds spent training.
    """
    name = str(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=LORA_TARGETS)
        transformer.add_adapter(config, adapter_name=name)
    weights = {key: weight for key, weight in transformer.named_parameters() if "lora_" in key}
    for weight in weights.values():
        weight.requires_grad_(True)
    flows = [flow for flow in Flow if flow.task == task]
    total, done, seconds = sum(stage.plan.iterations for stage in stages), 0, 0.0
    for number, stage in enumerate(stages):

        def report(step: Step, done: int = done, seconds: float = seconds) -> None:
            on_step(Step(done + step.iteration, total, step.loss, seconds + step.seconds))

        loss = _loss(
            transformer, scheduler, stage.courses, pool, flows, 1.0, stage.emphasis, seed + number
        )
        own = checkpoint.with_stem(f"{checkpoint.stem}-{number + 1}") if number else checkpoint
        seconds += fit(stage.plan, weights, (), loss, own, report)
        done += stage.plan.iterations
    state = get_peft_model_state_dict(transformer, adapter_name=name)
    trained = {key: value.detach().clone() for key, value in state.items()}
    transformer.unload_lora()
    return trained, seconds


def draw_batch(
    samples: Sequence[Encoded],
    count: int,
    edit_fraction: float,
    start_share: float,
    shift: float,
    generator: torch.Generator,
) -> Batch:
    """Draw samples, what each is asked for, the level of noise, and the noise.

    Args:
        samples: samples of one flow and size.
        count: how many to draw, with repetition.
        edit_fraction: how often the edit is asked for instead of one of the conditions, 0..1.
        start_share: how often there is only noise, 0..1.
        shift: the scheduler's `mu`; a larger one prefers high levels of noise.
        generator: everything random comes from it.
    """
    chosen = [
        samples[index]
        for index in torch.randint(len(samples), (count,), generator=generator).tolist()
    ]
    pictures = torch.stack([sample.pictures for sample in chosen]).float()
    asked = 1 + torch.randint(pictures.shape[1] - 1, (count,), generator=generator)
    asked[torch.rand(count, generator=generator) < edit_fraction] = 0
    wanted = pictures[torch.arange(count), asked]
    # High levels come more often: there, conditions and prompt alone decide what to draw.
    level = torch.rand(count, generator=generator).sqrt()
    if start_share:
        level[torch.rand(count, generator=generator) < start_share] = 1.0
    sigma = math.exp(shift) * level / (1 + (math.exp(shift) - 1) * level)
    noise = torch.randn(wanted.shape, generator=generator)
    fraction = sigma[:, None, None]
    blank = (torch.rand(count, generator=generator) < BLANK_FRACTION).tolist()
    return Batch(
        noisy=(1 - fraction) * wanted + fraction * noise,
        velocity=noise - wanted,
        conditions=pictures[:, 1:].flatten(1, 2),
        sigma=sigma,
        prompts=[
            sample.blank if dropped else sample.prompt
            for sample, dropped in zip(chosen, blank, strict=True)
        ],
    )


def predict(transformer: Any, batch: Batch) -> Tensor:
    """Return the velocity that the transformer predicts, float32 [n, tokens, channels].

    Tokens of square pictures follow one another, as in the pipeline.
    """
    device = transformer.device
    tokens = batch.noisy.shape[1]
    side = math.isqrt(tokens)
    pictures = 1 + batch.conditions.shape[1] // tokens
    longest = max(len(prompt) for prompt in batch.prompts)
    prompts = torch.stack(
        [functional.pad(prompt, (0, 0, 0, longest - len(prompt))) for prompt in batch.prompts]
    )
    read = torch.stack([torch.arange(longest) < len(prompt) for prompt in batch.prompts])
    with autocast(device):
        prediction = transformer(
            hidden_states=torch.cat([batch.noisy, batch.conditions], dim=1).to(device),
            timestep=batch.sigma.to(device),
            encoder_hidden_states=prompts.float().to(device),
            encoder_hidden_states_mask=None if read.all() else read.to(device),
            img_shapes=[[(1, side, side)] * pictures],
            return_dict=False,
        )[0]
    return prediction[:, :tokens].float()  # type: ignore[no-any-return]


@torch.no_grad()
def with_own_pictures(
    transformer: Any, batch: Batch, emphasis: Emphasis, generator: torch.Generator
) -> Batch:
    """Start some samples where the transformer's own steps from their noise lead.

    Their velocity then leads from there to the wanted picture. This counters what Ning et al. 2023
    (arXiv:2301.11706) call exposure bias.

    Args:
        transformer: takes Euler's steps, from pure noise.
        batch: what `draw_batch` drew.
        emphasis: how many of the samples with at least LEAST_OWN_NOISE, and at most how many steps.
        generator: draws which samples, and how many steps.
    """
    sigma = batch.sigma[:, None, None]
    wanted = batch.noisy - sigma * batch.velocity
    own = batch.noisy + (1 - sigma) * batch.velocity  # the noise, where they start
    steps = int(torch.randint(1, emphasis.own_steps + 1, (), generator=generator))
    chosen = torch.rand(len(sigma), generator=generator) < emphasis.own_share
    chosen &= batch.sigma >= LEAST_OWN_NOISE
    if not chosen.any():
        return batch
    stride = (1 - batch.sigma) / steps
    for step in range(steps):
        start = dataclasses.replace(batch, noisy=own, sigma=1 - step * stride)
        own = own - stride[:, None, None] * predict(transformer, start).cpu()
    noisy = torch.where(chosen[:, None, None], own, batch.noisy)
    velocity = torch.where(chosen[:, None, None], (own - wanted) / sigma, batch.velocity)
    return dataclasses.replace(batch, noisy=noisy, velocity=velocity)


def token_weights(batch: Batch, unseen_share: float) -> Tensor:
    """Weigh each token's error, float32 [n, tokens], 1 on average in every sample.

    Most tokens are easily copied, because a condition shows them at the same place. With equal
    weights, the tokens of a small object would hardly count.

    Args:
        batch: samples of one flow.
        unseen_share: fraction of a sample's weight for the tokens that no condition shows, 0..1.
    """
    wanted = batch.noisy - batch.sigma[:, None, None] * batch.velocity
    conditions = batch.conditions.reshape(len(wanted), -1, *wanted.shape[1:])
    nearest = (conditions - wanted[:, None]).square().mean(-1).amin(1)
    unseen = nearest > SEEN
    fraction = unseen.float().mean(1, keepdim=True)
    weights = torch.where(unseen, unseen_share / fraction, (1 - unseen_share) / (1 - fraction))
    mixed = (fraction > 0) & (fraction < 1)
    return torch.where(mixed, weights, torch.ones_like(weights))


def _loss(
    transformer: Any,
    scheduler: Any,
    courses: Sequence[Course],
    pool: Pool,
    flows: Sequence[Flow],
    edit_fraction: float,
    emphasis: Emphasis,
    seed: int,
) -> Callable[[int, float], Tensor]:
    config = scheduler.config
    importance = _importance(pool, courses[0].size, flows).to(transformer.device)

    def loss(iteration: int, fraction: float) -> Tensor:
        # Seeded by iteration, so that a run continued after a kill sees the same batches.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + iteration)
        until = next(course.until for course in courses if fraction < course.until)
        together = [course for course in courses if course.until == until]
        turns = together[0].flows or flows
        turn, number = divmod(iteration, len(turns))
        course, flow = together[turn % len(together)], turns[number]
        samples = pool[course.size, flow]
        shift = calculate_shift(
            samples[0].pictures.shape[1],
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        asked = 1.0 if flow in course.edits_only else edit_fraction
        batch = draw_batch(samples, course.batch, asked, emphasis.start_share, shift, generator)
        if emphasis.own_share:
            batch = with_own_pictures(transformer, batch, emphasis, generator)
        error = (
            importance
            * (predict(transformer, batch) - batch.velocity.to(transformer.device)).square()
        )
        if emphasis.unseen_share:
            weights = token_weights(batch, emphasis.unseen_share)
            error = error * weights[..., None].to(error.device)
        return error.mean()

    return loss


def _importance(pool: Pool, size: int, flows: Sequence[Flow]) -> Tensor:
    """Weigh an error in each channel of a token, float32 [channels], 1 on average.

    A channel weighs as much as it deviates. So an error counts more the more the picture shows
    it, and the fine channels, which show little, are still learned.
    """
    samples = [sample for flow in flows for sample in pool[size, flow]]
    deviation = torch.cat([sample.pictures[0] for sample in samples]).float().std(dim=0)
    return deviation / deviation.mean()
