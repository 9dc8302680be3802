"""Owns the positions of tokens: those of the text encoder's pictures, and how many are cached."""

import functools
from typing import Any

# An edit has four grids of tokens: the output's, and those of three condition images. Two edits
# may take turns.
KEPT_GRIDS = 8


def mark_picture_tokens(text_encoder: Any) -> None:
    """Make a Qwen2.5-VL text encoder count a picture's tokens by rows and columns.

    This is M-RoPE (Qwen2-VL, arXiv 2409.12191). Since transformers 5 it needs
    `mm_token_type_ids`, which diffusers' edit pipelines do not pass on. Without them a picture of
    14 x 14 tokens moves all tokens behind it by 196 positions instead of 14. Qwen was never
    trained on that. See huggingface/diffusers issue 14194.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration; changed in place.
    """
    picture = text_encoder.config.image_token_id

    def mark(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        marks = (kwargs["input_ids"] == picture).int()
        return args, {"mm_token_type_ids": marks, **kwargs}

    text_encoder.register_forward_pre_hook(mark, with_kwargs=True)


def keep_few_places(transformer: Any) -> None:
    """Bound the positions of tokens that a Qwen image transformer caches on the device.

    diffusers caches the positions of 128 grids, whatever their size: 1.1 GB at worst.

    Args:
        transformer: QwenImageTransformer2DModel; changed in place.
    """
    rope = transformer.pos_embed
    # The function itself, without diffusers' own cache around it.
    compute = functools.partial(type(rope)._compute_video_freqs.__wrapped__, rope)
    rope._compute_video_freqs = functools.lru_cache(KEPT_GRIDS)(compute)
