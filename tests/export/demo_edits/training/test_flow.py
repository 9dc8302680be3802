"""Batches are what flow matching needs, and adapters leave the frozen base as it was."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel

from export.demo_edits.pipeline import build_pipeline
from export.demo_edits.samples import Flow
from export.demo_edits.training import flow as flow_training
from export.demo_edits.training.fitting import FitPlan, Step
from export.demo_edits.training.flow import (
    LEAST_OWN_NOISE,
    Batch,
    Course,
    Emphasis,
    TrainingStage,
    draw_batch,
    predict,
    token_weights,
    train_adapter,
    train_base,
    with_own_pictures,
)
from export.demo_edits.training.pool import Encoded, Pool
from export.serving_code import Task

TOKENS, CHANNELS, TEXT = 4, 64, 16
COURSES = (Course(0.5, 32, 3), Course(1.0, 32, 2))


def encoded(number: int, conditions: int) -> Encoded:
    """Return a sample whose truth is number / 4; each condition is 1 / 16 above the one before."""
    values = number / 4 + torch.arange(1 + conditions) / 16
    return Encoded(
        pictures=values[:, None, None].expand(-1, TOKENS, CHANNELS).half(),
        prompt=torch.ones(5 + number, TEXT).half(),
        blank=torch.zeros(3, TEXT).half(),
    )


SAMPLES = [encoded(number, conditions=3) for number in range(1, 4)]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noisy_velocity_and_picture_lie_on_one_line(generator: torch.Generator) -> None:
    batch = draw_batch(SAMPLES, 64, 1.0, 0.0, 0.5, generator)
    fraction = batch.sigma[:, None, None]
    picture = batch.noisy - fraction * batch.velocity
    truths = (4 * picture.mean(dim=(1, 2))).round() / 4
    assert set(truths.tolist()) == {0.25, 0.5, 0.75}
    torch.testing.assert_close(picture, truths[:, None, None].expand_as(picture))
    noise = batch.velocity + picture
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_conditions_follow_in_their_order(generator: torch.Generator) -> None:
    batch = draw_batch(SAMPLES, 8, 1.0, 0.0, 0.5, generator)
    assert batch.conditions.shape == (8, 3 * TOKENS, CHANNELS)
    steps = 16 * batch.conditions.view(8, 3, TOKENS, CHANNELS)[:, :, 0, 0] % 4
    assert (steps == torch.tensor([1.0, 2.0, 3.0])).all()


def test_the_base_is_asked_for_conditions_too(generator: torch.Generator) -> None:
    batch = draw_batch(SAMPLES, 400, 0.5, 0.0, 0.5, generator)
    fraction = batch.sigma[:, None, None]
    asked = (16 * (batch.noisy - fraction * batch.velocity).mean(dim=(1, 2))).round() % 4
    fractions = torch.bincount(asked.int(), minlength=4) / 400
    torch.testing.assert_close(
        fractions, torch.tensor([0.5, 1 / 6, 1 / 6, 1 / 6]), atol=0.07, rtol=0
    )


def test_noise_comes_at_the_scheduler_s_levels_and_more_often_at_high_ones(
    generator: torch.Generator,
) -> None:
    scheduler = build_pipeline().scheduler
    shifted = draw_batch(SAMPLES, 4000, 1.0, 0.0, 0.8, generator).sigma
    levels = torch.linspace(0.001, 0.999, 4000)
    expected = (2 * levels * scheduler.time_shift(0.8, 1.0, levels)).mean()
    assert shifted.mean() == pytest.approx(float(expected), abs=0.02)
    assert shifted.min() >= 0
    assert shifted.max() <= 1


def test_a_fraction_of_the_samples_is_all_noise(generator: torch.Generator) -> None:
    sigma = draw_batch(SAMPLES, 1000, 1.0, 0.3, 0.5, generator).sigma
    assert 0.25 < (sigma == 1).float().mean() < 0.35
    assert not (draw_batch(SAMPLES, 1000, 1.0, 0.0, 0.5, generator).sigma == 1).any()


def test_a_fifth_of_the_prompts_is_blank(generator: torch.Generator) -> None:
    prompts = draw_batch(SAMPLES, 1000, 1.0, 0.0, 0.5, generator).prompts
    blank = sum(len(prompt) == 3 for prompt in prompts)
    assert 150 < blank < 250


def test_the_same_generator_gives_the_same_batch() -> None:
    first, second = (
        draw_batch(SAMPLES, 4, 0.5, 0.5, 0.5, torch.Generator().manual_seed(9)) for _ in range(2)
    )
    assert torch.equal(first.noisy, second.noisy)
    assert [len(prompt) for prompt in first.prompts] == [len(prompt) for prompt in second.prompts]


@pytest.fixture
def transformer() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return QwenImageTransformer2DModel(
            in_channels=CHANNELS,
            out_channels=16,
            num_layers=2,
            num_attention_heads=4,
            attention_head_dim=16,
            axes_dims_rope=(4, 6, 6),
            joint_attention_dim=TEXT,
        )


@pytest.fixture
def pool() -> Pool:
    return {
        (32, flow): [encoded(number, conditions=2), encoded(number + 1, conditions=2)]
        for number, flow in enumerate(Flow)
    }


def test_padding_of_shorter_prompts_changes_nothing(
    transformer: Any, generator: torch.Generator
) -> None:
    batch = draw_batch(SAMPLES, 8, 1.0, 0.0, 0.5, generator)
    lengths = [len(prompt) for prompt in batch.prompts]
    shortest = lengths.index(min(lengths))
    assert max(lengths) > min(lengths)
    alone = type(batch)(
        noisy=batch.noisy[[shortest]],
        velocity=batch.velocity[[shortest]],
        conditions=batch.conditions[[shortest]],
        sigma=batch.sigma[[shortest]],
        prompts=[batch.prompts[shortest]],
    )
    with torch.no_grad():
        together, single = predict(transformer, batch), predict(transformer, alone)
    torch.testing.assert_close(together[[shortest]], single, atol=0.05, rtol=0.05)


def test_from_its_own_picture_the_velocity_still_leads_to_the_wanted_one(
    transformer: Any, generator: torch.Generator
) -> None:
    batch = draw_batch(SAMPLES, 64, 1.0, 0.2, 0.5, generator)
    sigma = batch.sigma[:, None, None]
    wanted = batch.noisy - sigma * batch.velocity
    noise = wanted + batch.velocity
    changed = with_own_pictures(transformer, batch, Emphasis(own_share=0.5), generator)
    torch.testing.assert_close(changed.noisy - sigma * changed.velocity, wanted)
    own = (changed.noisy != batch.noisy).flatten(1).any(1)
    assert 15 < own.sum() < 45
    assert (batch.sigma[own] >= LEAST_OWN_NOISE).all()
    torch.testing.assert_close(changed.velocity[~own], batch.velocity[~own])
    with torch.no_grad():
        start = dataclasses.replace(batch, noisy=noise, sigma=torch.ones(64))
        first = noise - predict(transformer, start)
    expected = (1 - sigma) * first + sigma * noise
    torch.testing.assert_close(changed.noisy[own], expected[own], atol=0.02, rtol=0.02)
    assert torch.equal(changed.noisy[batch.sigma == 1], batch.noisy[batch.sigma == 1])


def test_what_no_condition_shows_weighs_its_fraction_however_small(
    generator: torch.Generator,
) -> None:
    batch = draw_batch(SAMPLES, 3, 1.0, 0.0, 0.5, generator)
    wanted = batch.noisy - batch.sigma[:, None, None] * batch.velocity
    tokens = wanted.shape[1]
    # The second condition shows the wanted picture, except for one token of the first sample and
    # every token of the third.
    shown = wanted.clone()
    shown[0, 1] += 1
    shown[2] += 1
    conditions = torch.cat([wanted + 2, shown], dim=1)
    weights = token_weights(dataclasses.replace(batch, conditions=conditions), 0.5)
    torch.testing.assert_close(weights.mean(1), torch.ones(3))
    assert weights[0, 1] == pytest.approx(tokens / 2)
    assert weights[0, 0] == pytest.approx(0.5 * tokens / (tokens - 1))
    assert (weights[1:] == 1).all()


@pytest.mark.slow
def test_training_learns_and_adapters_leave_the_base_alone(
    transformer: Any, pool: Pool, tmp_path: Path
) -> None:
    scheduler = build_pipeline().scheduler
    steps: list[Step] = []
    train_base(
        transformer,
        scheduler,
        FitPlan(150, 1e-2),
        COURSES,
        pool,
        1,
        tmp_path / "base",
        steps.append,
    )
    assert steps[-1].loss < 0.9 * steps[0].loss
    before = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    adapters = []
    for task in Task:
        reported: list[Step] = []
        weights, seconds = train_adapter(
            transformer,
            scheduler,
            task,
            (
                TrainingStage(FitPlan(2, 1e-2), COURSES),
                TrainingStage(FitPlan(3, 1e-2), COURSES, Emphasis(0.5, 0.5, 0.5, 3)),
            ),
            pool,
            1,
            tmp_path / f"{task}.pt",
            reported.append,
        )
        assert seconds > 0
        counted = [(step.iteration, step.iterations) for step in reported]
        assert counted == [(n, 5) for n in range(1, 6)]
        assert any(weight.abs().max() > 0 for key, weight in weights.items() if "lora_B" in key)
        adapters.append(weights)
        after = transformer.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert adapters[0].keys() == adapters[1].keys()
    assert any(not torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


def test_a_course_may_have_flows_of_its_own(
    transformer: Any, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, float]] = []

    def draw(samples: list[Encoded], count: int, edit_fraction: float, *others: Any) -> Batch:
        drawn.append((len(samples[0].prompt) - 5, edit_fraction))
        return draw_batch(samples, count, edit_fraction, *others)

    monkeypatch.setattr(flow_training, "draw_batch", draw)
    own = (Flow.REFERENCE, Flow.DESCRIBED)
    courses = (Course(0.5, 32, 1), Course(1.0, 32, 1, own, (Flow.DESCRIBED,)))
    scheduler = build_pipeline().scheduler
    train_base(
        transformer,
        scheduler,
        FitPlan(10, 1e-3),
        courses,
        pool,
        1,
        tmp_path / "base",
        lambda _: None,
    )
    flows = list(Flow)
    assert [flows[number] for number, _ in drawn] == [*flows, own[1], *own, *own]
    assert {fraction for number, fraction in drawn if flows[number] is not Flow.DESCRIBED} == {0.5}
    assert [fraction for number, fraction in drawn if flows[number] is Flow.DESCRIBED] == [
        0.5,
        1,
        1,
        1,
    ]


def test_courses_that_end_together_take_turns(
    transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def draw(samples: list[Encoded], count: int, *others: Any) -> Batch:
        drawn.append(count)
        return draw_batch(samples, count, *others)

    monkeypatch.setattr(flow_training, "draw_batch", draw)
    pool = {(32, Flow.REMOVAL): [encoded(0, conditions=2)]}
    courses = (Course(0.5, 32, 1), Course(1.0, 32, 2), Course(1.0, 32, 3))
    train_adapter(
        transformer,
        build_pipeline().scheduler,
        Task.REMOVAL,
        (TrainingStage(FitPlan(8, 1e-3), courses),),
        pool,
        1,
        tmp_path / "removal.pt",
        lambda _: None,
    )
    assert drawn == [1, 1, 1, 1, 2, 3, 2, 3]


def test_a_stopped_adapter_goes_on(transformer: Any, pool: Pool, tmp_path: Path) -> None:
    scheduler = build_pipeline().scheduler
    stages = (TrainingStage(FitPlan(3, 1e-2), COURSES), TrainingStage(FitPlan(2, 1e-2), COURSES))

    def train(folder: Path) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        checkpoint = folder / "removal.pt"
        return train_adapter(
            transformer, scheduler, Task.REMOVAL, stages, pool, 1, checkpoint, lambda _: None
        )[0]

    whole = train(tmp_path)
    again = train(tmp_path)  # from its finished checkpoints
    assert all(torch.equal(again[key], weight) for key, weight in whole.items())
    (tmp_path / "removal-2.pt").unlink()
    resumed = train(tmp_path)  # from the end of the first stage
    assert all(torch.equal(resumed[key], weight) for key, weight in whole.items())
