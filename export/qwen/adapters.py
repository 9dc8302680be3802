"""Owns checking that a LoRA file fits the transformer, before anything is served."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from diffusers import QwenImageEditPlusPipeline

from export.errors import ExportError

_PREFIX = "transformer."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Adapter:
    """What a LoRA changes."""

    ranks: tuple[int, ...]
    """Ranks of the layers, each once, ascending."""
    layers: int
    """How many layers of the transformer the LoRA changes."""
    kinds: int
    """How many kinds of block the LoRA makes of the transformer's; each kind is compiled once."""


def inspect(path: Path, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """Compare a LoRA with the transformer that is to carry it.

    Args:
        path: a safetensors file in any of the formats that diffusers reads for Qwen-Image.
        shapes: [out, in] of the transformer's linear layers, by name.

    Returns:
        What the LoRA changes.

    Raises:
        ExportError: the file is no LoRA or is a DoRA, or a layer is unknown, has another shape or
            lacks one of its two matrices. The text names the layer.
    """
    weights = _read(path)
    layers = {_layer(path, key) for key in weights}
    if not layers:
        raise ExportError(f"{path}: holds no LoRA")
    ranks = {layer: _rank(path, layer, weights, shapes) for layer in layers}
    return Adapter(tuple(sorted({*ranks.values()})), len(layers), _kinds(ranks, shapes))


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        # Other formats are pickles, and opening a pickle runs code.
        raise ExportError(f"{path}: not a safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
        # diffusers' own reader: what passes here is what the server will load.
        weights: dict[str, torch.Tensor] = QwenImageEditPlusPipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, local_files_only=True
        )
    except Exception as error:
        # diffusers may raise anything that the parsing of the file meets.
        raise ExportError(f"{path}: diffusers cannot read it as a LoRA: {error}") from error
    if dora := next((name for name in names if "dora_scale" in name), None):
        raise ExportError(f"{path}: a DoRA; diffusers would ignore {dora}")
    return weights


def _layer(path: Path, key: str) -> str:
    """Return the transformer's layer that a weight belongs to."""
    layer = key.removeprefix(_PREFIX).removesuffix(_DOWN).removesuffix(_UP)
    if not key.startswith(_PREFIX) or not key.endswith((_DOWN, _UP)):
        raise ExportError(f"{path}: {key} is no LoRA weight of the transformer")
    return layer


def _rank(
    path: Path,
    layer: str,
    weights: Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, int]],
) -> int:
    if layer not in shapes:
        raise ExportError(f"{path}: the base has no layer {layer}")
    down, up = (weights.get(f"{_PREFIX}{layer}{end}") for end in (_DOWN, _UP))
    if down is None or up is None:
        raise ExportError(f"{path}: {layer} lacks one of its two matrices")
    rank = down.shape[0]
    rows, columns = shapes[layer]
    if (tuple(down.shape), tuple(up.shape)) != ((rank, columns), (rows, rank)):
        raise ExportError(
            f"{path}: {layer} is {list(up.shape)} times {list(down.shape)}, but the base's is"
            f" {[rows, columns]}"
        )
    return rank


def _kinds(ranks: Mapping[str, int], shapes: Mapping[str, tuple[int, int]]) -> int:
    """Count the blocks that differ in which layers a LoRA changes, or by which rank."""
    blocks: dict[str, set[tuple[str, int]]] = {}
    for layer in shapes:
        if found := _BLOCK.match(layer):
            changed = {(found[2], ranks[layer])} if layer in ranks else set()
            blocks.setdefault(found[1], set()).update(changed)
    return len({frozenset(changed) for changed in blocks.values()})
