"""A LoRA that does not fit the transformer is refused, and the text names the layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.errors import ExportError
from export.qwen import adapters as qwen_adapters
from export.qwen.transformer import empty_transformer, linear_shapes, read_config

LAYER = "transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def shapes(demo: Path) -> dict[str, tuple[int, int]]:
    return linear_shapes(empty_transformer(read_config(demo / "pipeline")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({f"transformer.{LAYER}.lora_A.weight": None}, "lacks one of its two matrices"),
        ({f"transformer.{LAYER}.lora_A.weight": [16, 64]}, "but the base's is"),
        ({f"transformer.{LAYER}.lora_B.weight": [256, 4]}, "but the base's is"),
        (
            {
                "transformer.transformer_blocks.59.attn.to_q.lora_A.weight": [16, 256],
                "transformer.transformer_blocks.59.attn.to_q.lora_B.weight": [256, 16],
            },
            "the base has no layer transformer_blocks.59.attn.to_q",
        ),
        ({"text_encoder.q.lora_A.weight": [8, 64]}, "no LoRA weight of the transformer"),
        (
            {f"transformer.{LAYER}.dora_scale": [256, 1]},
            "a DoRA; .*ignore transformer.*dora_scale",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    demo: Path,
    shapes: dict[str, tuple[int, int]],
    tmp_path: Path,
    change: dict[str, Any],
    expected: str,
) -> None:
    weights = load_file(demo / "adapters" / "removal_cp.safetensors")
    for key, shape in change.items():
        if shape is None:
            del weights[key]
        else:
            weights[key] = torch.zeros(shape)
    path = tmp_path / "adapter.safetensors"
    save_file(weights, path)
    with pytest.raises(ExportError, match=expected):
        qwen_adapters.inspect(path, shapes)


def test_no_pickle_is_opened(shapes: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "adapter.pt"
    torch.save({}, path)
    with pytest.raises(ExportError, match="not a safetensors file"):
        qwen_adapters.inspect(path, shapes)


@pytest.mark.parametrize(
    ("ranks", "kinds"),
    [
        ({0: 4}, 2),  # the other blocks have none
        (dict.fromkeys(range(6), 4), 1),
        ({block: 4 + block // 2 for block in range(6)}, 3),
        ({0: 4, 5: 8}, 3),
    ],
)
def test_the_kinds_of_block_that_an_adapter_makes_are_counted(
    tmp_path: Path, ranks: dict[int, int], kinds: int
) -> None:
    shapes = {
        f"transformer_blocks.{block}.attn.{name}": (48, 32)
        for block in range(6)
        for name in ("to_q", "to_k")
    } | {"img_in": (32, 64)}
    weights = {}
    for block, rank in ranks.items():
        layer = f"transformer_blocks.{block}.attn.to_q"
        weights[f"transformer.{layer}.lora_A.weight"] = torch.zeros(rank, 32)
        weights[f"transformer.{layer}.lora_B.weight"] = torch.zeros(48, rank)
    path = tmp_path / "adapter.safetensors"
    save_file(weights, path)
    found = qwen_adapters.inspect(path, shapes)
    assert (found.ranks, found.layers) == (tuple(sorted({*ranks.values()})), len(ranks))
    assert found.kinds == kinds
