"""A small picture of latents, without the VAE: a linear map fitted when the bundle was built."""

import io
from collections.abc import Sequence

import torch
from PIL import Image

# Fast rather than small: a preview is looked at for the length of one step.
WEBP_METHOD = 0
WEBP_QUALITY = 75


class PreviewMap:
    """colour = latent @ factors + bias, for every position of the latents alone."""

    def __init__(self, factors: Sequence[Sequence[float]], bias: Sequence[float]) -> None:
        """Takes the map from a bundle's manifest.

        Args:
            factors: [z_dim][3].
            bias: [3].
        """
        self._factors = torch.tensor(factors, dtype=torch.float32)
        self._bias = torch.tensor(bias, dtype=torch.float32)

    def render(self, latents: torch.Tensor) -> bytes:
        """Draws latents as a WebP of their own size, an eighth of the picture's.

        Args:
            latents: normalised, as the transformer sees them, [z_dim, height, width].
        """
        colours = latents.float().cpu().movedim(0, -1) @ self._factors + self._bias
        pixels = colours.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
        return buffer.getvalue()
