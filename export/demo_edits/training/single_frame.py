"""Owns running the demo's video autoencoder on pictures at a third of its cost."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor
from torch.nn import functional


@contextlib.contextmanager
def single_frame() -> Iterator[None]:
    """Compute causal convolutions as two-dimensional ones, which is the same for one frame.

    Nothing lies before the first frame. Only the last of a kernel's three slices in time meets
    values other than zero, so only this slice is multiplied and trained.
    """
    with mock.patch.object(QwenImageCausalConv3d, "forward", _last_slice):
        yield


def _last_slice(self: Any, frames: Tensor, cache_x: Tensor | None = None) -> Tensor:
    if frames.shape[2] != 1 or cache_x is not None:
        raise ValueError("more than one frame")
    weight = self.weight[:, :, -1]
    side = self._padding[0]
    return functional.conv2d(frames[:, :, 0], weight, self.bias, self.stride[1:], side)[:, :, None]
