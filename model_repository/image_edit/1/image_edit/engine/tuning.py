"""Applies a tuning to a pipeline: number types, attention, compilation, caching."""

from typing import Any

import torch
from diffusers import FirstBlockCacheConfig

from image_edit.engine.quantised import quantise
from image_edit.engine.vae import keep_to_pictures, work_on_tiles
from image_edit.settings import Tuning

# Of one block's code: torch's own limit is 8, beyond which it gives up.
MAX_COMPILATIONS = 64


def torch_dtype(tuning: Tuning, device: str) -> torch.dtype:
    """The type of all weights that are not quantised.

    Args:
        tuning: its dtype "auto" is bfloat16 where the device computes that in hardware.
        device: as torch names it.
    """
    if tuning.dtype != "auto":
        return getattr(torch, tuning.dtype)  # type: ignore[no-any-return]
    able = torch.cpu.get_capabilities()
    emulated = torch.device(device).type == "cpu" and not (
        able.get("avx512_bf16") or able.get("amx_bf16")
    )
    return torch.float32 if emulated else torch.bfloat16


def before_adapters(pipeline: Any, tuning: Tuning, device: str) -> None:
    """Applies what a pipeline must have before adapters are attached.

    Args:
        pipeline: QwenImageEditPlusPipeline; on the CPU where it is to be quantised.
        tuning: from config.pbtxt.
        device: as torch names it.

    Raises:
        ValueError: the device, or what is installed, lacks what is asked for.
    """
    if tuning.quantization != "none":
        quantise(pipeline.transformer, tuning.quantization, device)
        quantise(pipeline.text_encoder, tuning.quantization, device)
    keep_to_pictures(pipeline.vae)
    if tuning.vae_tiling:
        work_on_tiles(pipeline.vae)
    if tuning.attention_backend != "native":
        try:
            pipeline.transformer.set_attention_backend(tuning.attention_backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"parameter ATTENTION_BACKEND: {error}") from None


def after_adapters(pipeline: Any, tuning: Tuning) -> None:
    """Applies what a pipeline can have only when it is on its device with all its adapters."""
    if tuning.compile_blocks:
        # Each layer's adapters may have ranks of their own, which are compiled for.
        torch._dynamo.config.recompile_limit = MAX_COMPILATIONS
        # Sizes differ from edit to edit; one compilation is to serve them all. The step cache
        # decides between the blocks, where no graph may go on.
        fullgraph = tuning.step_cache == 0
        pipeline.transformer.compile_repeated_blocks(fullgraph=fullgraph, dynamic=True)
    if tuning.step_cache > 0:
        pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=tuning.step_cache))
