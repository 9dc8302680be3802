"""Samples are encoded as the pipeline encodes an edit's inputs, once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export.demo_edits.pipeline import build_pipeline
from export.demo_edits.samples import Flow, draw_sample
from export.demo_edits.training import pool as edit_pool
from export.demo_edits.training.pool import Encoded, Pool, Portion, encode, encoded_pool

SIZE = 64


@pytest.fixture(scope="module")
def pipeline() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_pipeline()


@pytest.mark.parametrize("flow", Flow)
def test_encoding_is_the_pipeline_s_own(pipeline: Any, flow: Flow) -> None:
    sample = draw_sample(flow, [5, 0], SIZE)
    encoded = encode(pipeline, sample)
    tokens = (SIZE // 16) ** 2
    assert encoded.pictures.shape == (1 + len(sample.conditions.images), tokens, 64)
    noise = torch.zeros(1, tokens, 64)
    images = [Image.fromarray(pixels) for pixels in sample.conditions.images]
    with torch.no_grad():
        for image, packed in zip(images, encoded.pictures[1:], strict=True):
            pixels = pipeline.image_processor.preprocess(image, SIZE, SIZE).unsqueeze(2)
            expected = pipeline.prepare_latents(
                pixels, 1, 16, SIZE, SIZE, torch.float32, torch.device("cpu"), None, noise
            )[1]
            mean = torch.tensor(pipeline.vae.config.latents_mean).repeat_interleave(4)
            std = torch.tensor(pipeline.vae.config.latents_std).repeat_interleave(4)
            torch.testing.assert_close(
                ((packed.float() - mean) / std)[None], expected, atol=2e-3, rtol=2e-3
            )
        prompt, _ = pipeline.encode_prompt(sample.request.prompt, image=images)
        blank, _ = pipeline.encode_prompt(" ", image=images)
    torch.testing.assert_close(encoded.prompt.float()[None], prompt, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(encoded.blank.float()[None], blank, atol=2e-3, rtol=2e-3)
    assert len(encoded.blank) < len(encoded.prompt)


@pytest.fixture
def draw(pipeline: Any, tmp_path: Path) -> Any:
    def pool(seen: list[int] | None = None, flows: Sequence[Flow] = tuple(Flow)) -> Pool:
        counts: list[int] = [] if seen is None else seen
        portions = (Portion(32, 3), Portion(64, 1))
        folder = tmp_path / "samples"
        return encoded_pool(pipeline, portions, flows, 0, (), folder, counts.append)

    return pool


def same(first: Encoded, second: Encoded) -> bool:
    return all(torch.equal(value, vars(second)[name]) for name, value in vars(first).items())


def test_a_pool_holds_every_flow_at_every_size(draw: Any) -> None:
    seen: list[int] = []
    pool = draw(seen)
    assert {key: len(samples) for key, samples in pool.items()} == {
        (size, flow): count for size, count in ((32, 3), (64, 1)) for flow in Flow
    }
    assert sum(seen) == 20


def test_a_pool_of_some_flows_holds_the_same_samples_of_them(draw: Any) -> None:
    pool, some = draw(), draw(flows=[Flow.TWO_SOURCE])
    assert some.keys() == {(32, Flow.TWO_SOURCE), (64, Flow.TWO_SOURCE)}
    for key, samples in some.items():
        assert all(map(same, samples, pool[key]))
    removals = pool[32, Flow.REMOVAL]
    assert not same(removals[0], removals[1])


def test_a_second_run_reads_what_the_first_has_encoded(
    draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draw()
    monkeypatch.setattr(edit_pool, "encode", None)
    second = draw()
    for key, samples in first.items():
        assert all(same(*pair) for pair in zip(samples, second[key], strict=True))


def test_a_stopped_run_goes_on(draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_pool, "SHARD", 2)
    whole = draw()
    shards = sorted((tmp_path / "samples").iterdir())
    shards[0].unlink()
    (tmp_path / "samples" / "32-0-0-2.part").write_bytes(b"half a file")
    resumed = draw()
    for key, samples in whole.items():
        assert all(same(*pair) for pair in zip(samples, resumed[key], strict=True))
    assert sorted((tmp_path / "samples").glob("*.pt")) == shards


def test_float16_is_enough(pipeline: Any) -> None:
    encoded = encode(pipeline, draw_sample(Flow.REFERENCE, [5, 1], SIZE))
    for tensor in (encoded.pictures, encoded.prompt, encoded.blank):
        assert tensor.dtype == torch.float16
        assert np.isfinite(tensor.numpy()).all()
