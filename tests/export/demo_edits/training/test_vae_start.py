"""The VAE's start is what it says: principal components in, a picture out, before any training."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from export.demo_edits.pipeline import build_pipeline
from export.demo_edits.samples import Flow, draw_sample
from export.demo_edits.training import vae_start
from export.demo_edits.training.single_frame import single_frame
from export.demo_edits.training.vae import as_values
from export.scenes.edits import draw_scene

SIZE = 64


def scenes(first: int, count: int, size: int = SIZE) -> torch.Tensor:
    pictures = [draw_scene([11, first + index], size).picture for index in range(count)]
    return as_values(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def quality(vae: Any, pictures: torch.Tensor) -> float:
    """Mean PSNR of what comes back, in dB."""
    with torch.no_grad():
        latents = vae.encode(pictures[:, :, None]).latent_dist.mode()
        errors = (vae.decode(latents).sample[:, :, 0] - pictures).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / errors)).mean())


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_pipeline().vae
    with single_frame():
        vae_start.start(vae, scenes(0, 60), torch.Generator().manual_seed(0))
    return vae


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


def test_a_single_frame_costs_a_third_and_changes_nothing(vae: Any) -> None:
    pictures = scenes(1000, 2)[:, :, None]
    with torch.no_grad():
        whole = vae.encode(pictures).latent_dist.mode()
        decoded = vae.decode(whole).sample
        with single_frame():
            flat = vae.encode(pictures).latent_dist.mode()
            redecoded = vae.decode(flat).sample
    torch.testing.assert_close(flat, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(redecoded, decoded, atol=1e-4, rtol=1e-4)


def test_several_frames_are_refused(vae: Any) -> None:
    with single_frame(), pytest.raises(ValueError, match="more than one frame"):
        vae.quant_conv(torch.zeros(1, 32, 2, 8, 8))


def test_masks_and_black_areas_come_back_too(vae: Any) -> None:
    sample = draw_sample(Flow.REMOVAL, [11, 2000], SIZE)
    pictures = as_values(torch.from_numpy(np.stack(sample.conditions.images)).permute(0, 3, 1, 2))
    assert quality(vae, pictures) > 18
