"""Owns the preview map: colours straight from latents, fitted to what a VAE decodes."""

from typing import Any

import torch
from torch.nn import functional


def synthetic_pictures(count: int, size: int) -> torch.Tensor:
    """Draw smooth colour fields with hard-edged blocks over them.

    Returns:
        float32 [count, 3, size, size] in 0..1, from torch's global generator.
    """
    fields = functional.interpolate(torch.rand(count, 3, 4, 4), size=size, mode="bilinear")
    blocks = functional.interpolate(torch.rand(count, 3, 16, 16), size=size, mode="nearest")
    covered = functional.interpolate(torch.rand(count, 1, 8, 8), size=size, mode="nearest") < 0.5
    return torch.where(covered, blocks, fields)


def fit_preview(vae: Any, latents: torch.Tensor) -> dict[str, list[Any]]:
    """Fit the linear map from normalised latents to the colours that the VAE decodes.

    Args:
        vae: the autoencoder; its latent statistics are set.
        latents: float32 [n, z_dim, 1, height, width], as the VAE encodes pictures.

    Returns:
        factors [z_dim][3] and bias [3]: colour = latent @ factors + bias, in 0..1.
    """
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    normalised = (latents[:, :, 0].permute(0, 2, 3, 1).reshape(-1, len(mean)) - mean) / std
    decoded = (vae.decode(latents).sample[:, :, 0] / 2 + 0.5).clamp(0, 1)
    colours = functional.avg_pool2d(decoded, kernel_size=8).permute(0, 2, 3, 1).reshape(-1, 3)
    design = torch.cat([normalised, torch.ones(len(normalised), 1)], dim=1)
    solution = torch.linalg.lstsq(design.double(), colours.double()).solution.tolist()
    *factors, bias = [[round(value, 4) for value in row] for row in solution]
    return {"factors": factors, "bias": bias}
