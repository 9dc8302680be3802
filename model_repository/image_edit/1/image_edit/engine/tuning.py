"""Owns applying a tuning to a pipeline: number types, attention, compilation, caching."""

from typing import Any

import torch
from diffusers import FirstBlockCacheConfig

from image_edit.engine.positions import keep_few_places, turn_in_real_numbers
from image_edit.engine.vae import keep_to_pictures, work_on_tiles
from image_edit.settings import Tuning

# Compute capability of the first GPUs that multiply 8-bit floats: Ada, and Hopper after it.
FLOAT8_CAPABILITY = (8, 9)
# Beside those that adapters bring; torch's own limit, past which it stops compiling.
SPARE_COMPILATIONS = 8


def torch_dtype(tuning: Tuning, device: str) -> torch.dtype:
    """Return the type of all weights that are not quantised.

    Args:
        tuning: its dtype "auto" means bfloat16 if the device computes that in hardware, else
            float32.
        device: as torch names it.
    """
    if tuning.dtype != "auto":
        return getattr(torch, tuning.dtype)  # type: ignore[no-any-return]
    able = torch.cpu.get_capabilities()
    emulated = torch.device(device).type == "cpu" and not (
        able.get("avx512_bf16") or able.get("amx_bf16")
    )
    return torch.float32 if emulated else torch.bfloat16


def refuse_unfit(tuning: Tuning, device: str) -> None:
    """Refuse a tuning that the device cannot run, or would run slower, before loading anything.

    Raises:
        ValueError: naming the parameter.
    """
    if tuning.quantization != "fp8" or torch.device(device).type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_CAPABILITY:
        raise ValueError(
            "parameter QUANTIZATION: fp8 needs a GPU of compute capability "
            f"{FLOAT8_CAPABILITY}, {device} has {capability}; int8 runs on any"
        )
    if not tuning.compile_blocks:
        raise ValueError(
            "parameter QUANTIZATION: fp8 is slower than bfloat16 unless COMPILE is true; "
            "int8 takes as little memory without"
        )


def before_adapters(pipeline: Any, tuning: Tuning) -> None:
    """Apply what a pipeline must have before adapters are attached.

    Args:
        pipeline: QwenImageEditPlusPipeline; changed in place.
        tuning: from config.pbtxt.

    Raises:
        ValueError: the installed packages lack the attention backend.
    """
    keep_few_places(pipeline.transformer)
    if tuning.compile_blocks:
        turn_in_real_numbers(pipeline.transformer)
    keep_to_pictures(pipeline.vae)
    if tuning.vae_tiling:
        work_on_tiles(pipeline.vae)
    if tuning.attention_backend != "native":
        try:
            pipeline.transformer.set_attention_backend(tuning.attention_backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"parameter ATTENTION_BACKEND: {error}") from None


def after_adapters(pipeline: Any, tuning: Tuning) -> None:
    """Apply what a pipeline can have only once it is on its device with all its adapters."""
    if tuning.compile_blocks:
        # Sizes differ from edit to edit, so one compilation must serve them all. With the step
        # cache, Python decides between the blocks, so one graph cannot hold them.
        fullgraph = tuning.step_cache == 0
        pipeline.transformer.compile_repeated_blocks(
            fullgraph=fullgraph,
            dynamic=True,
            # An argument, because a change of torch's configuration holds only in the thread
            # that makes it.
            recompile_limit=_most_compilations(pipeline.transformer),
        )
    if tuning.step_cache > 0:
        pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=tuning.step_cache))


def _most_compilations(transformer: Any) -> int:
    """Return how often torch may compile one block's code.

    It compiles again for other ranks, and every block may have its own in every adapter.
    """
    return len(transformer.transformer_blocks) * len(transformer.peft_config) + SPARE_COMPILATIONS
