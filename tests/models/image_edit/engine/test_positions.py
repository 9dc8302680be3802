"""The text encoder counts a picture's tokens as its makers did; few grids of places are kept.

Without complex numbers, queries and keys turn by the same angles.
"""

from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers import transformer_qwenimage
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from image_edit.engine.bundle import Bundle
from image_edit.engine.positions import (
    KEPT_GRIDS,
    keep_few_places,
    mark_picture_tokens,
    turn_in_real_numbers,
)


@pytest.fixture(scope="module")
def inputs(bundle: Bundle) -> dict[str, Any]:
    """Return what diffusers' edit pipelines hand over, and what they leave out."""
    pictures = [Image.new("RGB", (84, 56), colour) for colour in ("red", "blue")]
    slots = "<|vision_start|><|image_pad|><|vision_end|>" * len(pictures)
    return dict(
        bundle.pipeline.processor(text=[f"{slots}remove it"], images=pictures, return_tensors="pt")
    )


@torch.no_grad()
def places(encoder: Any, monkeypatch: pytest.MonkeyPatch, **inputs: Any) -> list[torch.Tensor]:
    """Return the place of each token that the language model is given: [time, row, column]."""
    seen: list[torch.Tensor] = []
    model = encoder.model.language_model
    forward = model.forward

    def note(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["position_ids"])
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", note)
        encoder(**inputs)
    return seen


def test_pictures_take_rows_and_columns(
    bundle: Bundle, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = Qwen2_5_VLForConditionalGeneration(bundle.pipeline.text_encoder.config).eval()
    as_made = places(encoder, monkeypatch, **inputs)
    passed_on = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
    assert len(passed_on) == len(inputs) - 1
    assert places(encoder, monkeypatch, **passed_on) == [None]  # counted one by one
    mark_picture_tokens(encoder)
    (found,) = places(encoder, monkeypatch, **passed_on)
    assert torch.equal(found, as_made[0])
    # 2 x 3 tokens take three places, not six.
    assert int(found.max()) < inputs["input_ids"].shape[1] - 4


def test_a_loaded_bundle_has_it(
    bundle: Bundle, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
    (found,) = places(bundle.pipeline.text_encoder, monkeypatch, **passed_on)
    assert found is not None


def test_the_places_of_few_grids_are_kept() -> None:
    plain, bounded = (QwenImageTransformer2DModel(num_layers=0) for _ in range(2))
    keep_few_places(bounded)
    device = torch.device("cpu")
    grids = [[(1, rows, 4), (1, 2, rows)] for rows in range(1, 2 * KEPT_GRIDS)]
    for grid in [*grids, *grids]:
        expected = plain.pos_embed([grid], max_txt_seq_len=3, device=device)
        found = bounded.pos_embed([grid], max_txt_seq_len=3, device=device)
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other)
    assert bounded.pos_embed._compute_video_freqs.cache_info().currsize == KEPT_GRIDS
    bounded.pos_embed([grids[-1]], max_txt_seq_len=3, device=device)
    # What an edit's steps ask for again and again comes from memory.
    assert bounded.pos_embed._compute_video_freqs.cache_info().hits == 2


def test_a_loaded_bundle_keeps_few_grids(bundle: Bundle) -> None:
    kept = bundle.pipeline.transformer.pos_embed._compute_video_freqs.cache_info()
    assert kept.maxsize == KEPT_GRIDS


@pytest.fixture
def places_of_a_picture() -> tuple[Any, Any]:
    """Return an edit's angles, as diffusers turns by them and without complex numbers."""
    plain, real = (QwenImageTransformer2DModel(num_layers=0) for _ in range(2))
    turn_in_real_numbers(real)
    grids = [[(1, 24, 16), (1, 16, 16)]]
    angles = [
        each.pos_embed(grids, max_txt_seq_len=40, device=torch.device("cpu"))
        for each in (plain, real)
    ]
    return angles[0], angles[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("of", ["picture", "text"])
def test_a_turn_in_real_numbers_is_diffusers_own(
    places_of_a_picture: tuple[Any, Any], of: str, dtype: torch.dtype
) -> None:
    own, pairs = (angles[of == "text"] for angles in places_of_a_picture)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, len(own), 3, 128, generator=generator).to(dtype)
    assert own.is_complex()
    assert not pairs.is_complex()
    turn = transformer_qwenimage.apply_rotary_emb_qwen
    expected, found = (turn(vectors, angles, use_real=False) for angles in (own, pairs))
    assert found.dtype is dtype
    assert found.shape == vectors.shape
    assert torch.equal(found, expected)
    assert (found != vectors).float().mean() > 0.5
