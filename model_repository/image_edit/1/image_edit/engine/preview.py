"""Owns drawing latents as a small picture without the VAE, by a linear map from the bundle."""

from collections.abc import Sequence

import torch

from image_edit.conditions import Pixels


class PreviewMap:
    """Maps each position of the latents to a colour: latent @ factors + bias."""

    def __init__(self, factors: Sequence[Sequence[float]], bias: Sequence[float]) -> None:
        """Take the map from a bundle's manifest.

        Args:
            factors: [z_dim][3].
            bias: [3].
        """
        self._factors = torch.tensor(factors, dtype=torch.float32)
        self._bias = torch.tensor(bias, dtype=torch.float32)

    def render(self, latents: torch.Tensor) -> Pixels:
        """Draw latents at their own size, an eighth of the picture's.

        Args:
            latents: [z_dim, height, width], normalised, as the transformer sees them.

        Returns:
            RGB uint8 [height, width, 3].
        """
        colours = latents.float().cpu().movedim(0, -1) @ self._factors + self._bias
        pixels: Pixels = colours.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        return pixels
