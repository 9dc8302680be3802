"""Owns a QwenImageEditPlusPipeline of the demo's size, built from configurations alone.

Every class is the one that Qwen/Qwen-Image-Edit-2509 uses. Only the sizes differ:
2.5 M parameters in the transformer, 2.5 M in the VAE, 0.4 M in the text encoder.
"""

import re
from collections.abc import Sequence
from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from export.serving_code import mark_picture_tokens

TEXT_DIM = 64
Z_DIM = 16
# One vision token covers 28 x 28 pixels (patches of 14, merged 2 x 2). 4 x 4 tokens for a
# condition are enough to tell what the condition shows; the VAE latents carry the details.
VISION_TOKEN_PIXELS = 28 * 28
MAX_VISION_TOKENS = 16
# More than the tokenizer needs: its training ends once every word of its text is one token.
ENOUGH_TOKENS = 1000

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def build_pipeline(
    num_layers: int = 4, num_attention_heads: int = 4, prompts: Sequence[str] = ()
) -> Any:
    """Build the pipeline in float32 on the CPU; the weights come from torch's global generator.

    Args:
        num_layers: blocks of the transformer.
        num_attention_heads: attention heads of each block; each head has 32 channels.
        prompts: their words become tokens.

    Returns:
        A QwenImageEditPlusPipeline, in evaluation mode.
    """
    pipeline = QwenImageEditPlusPipeline(
        scheduler=_scheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=16,
            z_dim=Z_DIM,
            num_res_blocks=1,
            # Three spatial halvings as in the original, but no convolutions over time: the
            # only frame of a picture never reaches them.
            temperal_downsample=[False, False, False],
        ),
        text_encoder=None,
        tokenizer=None,
        processor=None,
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=4 * Z_DIM,
            out_channels=Z_DIM,
            num_layers=num_layers,
            num_attention_heads=num_attention_heads,
            attention_head_dim=32,
            axes_dims_rope=(8, 12, 12),
            joint_attention_dim=TEXT_DIM,
        ),
    )
    tokenizer = build_tokenizer(pipeline.prompt_template_encode, prompts)
    size = {
        "shortest_edge": VISION_TOKEN_PIXELS,
        "longest_edge": MAX_VISION_TOKENS * VISION_TOKEN_PIXELS,
    }
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
    )
    pipeline.register_modules(
        text_encoder=_text_encoder(tokenizer), tokenizer=tokenizer, processor=processor
    )
    mark_picture_tokens(pipeline.text_encoder)
    for model in (pipeline.vae, pipeline.text_encoder, pipeline.transformer):
        model.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_tokenizer(template: str, prompts: Sequence[str] = ()) -> Any:
    """Build a byte-level Qwen2Tokenizer that knows the words of the pipeline's template.

    The pipeline drops the first 64 hidden states: its system prompt is 64 tokens long in the
    original vocabulary, one token for each word. This small vocabulary has the same words, so the
    system prompt is 64 tokens long here too. Nothing of the system prompt is left over, and
    nothing of the user's prompt is lost. Other words become bytes and parts of known words.

    Args:
        template: the pipeline's `prompt_template_encode`.
        prompts: their words become tokens too.

    Returns:
        A Qwen2Tokenizer.
    """
    words = re.split("|".join(map(re.escape, SPECIAL_TOKENS)), template.replace("{}", ""))
    empty = Qwen2Tokenizer(additional_special_tokens=SPECIAL_TOKENS)
    return empty.train_new_from_iterator(
        [words, prompts], vocab_size=ENOUGH_TOKENS, show_progress=False
    )


def _text_encoder(tokenizer: Any) -> Any:
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_DIM,
            "intermediate_size": 4 * TEXT_DIM,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
            "max_position_embeddings": 4096,
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": TEXT_DIM,
            "intermediate_size": 4 * TEXT_DIM,
            "num_heads": 4,
            "out_hidden_size": TEXT_DIM,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _scheduler() -> Any:
    """Build the scheduler of Qwen-Image-Edit-2509 from its published scheduler_config.json."""
    return FlowMatchEulerDiscreteScheduler(
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
        time_shift_type="exponential",
    )
