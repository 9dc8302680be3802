"""Owns the positions of tokens: how both networks count them, keep them and turn by them."""

import functools
from typing import Any

import torch
from diffusers.models.transformers import transformer_qwenimage

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


def turn_in_real_numbers(transformer: Any) -> None:
    """Make a Qwen image transformer turn queries and keys (RoPE) without complex numbers.

    torch.compile generates no code for complex numbers, and would run diffusers' own turn as
    kernels of its own. Without compilation that turn is faster.

    Args:
        transformer: QwenImageTransformer2DModel; changed in place. diffusers' function is replaced
            for the whole process, and does what it did for every other transformer.
    """
    # Outside the blocks, because only these are compiled.
    transformer.pos_embed.register_forward_hook(_as_pairs)
    transformer_qwenimage.apply_rotary_emb_qwen = _turn


def _as_pairs(_rope: Any, _args: Any, places: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    return tuple(torch.view_as_real(each) for each in places)


_turn_in_complex_numbers = transformer_qwenimage.apply_rotary_emb_qwen


def _turn(vectors: torch.Tensor, places: Any, **options: Any) -> torch.Tensor:
    """Turn each pair of a vector's numbers by an angle.

    Args:
        vectors: [batch, tokens, heads, dim]
        places: cosine and sine of the angles, float32 [tokens, dim / 2, 2]; whatever else diffusers
            itself turns by is left to diffusers.
        options: diffusers' own.

    Returns:
        As `vectors`, and of their dtype.
    """
    if not isinstance(places, torch.Tensor) or places.is_complex():
        return _turn_in_complex_numbers(vectors, places, **options)  # type: ignore[no-any-return]
    cosine, sine = places.unsqueeze(1).unbind(-1)
    first, second = vectors.float().reshape(*vectors.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
    return turned.flatten(3).type_as(vectors)
