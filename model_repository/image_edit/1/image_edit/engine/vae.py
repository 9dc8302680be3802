"""Owns running the video autoencoder on single pictures, at a third of the cost."""

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor, nn

# Pixels of a tile's side where the VAE works on tiles, and of the distance between two tiles.
# Large tiles have few seams, and keep a GPU busier than diffusers' own of 256.
TILE = 1024
TILE_DISTANCE = 768


class PictureConv(nn.Conv2d):
    """The part of a causal convolution that a video's first frame needs: the last kernel slice.

    No frame comes before the first, so the other slices would multiply zeros.
    """

    def __init__(self, conv: QwenImageCausalConv3d) -> None:
        """Take over the last of a convolution's three slices in time."""
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[1:],
            conv.stride[1:],
            padding=(conv._padding[2], conv._padding[0]),
            bias=False,
            device="meta",
        )
        # A copy, so that the other slices are freed.
        last = conv.weight.detach()[:, :, -1].clone()
        self.weight = nn.Parameter(last, requires_grad=False)
        self.bias = conv.bias

    def forward(self, frames: Tensor, cache: None = None) -> Tensor:
        """Turn [n, in, 1, height, width] into [n, out, 1, height, width].

        Raises:
            ValueError: there is more than one frame.
        """
        if frames.shape[2] != 1 or cache is not None:
            raise ValueError("more than one frame")
        return super().forward(frames[:, :, 0])[:, :, None]


def keep_to_pictures(vae: Any) -> None:
    """Make a VAE encode and decode single pictures only, with less memory and arithmetic.

    For every convolution the VAE keeps the input of the last frame for the next frame. A picture
    has no next frame, so the result is the same, bit for bit, without these copies. The
    two-dimensional convolutions then change the result by rounding only.

    Args:
        vae: AutoencoderKLQwenImage; changed in place, so that it can no longer be saved.
    """
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(_drop_feature_cache, with_kwargs=True)
    convs = [name for name, part in vae.named_modules() if isinstance(part, QwenImageCausalConv3d)]
    for name in convs:
        parent, _, attribute = name.rpartition(".")
        # A `time_conv` joins frames, so a single picture never passes through it.
        replacement = (
            nn.Identity() if attribute == "time_conv" else PictureConv(vae.get_submodule(name))
        )
        setattr(vae.get_submodule(parent), attribute, replacement)


def work_on_tiles(vae: Any) -> None:
    """Make a VAE encode and decode pictures larger than a tile in overlapping tiles."""
    vae.enable_tiling(TILE, TILE, TILE_DISTANCE, TILE_DISTANCE)


def _drop_feature_cache(
    _part: nn.Module, args: tuple[Any, ...], _kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {}
