"""Owns loading a bundle: a manifest, a diffusers pipeline, and the adapters of each task."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration

from image_edit.engine.device import leave_memory_to_others
from image_edit.engine.layers import call_between_layers
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.preview import PreviewMap
from image_edit.engine.quantised import Rounding, quantise
from image_edit.engine.text_encoder import drop_word_head, remember_last_pictures
from image_edit.engine.tuning import after_adapters, before_adapters, refuse_unfit, torch_dtype
from image_edit.settings import Tuning
from model_kit.bundles import MANIFEST, BundleError, read_checked_manifest

# Qwen-Image-Edit-2509's. Older bundles of it have no such key in their manifest.
QWEN_IMAGE_AREA = 1024 * 1024
LARGE_PARTS = {
    "text_encoder": Qwen2_5_VLForConditionalGeneration,
    "transformer": QwenImageTransformer2DModel,
}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle, resident on its device."""

    name: str
    pipeline: Any
    """QwenImageEditPlusPipeline, all adapters loaded."""
    adapters: dict[str, tuple[str, ...]]
    """Task type -> names of the adapters in the pipeline that serve it together."""
    preview: PreviewMap
    image_area: int
    """Pixels of the pictures that the model was made for."""
    image_areas: dict[str, int]
    """Of the task types that need fewer: pixels, by task type."""


def load_bundle(
    folder: Path,
    tuning: Tuning,
    device: str,
    on_stage: Callable[[str], None] = lambda _: None,
    on_layer: Callable[[], None] = lambda: None,
) -> Bundle:
    """Check the files and load the pipeline with all its adapters.

    Args:
        folder: the bundle.
        tuning: how to store and run it.
        device: as torch names it.
        on_stage: called with the name of each stage as it begins.
        on_layer: called between the layers of all networks, whenever they compute; an error that
            it raises ends the computation.

    Raises:
        BundleError: the manifest or a file is missing, or a file is not the manifest's.
        ValueError: the device or the installed packages cannot do what the tuning asks for.
    """
    refuse_unfit(tuning, device)
    leave_memory_to_others(torch.device(device))
    on_stage("checking the bundle")
    manifest = read_checked_manifest(folder)
    dtype = torch_dtype(tuning, device)
    source = folder / manifest["pipeline"]
    parts = {}
    # One by one, because each takes minutes and the load reports its stages.
    for part, kind in LARGE_PARTS.items():
        on_stage(f"loading the {part.replace('_', ' ')}")
        loaded = kind.from_pretrained(
            source / part,
            dtype=dtype,
            local_files_only=True,
            # Straight to the device, unless quantising makes the weights smaller first.
            device_map=torch.device(device) if tuning.quantization == "none" else None,
        )
        if part == "text_encoder":
            mark_picture_tokens(loaded)
            drop_word_head(loaded)
            remember_last_pictures(loaded)
        if tuning.quantization != "none":
            # Before the next part is loaded, so that host memory never holds two in full.
            on_stage(f"quantising the {part.replace('_', ' ')} to {tuning.quantization}")
            roundings = quantise(loaded, tuning.quantization, device)
            loaded.to(device)
            on_stage(_summary(part, roundings))
        parts[part] = loaded
    on_stage("loading the rest of the pipeline")
    pipeline = QwenImageEditPlusPipeline.from_pretrained(
        source, dtype=dtype, local_files_only=True, **parts
    )
    before_adapters(pipeline, tuning)
    adapters: dict[str, dict[str, str]] = manifest["adapters"]
    if not adapters:
        raise BundleError(f"{folder / MANIFEST}: lists no adapter")
    used = {task_type: _named(task_type, adapter) for task_type, adapter in adapters.items()}
    with warnings.catch_warnings():
        # peft warns of every adapter after the first, but a bundle needs several.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        for name, file in {name: each[name] for each in used.values() for name in each}.items():
            on_stage(f"loading {file}")
            path = folder / file
            pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    # Adapters get the type of the weights they attach to, but not where these have 8 bits.
    pipeline.transformer.to(dtype)
    pipeline.to(device)
    after_adapters(pipeline, tuning)
    call_between_layers(pipeline, on_layer)
    return Bundle(
        name=manifest["name"],
        pipeline=pipeline,
        adapters={task_type: tuple(named) for task_type, named in used.items()},
        preview=PreviewMap(**manifest["preview"]),
        image_area=manifest.get("image_area", QWEN_IMAGE_AREA),
        image_areas=manifest.get("image_areas", {}),
    )


def _summary(part: str, roundings: list[Rounding]) -> str:
    """Say how many layers have 8 bits, and which have not because they would lose too much."""
    lost = sorted((each for each in roundings if each.kept), key=lambda each: each.decibels)
    kept = ", ".join(f"{each.name} ({each.decibels:.1f} dB)" for each in lost)
    count = (
        f"{len(roundings) - len(lost)} of {len(roundings)} layers of the {part.replace('_', ' ')}"
    )
    return f"{count} have 8 bits" + (f"; not {kept}" if kept else "")


def _named(task_type: str, adapter: dict[str, str]) -> dict[str, str]:
    """Return name in the pipeline -> file, for the task's adapter and its Lightning adapter.

    A Lightning adapter makes a few steps enough; a task may have none.
    """
    named = {task_type: adapter["file"]}
    if second := adapter.get("lightning"):
        # Named by its file, because several tasks may use the same; peft allows no dots.
        named[Path(second).stem.replace(".", "-")] = second
    return named
