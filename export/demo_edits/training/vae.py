"""Owns the training of the demo's VAE: a closed-form start, then its decoder by gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.demo_edits.samples import Flow, draw_sample
from export.demo_edits.training import vae_start
from export.demo_edits.training.fitting import FitPlan, Step, fit
from export.demo_edits.training.single_frame import single_frame
from export.scenes.edits import Pixels

CROP = 64
BATCH = 16
# Deviation of the noise on the latents in training; the transformer's answers are as noisy.
NOISE = 0.05
# How many pictures the closed-form start is computed from.
START_PICTURES = 250


def training_pictures(seed: int, samples: int, size: int, photographs: list[Pixels]) -> Tensor:
    """Draw what the VAE will see: truths and condition images of every flow.

    Args:
        seed: seed of the samples and their order.
        samples: how many samples to draw.
        size: side of the pictures, in pixels.
        photographs: RGB uint8 [height, width, 3] each.

    Returns:
        uint8 [n, 3, size, size], shuffled.
    """
    flows = list(Flow)
    drawn: list[Pixels] = []
    for index in range(samples):
        sample = draw_sample(flows[index % len(flows)], [seed, 1, index], size, photographs)
        drawn += [sample.truth, *sample.conditions.images]
    order = np.random.default_rng([seed, 2]).permutation(len(drawn))
    return torch.from_numpy(np.stack(drawn)[order]).permute(0, 3, 1, 2)


def train_vae(
    vae: Any,
    plan: FitPlan,
    pictures: Tensor,
    seed: int,
    checkpoint: Path,
    on_step: Callable[[Step], None],
) -> float:
    """Train the decoder in place; the encoder keeps the principal components of its start.

    Args:
        vae: an AutoencoderKLQwenImage as `build_pipeline` makes it.
        plan: how long and how fast.
        pictures: uint8 [n, 3, size, size] on the CPU, the size a multiple of 8, at least CROP.
        seed: seed of the batches and the noise.
        checkpoint: the file to continue from.
        on_step: called after every iteration.

    Returns:
        The seconds spent training.
    """
    device = vae.device
    with single_frame():
        vae_start.start(
            vae.cpu(),
            as_values(pictures[:START_PICTURES]),
            torch.Generator().manual_seed(seed),
        )
        vae.to(device)
        vae.requires_grad_(False)
        # Attention stays as it is: it would only see crops here, but later meets whole pictures.
        vae.decoder.requires_grad_(True).mid_block.attentions.requires_grad_(False)
        trained = {name: weight for name, weight in vae.named_parameters() if weight.requires_grad}
        positions = (pictures.shape[-1] - CROP) // vae_start.PATCH + 1

        def loss(iteration: int, fraction: float) -> Tensor:
            del fraction
            generator = torch.Generator().manual_seed(seed * 1_000_003 + iteration)
            chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
            top, left = (
                vae_start.PATCH * torch.randint(positions, (2,), generator=generator)
            ).tolist()
            crops = pictures[chosen, :, top : top + CROP, left : left + CROP]
            wanted = as_values(crops).to(device)[:, :, None]
            latents = vae.encode(wanted).latent_dist.mode()
            noise = torch.randn(latents.shape, generator=generator).to(device)
            drawn = vae.decoder(vae.post_quant_conv(latents + NOISE * noise))
            missed = drawn - wanted
            penalty: Tensor = missed.abs().mean() + 2 * missed.square().mean()
            return penalty

        seconds = fit(plan, trained, (), loss, checkpoint, on_step)
    vae.requires_grad_(False)
    # The start has already scaled each latent channel by how much it matters.
    channels = vae.config.z_dim
    vae.register_to_config(latents_mean=[0.0] * channels, latents_std=[1.0] * channels)
    return seconds


def as_values(pictures: Tensor) -> Tensor:
    """Turn uint8 0..255 into float32 -1..1, as the VAE takes pictures."""
    values: Tensor = pictures.float() / 127.5 - 1
    return values
