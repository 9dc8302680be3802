"""Owns the places of tokens: the text encoder's pictures, and how many places are kept."""

import functools
from typing import Any

# Of grids of tokens: four of one edit, the output's and three conditions', and of another that
# takes turns with it.
KEPT_GRIDS = 8


def mark_picture_tokens(text_encoder: Any) -> None:
    """Makes a Qwen2.5-VL text encoder count a picture's tokens by rows and columns.

    Since transformers 5 it does so (M-RoPE, Qwen2-VL, arXiv 2409.12191) only where it is given
    `mm_token_type_ids`, which diffusers' edit pipelines do not pass on: without them a picture of
    14 x 14 tokens moves all that follows by 196 places instead of 14, and Qwen has never seen
    that. See huggingface/diffusers issue 14194.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration; changed in place.
    """
    picture = text_encoder.config.image_token_id

    def mark(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        marks = (kwargs["input_ids"] == picture).int()
        return args, {"mm_token_type_ids": marks, **kwargs}

    text_encoder.register_forward_pre_hook(mark, with_kwargs=True)


def keep_few_places(transformer: Any) -> None:
    """Bounds what a Qwen image transformer keeps on the device of the places of tokens.

    diffusers keeps the places of 128 grids, of every size that ever was: 1.1 GB at worst.

    Args:
        transformer: QwenImageTransformer2DModel; changed in place.
    """
    rope = transformer.pos_embed
    # Below diffusers' own memory of them.
    compute = functools.partial(type(rope)._compute_video_freqs.__wrapped__, rope)
    rope._compute_video_freqs = functools.lru_cache(KEPT_GRIDS)(compute)
