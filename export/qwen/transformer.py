"""Owns the shapes of a QwenImageTransformer2DModel, found from its configuration alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel


def empty_transformer(config: Mapping[str, Any]) -> Any:
    """Build the transformer on the meta device, where weights have shapes and no memory.

    Args:
        config: the content of `transformer/config.json`.

    Returns:
        A QwenImageTransformer2DModel.
    """
    with torch.device("meta"):
        return QwenImageTransformer2DModel.from_config(dict(config))


def linear_shapes(transformer: Any) -> dict[str, tuple[int, int]]:
    """Return [out, in] of every linear layer, by the layer's name."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def read_config(pipeline: Path) -> dict[str, Any]:
    """Read the transformer's configuration out of a pipeline's folder."""
    path = pipeline / "transformer" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config
