"""Owns measuring the VAE of the full-size model, with random weights."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage

from benchmarks.gpu import machine
from export.qwen import published
from image_edit.engine.vae import keep_to_pictures, work_on_tiles


def _as_is(_vae: Any) -> None:
    pass


def _without_feature_cache(vae: Any) -> None:
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _, args, __: (args, {}), with_kwargs=True)


def _channels_last(vae: Any) -> None:
    keep_to_pictures(vae)
    vae.to(memory_format=torch.channels_last)


def _on_tiles(vae: Any) -> None:
    keep_to_pictures(vae)
    work_on_tiles(vae)


WAYS: dict[str, Callable[[Any], None]] = {
    "diffusers": _as_is,
    "no_feature_cache": _without_feature_cache,
    "served": keep_to_pictures,
    "channels_last": _channels_last,
    "tiles": _on_tiles,
}


def build() -> Any:
    """Build the VAE at the size of the run."""
    tiny = {"base_dim": 8}
    config = published.VAE | machine.current.scale.of({}, tiny)
    return machine.random_model(lambda: AutoencoderKLQwenImage(**config))


@torch.inference_mode()
def measure() -> dict[str, Any]:
    """Measure time and memory of encoding and decoding, by diffusers and as served."""
    found: dict[str, Any] = {}
    for name, change in WAYS.items():
        vae = build()
        change(vae)
        for side in machine.current.scale.of((1024, 2048), (32,)):
            picture = machine.random_tensor(1, 3, 1, side, side)
            latents = machine.random_tensor(1, 16, 1, side // 8, side // 8)
            work: dict[str, Callable[[], Any]] = {
                "encode": functools.partial(vae.encode, picture),
                "decode": functools.partial(vae.decode, latents),
            }
            for stage, run in work.items():
                with machine.peak() as peak:
                    elapsed = machine.milliseconds(run, warm_ups=1)
                found.setdefault(str(side), {}).setdefault(stage, {})[name] = {
                    "ms": round(elapsed, 1)
                } | {key: round(value, 2) for key, value in peak.items()}
    largest = list(found.values())[-1]
    return {
        "sides": found,
        "summary": [
            f"{stage} {ways['diffusers']['ms']} to {ways['served']['ms']} ms, "
            f"{ways['diffusers']['allocated']} to {ways['served']['allocated']} GiB"
            for stage, ways in largest.items()
        ],
    }
