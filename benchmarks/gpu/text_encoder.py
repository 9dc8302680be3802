"""Owns measuring the text encoder of the full-size model, with random weights."""

import copy
import functools
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.gpu import machine
from export.qwen import published
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.text_encoder import drop_word_head, remember_last_pictures

# Of one picture of 384², and of the words beside it.
PATCHES, PATCH_VALUES, SIDE = 784, 1176, 28
WORDS = 90


def build(**tokens: int) -> Any:
    """Build the text encoder at the size of the run.

    Args:
        tokens: ids of the tokenizer that it will be used with, by their names in the config.
    """
    config = copy.deepcopy(published.TEXT_ENCODER) | tokens
    if not machine.current.scale.full:
        config["text_config"] |= {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
        }
        config["text_config"]["rope_parameters"]["mrope_section"] = [2, 3, 3]
        config["vision_config"] |= {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        }
    return machine.random_model(
        lambda: Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    )


@torch.inference_mode()
def measure() -> dict[str, Any]:
    """Measure a prompt with one picture and with three.

    Three ways: as it is, without the head for words, and with pictures that it has just seen.
    """
    encoder = build()
    mark_picture_tokens(encoder)
    found: dict[str, Any] = {}
    for way, change in (
        ("as_is", lambda _: None),
        ("without_words", drop_word_head),
        ("seen_before", remember_last_pictures),
    ):
        change(encoder)  # type: ignore[no-untyped-call]
        for pictures in (1, 3):
            inputs = _inputs(encoder, pictures)
            with machine.peak() as peak:
                elapsed = machine.milliseconds(
                    functools.partial(encoder, **inputs, output_hidden_states=True)
                )
            found.setdefault(str(pictures), {})[way] = {"ms": round(elapsed, 2)} | {
                key: round(value, 2) for key, value in peak.items()
            }
    three = found["3"]
    return {
        "pictures": found,
        "summary": [
            f"three pictures {three['as_is']['ms']} ms, seen before {three['seen_before']['ms']} ms"
        ],
    }


def _inputs(encoder: Any, pictures: int) -> dict[str, torch.Tensor]:
    device, config = machine.current.device, encoder.config
    one = [config.vision_start_token_id, *[config.image_token_id] * (PATCHES // 4)]
    tokens = torch.tensor([[*one * pictures, *range(WORDS)]], device=device)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": machine.random_tensor(PATCHES * pictures, PATCH_VALUES),
        "image_grid_thw": torch.tensor([[1, SIDE, SIDE]] * pictures, device=device),
    }
