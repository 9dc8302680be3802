"""The demo's weights: pipeline, preview map and adapters, all random and all from one seed.

Its pictures mean nothing, but every part works: prompt, conditions, guidance and adapter each
change the picture.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn import functional
from transformers.utils import logging as transformers_logging

from export.demo_pipeline import build_pipeline

SEED = 0
LORA_RANK = 8
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"]
# Sizes of the random weights relative to torch's own initialisation. With that alone, prompt and
# conditions move no pixel by more than 1/255: attention is nearly uniform over 1,000 tokens.
LINEAR_GAIN = 2.5
QUERY_KEY_GAIN = 2.0
DECODER_GAIN = 3.0
LORA_GAIN = 0.2


def write(
    pipeline_folder: Path, adapters: dict[str, Path], on_stage: Callable[[str], None]
) -> dict[str, list[Any]]:
    """Writes the pipeline and its adapters.

    Args:
        pipeline_folder: where diffusers saves the pipeline.
        adapters: adapter name -> safetensors file.
        on_stage: called with the name of each stage when it begins.

    Returns:
        The preview map, as `fit_preview` gives it.
    """
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        on_stage("pipeline")
        pipeline = build_pipeline()
        _amplify(pipeline)
        on_stage("preview map")
        pictures = synthetic_pictures(count=16, size=128)
        latents = pipeline.vae.encode(2 * pictures[:, :, None] - 1).latent_dist.mode()
        set_latent_statistics(pipeline.vae, latents)
        preview = fit_preview(pipeline.vae, latents)
        pipeline.save_pretrained(pipeline_folder)
        on_stage("adapters")
        for name, path in adapters.items():
            _save_random_adapter(pipeline, name, path)
    for path in (*pipeline_folder.rglob("*.safetensors"), *adapters.values()):
        path.chmod(0o644)  # safetensors writes 0600, but the server may run as another user
    return preview


def synthetic_pictures(count: int, size: int) -> torch.Tensor:
    """Draws smooth colour fields with hard-edged blocks over them.

    Returns:
        float32 [count, 3, size, size] in 0..1, from torch's global generator.
    """
    fields = functional.interpolate(torch.rand(count, 3, 4, 4), size=size, mode="bilinear")
    blocks = functional.interpolate(torch.rand(count, 3, 16, 16), size=size, mode="nearest")
    covered = functional.interpolate(torch.rand(count, 1, 8, 8), size=size, mode="nearest") < 0.5
    return torch.where(covered, blocks, fields)


def set_latent_statistics(vae: Any, latents: torch.Tensor) -> None:
    """Writes the mean and deviation of each latent channel into the VAE's config.

    Args:
        vae: the autoencoder whose `latents_mean` and `latents_std` are set.
        latents: float32 [n, z_dim, 1, height, width], as the VAE encodes pictures.
    """
    # Rounded, so that a last bit that differs between machines does not change the bundle.
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
    vae.register_to_config(
        latents_mean=[round(value, 4) for value in mean.tolist()],
        latents_std=[round(value, 4) for value in std.tolist()],
    )


def fit_preview(vae: Any, latents: torch.Tensor) -> dict[str, list[Any]]:
    """Fits the linear map from normalised latents to the colours that they decode to.

    Args:
        vae: the autoencoder, its latent statistics set.
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


def _amplify(pipeline: Any) -> None:
    for name, weight in pipeline.transformer.named_parameters():
        if weight.ndim == 2:
            weight.mul_(LINEAR_GAIN)
        elif name.endswith(("norm_q.weight", "norm_k.weight")) or "norm_added_" in name:
            weight.mul_(QUERY_KEY_GAIN)
    pipeline.vae.decoder.conv_out.weight.mul_(DECODER_GAIN)


def _save_random_adapter(pipeline: Any, name: str, path: Path) -> None:
    """Writes a LoRA whose product B A is about a third as large as the weights it changes."""
    transformer = pipeline.transformer
    config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=LORA_TARGETS)
    transformer.add_adapter(config, adapter_name=name)
    for key, weight in transformer.named_parameters():
        if f"lora_A.{name}." in key:
            weight.normal_(std=weight.shape[1] ** -0.5)
        elif f"lora_B.{name}." in key:
            weight.normal_(std=LORA_GAIN)
    pipeline.save_lora_weights(
        path.parent,
        transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=name),
        weight_name=path.name,
    )
    transformer.delete_adapters(name)
