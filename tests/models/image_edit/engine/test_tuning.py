"""Compilation for adapters whose ranks differ, in another thread than the one that loaded."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from peft import LoraConfig
from torch._dynamo.testing import CompileCounter

from image_edit.engine.tuning import after_adapters
from image_edit.settings import Tuning

# torch's own limit, beyond which a block that must be one graph fails.
TORCH_LIMIT = 8
BLOCKS = TORCH_LIMIT + 2


def transformer_with_a_rank_for_each_block() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=BLOCKS,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=48,
            axes_dims_rope=(8, 12, 12),
        ).eval()
        ranks = {rf"transformer_blocks\.{block}\..*": 2 + block for block in range(BLOCKS)}
        transformer.add_adapter(
            LoraConfig(r=2, target_modules=["to_q"], rank_pattern=ranks, init_lora_weights=False),
            adapter_name="removal",
        )
    return transformer


@torch.inference_mode()
def step(transformer: Any) -> None:
    transformer(
        hidden_states=torch.zeros(1, 64, 64),
        encoder_hidden_states=torch.zeros(1, 7, 48),
        encoder_hidden_states_mask=None,
        timestep=torch.tensor([0.5]),
        img_shapes=[[(1, 8, 8)]],
        attention_kwargs={},
        return_dict=False,
    )


def test_the_engine_s_thread_may_compile_as_often_as_the_loader_s() -> None:
    torch._dynamo.reset()
    transformer = transformer_with_a_rank_for_each_block()
    counter = CompileCounter()
    transformer.compile_repeated_blocks = functools.partial(
        transformer.compile_repeated_blocks, backend=counter
    )
    pipeline = SimpleNamespace(transformer=transformer)
    with ThreadPoolExecutor(1) as loader:
        loader.submit(after_adapters, pipeline, Tuning("float32", compile_blocks=True)).result()
    with ThreadPoolExecutor(1) as engine:
        engine.submit(step, transformer).result()
    assert counter.frame_count == BLOCKS
