"""Owns calling back between the layers of a pipeline's networks, while a unit of work runs."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from image_edit.engine.vae import PictureConv


def call_between_layers(pipeline: Any, on_layer: Callable[[], None]) -> None:
    """Have all networks call `on_layer` before each of their large layers.

    An error that it raises ends the network's call. No network keeps anything of such a call.

    Args:
        pipeline: QwenImageEditPlusPipeline, prepared by `before_adapters`; changed in place.
        on_layer: must be quick; a denoising step of Qwen-Image-Edit calls it 120 times.
    """
    transformer = pipeline.transformer
    # Not a hook, because a compiled block has its hooks compiled into it.
    transformer.transformer_blocks = _Called(transformer.transformer_blocks, on_layer)

    def before_layer(_layer: nn.Module, _args: Any) -> None:
        on_layer()

    text_encoder = pipeline.text_encoder.model
    layers = [*text_encoder.language_model.layers, *text_encoder.visual.blocks]
    layers += [part for part in pipeline.vae.modules() if isinstance(part, PictureConv)]
    for layer in layers:
        layer.register_forward_pre_hook(before_layer)


class _Called(nn.ModuleList):
    """A list of layers that calls back whenever the network that iterates over it takes one."""

    def __init__(self, layers: nn.ModuleList, on_layer: Callable[[], None]) -> None:
        super().__init__(layers)
        self._on_layer = on_layer

    def __iter__(self) -> Iterator[nn.Module]:
        for layer in super().__iter__():
            self._on_layer()
            yield layer
