"""What the text encoder is spared, on the demo bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from PIL import Image

from image_edit.engine.engine import EditEngine
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.text_encoder import drop_word_head, remember_last_pictures
from tests.models.image_edit.edits import picture
from tests.models.image_edit.engine.test_engine import SHIFT, prepared, spec_of

if TYPE_CHECKING:
    from pathlib import Path

    from image_edit.engine.bundle import Bundle


@pytest.fixture
def pipeline(bundle_folder: Path) -> Any:
    """As diffusers loads it, but for the places of pictures."""
    loaded = QwenImageEditPlusPipeline.from_pretrained(
        bundle_folder / "pipeline", dtype=torch.float32, local_files_only=True
    )
    mark_picture_tokens(loaded.text_encoder)
    return loaded


@torch.inference_mode()
def embeddings(pipeline: Any, prompt: str, *seeds: int) -> torch.Tensor:
    images = [Image.fromarray(picture(seed=seed)) for seed in seeds]
    found: torch.Tensor = pipeline.encode_prompt(prompt, image=images, device="cpu")[0]
    return found


class Looks:
    """Counts how often the vision tower computes."""

    def __init__(self, pipeline: Any) -> None:
        self.count = 0
        pipeline.text_encoder.model.visual.patch_embed.register_forward_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.count += 1


def test_the_same_pictures_are_seen_once(pipeline: Any) -> None:
    asked: list[tuple[str, list[int]]]
    asked = [("a", [0, 1]), ("b", [0, 1]), ("b", [1, 0]), ("a", [0]), ("a", [0, 1]), ("a", [0, 1])]
    expected = [embeddings(pipeline, prompt, *seeds) for prompt, seeds in asked]
    remember_last_pictures(pipeline.text_encoder)
    looks = Looks(pipeline)
    found = [embeddings(pipeline, prompt, *seeds) for prompt, seeds in asked]
    assert looks.count == 4
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_what_was_seen_is_forgotten_where_seeing_fails(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    remember_last_pictures(pipeline.text_encoder)
    expected = embeddings(pipeline, "a", 0)
    visual = pipeline.text_encoder.model.visual
    with monkeypatch.context() as patch:
        patch.setattr(visual.patch_embed, "forward", fail)
        with pytest.raises(torch.OutOfMemoryError):
            embeddings(pipeline, "a", 1)
        assert visual.forward._seen is None
    assert torch.equal(embeddings(pipeline, "a", 0), expected)


def test_a_guided_edit_sees_its_pictures_once(bundle: Bundle) -> None:
    # The bundle is of all tests, and another one may have shown it the same pictures last.
    bundle.pipeline.text_encoder.model.visual.forward._seen = None
    looks = Looks(bundle.pipeline)
    engine = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    prepared(engine, spec_of(size=(64, 96)))
    assert looks.count == 1


def test_embeddings_need_no_words(pipeline: Any) -> None:
    expected = embeddings(pipeline, "a", 0)
    # The demo shares its head's weights with the embedding of words; the real model does not.
    shared = pipeline.text_encoder.lm_head.weight
    pipeline.text_encoder.lm_head.weight = torch.nn.Parameter(shared.detach().clone())
    before = sum(weight.numel() for weight in pipeline.text_encoder.parameters())
    drop_word_head(pipeline.text_encoder)
    assert torch.equal(embeddings(pipeline, "a", 0), expected)
    after = sum(weight.numel() for weight in pipeline.text_encoder.parameters())
    assert after == before - shared.numel()


def test_a_bundle_is_loaded_without_words(bundle: Bundle) -> None:
    assert not list(bundle.pipeline.text_encoder.lm_head.parameters())
