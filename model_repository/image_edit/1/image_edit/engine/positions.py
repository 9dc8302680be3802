"""Tells the text encoder which tokens are pictures, without which their places are wrong."""

from typing import Any


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
