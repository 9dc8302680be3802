"""Owns the trained demo bundle as a folder: float16 weights, adapters, manifest."""

import importlib.metadata
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from export import manifest
from export.demo_edits import bundle as demo_bundle
from export.demo_edits.training.recipe import Recipe, Trained
from export.demo_edits.training.single_frame import single_frame
from export.demo_edits.training.vae import as_values
from export.folders import replacing
from export.preview import fit_preview
from export.scenes import photographs
from export.scenes.edits import draw_scene

# Of the largest scenes that it is trained on.
IMAGE_AREA = 512 * 512
# Colours need fewer pixels: the detail is the photograph's own. On held-out scenes the angle to the
# true ones is 4.08° at this size and 3.99° at 512², in 0.4 of the time.
IMAGE_AREAS = {"white-balance": 384 * 384}

PACKAGES = ("torch", "diffusers", "peft", "numpy", "opencv-python-headless")
PREVIEW_SCENES, PREVIEW_SIZE = 16, 128


def release(trained: Trained, recipe: Recipe, bundle: Path) -> None:
    """Write the bundle and put it in place.

    Args:
        trained: what training left. Its pipeline is turned to float16.
        recipe: how the bundle was trained, for the manifest.
        bundle: the folder. A bundle that lies there is replaced.

    Raises:
        ManifestError: the folder holds something that is no bundle.
    """
    manifest.refuse_other_content(bundle)
    pipeline = trained.pipeline
    preview = _preview(pipeline.vae, recipe.seed)
    pipeline.to(dtype=torch.float16)
    with replacing(bundle) as folder:
        pipeline.save_pretrained(folder / manifest.PIPELINE)
        for task, file in manifest.ADAPTERS.items():
            path = folder / file
            pipeline.save_lora_weights(
                path.parent,
                transformer_lora_layers={
                    name: weight.half() for name, weight in trained.adapters[task].items()
                },
                weight_name=path.name,
            )
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes 0600, but the server may be another user
        parameters = sum(
            weight.numel()
            for model in (pipeline.transformer, pipeline.vae, pipeline.text_encoder)
            for weight in model.parameters()
        )
        manifest.write(
            folder,
            {
                "name": demo_bundle.NAME,
                "base": f"QwenImageEditPlusPipeline, {parameters / 1e6:.1f} M parameters,"
                " trained on drawn scenes by `python -m export demo-train`",
                "pipeline": manifest.PIPELINE,
                "adapters": {task: {"file": file} for task, file in manifest.ADAPTERS.items()},
                "image_area": IMAGE_AREA,
                "image_areas": IMAGE_AREAS,
                "preview": preview,
                "training": {
                    "recipe": asdict(recipe),
                    "minutes": {
                        phase: round(seconds / 60, 1) for phase, seconds in trained.seconds.items()
                    },
                    "photographs": [f"{package}/{path}" for package, path in photographs.TRAINING],
                    "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
                },
            },
        )


@torch.no_grad()
def _preview(vae: torch.nn.Module, seed: int) -> dict[str, list[float]]:
    scenes = [draw_scene([seed, 4, at], PREVIEW_SIZE).picture for at in range(PREVIEW_SCENES)]
    pictures = as_values(torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2))
    with single_frame():
        latents = vae.encode(pictures[:, :, None]).latent_dist.mode()  # type: ignore[operator]
        return fit_preview(vae, latents)
