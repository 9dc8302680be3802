"""The VAE's start is what it says: principal components in, a picture out, before any training."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from export.demo_edits.samples import Flow, draw_sample
from export.demo_edits.training import vae_start
from export.demo_edits.training.vae import as_values

from .scenes import SIZE, scenes


def quality(vae: Any, pictures: torch.Tensor) -> float:
    """Mean PSNR of what comes back, in dB."""
    with torch.no_grad():
        latents = vae.encode(pictures[:, :, None]).latent_dist.mode()
        errors = (vae.decode(latents).sample[:, :, 0] - pictures).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / errors)).mean())


def test_pictures_come_back_before_any_training(vae: Any) -> None:
    assert quality(vae, scenes(1000, 8)) > 26
    assert quality(vae, scenes(1000, 4, size=128)) > 26


def test_the_encoder_computes_the_principal_components(vae: Any) -> None:
    components, mean = vae_start.principal_components(scenes(0, 60), vae.config.z_dim)
    pictures = scenes(1000, 4)
    offset = -(components * mean).sum(dim=(1, 2, 3))
    expected = functional.conv2d(pictures, components, offset, stride=8)
    with torch.no_grad():
        latents = vae.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0]
    assert (latents - expected).abs().max() < 0.02


def test_components_are_ordered_and_the_first_has_deviation_1(vae: Any) -> None:
    with torch.no_grad():
        latents = vae.encode(scenes(0, 60)[:, :, None]).latent_dist.mode()
    deviations = latents.std(dim=(0, 2, 3, 4))
    assert deviations[0] == pytest.approx(1, abs=0.02)
    assert (deviations[1:] < deviations[:-1] + 0.01).all()
    assert deviations[-1] > 0.05


def test_masks_and_black_areas_come_back_too(vae: Any) -> None:
    sample = draw_sample(Flow.REMOVAL, [11, 2000], SIZE)
    pictures = as_values(torch.from_numpy(np.stack(sample.conditions.images)).permute(0, 3, 1, 2))
    assert quality(vae, pictures) > 18
