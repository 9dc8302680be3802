"""Compilation: one graph for each kind of block, of real numbers, also in the engine's thread."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from peft import LoraConfig
from torch._dynamo.testing import CompileCounter

from image_edit.engine.positions import turn_in_real_numbers
from image_edit.engine.tuning import SPARE_COMPILATIONS, after_adapters
from image_edit.settings import Tuning

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")

COMPILED = Tuning("float32", compile_blocks=True)
# torch's own limit, beyond which a block that must be one graph fails.
TORCH_LIMIT = 8
BLOCKS = 5
ADAPTERS = ("removal", "insertion")
# Sides in tokens, and words. 64 tokens would be taken for the width of the network.
LENGTHS = ((10, 7), (10, 11), (12, 7))


def transformer_of(blocks: int, **ranks: Callable[[int], int]) -> Any:
    """Return a small transformer with an adapter for each function of a block's number."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=blocks,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=48,
            axes_dims_rope=(8, 12, 12),
        ).eval()
        for name, rank in ranks.items():
            pattern = {rf"transformer_blocks\.{block}\..*": rank(block) for block in range(blocks)}
            transformer.add_adapter(
                LoraConfig(target_modules=["to_q"], rank_pattern=pattern, init_lora_weights=False),
                adapter_name=name,
            )
    return transformer


@torch.inference_mode()
def predicted(transformer: Any, adapter: str, side: int = 10, words: int = 7) -> torch.Tensor:
    """Return what a transformer predicts for a picture of side x side tokens."""
    transformer.set_adapter(adapter)
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = transformer(
        hidden_states=torch.randn(1, side * side, 64, generator=generator),
        encoder_hidden_states=torch.randn(1, words, 48, generator=generator),
        encoder_hidden_states_mask=None,
        timestep=torch.tensor([0.5]),
        img_shapes=[[(1, side, side)]],
        attention_kwargs={},
        return_dict=False,
    )[0]
    return found


class Graphs(CompileCounter):
    """Counts what torch hands to a compiler, and complex numbers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.complex_numbers = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        values = [node.meta.get("example_value") for node in graph.graph.nodes]
        self.complex_numbers += sum(
            value.is_complex() for value in values if isinstance(value, torch.Tensor)
        )
        return super().__call__(graph, inputs)


def compiled(transformer: Any, tuning: Tuning) -> Graphs:
    """Have a transformer compiled as a load does, in a thread that ends; return what counts."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs = Graphs()
    compile_blocks = functools.partial(transformer.compile_repeated_blocks, backend=graphs)
    transformer.compile_repeated_blocks = compile_blocks
    with ThreadPoolExecutor(1) as loader:
        loader.submit(after_adapters, SimpleNamespace(transformer=transformer), tuning).result()
    return graphs


@pytest.mark.slow
def test_the_engine_s_thread_compiles_every_block_of_every_adapter() -> None:
    transformer = transformer_of(
        BLOCKS, removal=lambda block: 2 + block, insertion=lambda b: 20 - b
    )
    graphs = compiled(transformer, COMPILED)
    with ThreadPoolExecutor(1) as engine:
        for name in ADAPTERS:
            engine.submit(predicted, transformer, name).result()
    assert graphs.frame_count == BLOCKS * len(ADAPTERS) > TORCH_LIMIT


def test_every_block_may_be_compiled_for_every_adapter() -> None:
    asked: list[dict[str, Any]] = []
    transformer = SimpleNamespace(
        transformer_blocks=range(60),
        peft_config=dict.fromkeys(("insertion", "removal", "white-balance")),
        compile_repeated_blocks=lambda **options: asked.append(options),
    )
    after_adapters(SimpleNamespace(transformer=transformer), COMPILED)
    assert asked[0]["recompile_limit"] == 60 * 3 + SPARE_COMPILATIONS
    # What torch takes in all, whatever a block may take.
    assert asked[0]["recompile_limit"] < torch._dynamo.config.accumulated_recompile_limit


def test_an_adapter_is_one_graph_of_real_numbers_at_every_length() -> None:
    transformer = transformer_of(3, removal=lambda _: 4, insertion=lambda _: 8)
    edits = [(name, *length) for name in ADAPTERS for length in LENGTHS]
    expected = [predicted(transformer, *edit) for edit in edits]
    turn_in_real_numbers(transformer)
    graphs = compiled(transformer, COMPILED)
    for edit, wanted in zip(edits, expected, strict=True):
        assert (predicted(transformer, *edit) - wanted).abs().max() < 1e-5
    assert graphs.frame_count == len(ADAPTERS)
    assert graphs.complex_numbers == 0
    assert not torch._dynamo.utils.counters["graph_break"]


def test_diffusers_own_turn_would_bring_complex_numbers() -> None:
    transformer = transformer_of(1, removal=lambda _: 4)
    graphs = compiled(transformer, COMPILED)
    predicted(transformer, "removal")
    assert graphs.complex_numbers > 0
