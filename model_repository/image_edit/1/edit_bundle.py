"""Loads a bundle: a diffusers pipeline, one adapter per task, and the manifest that lists them."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImageEditPlusPipeline

from edit_int8 import quantise
from edit_preview import PreviewMap

FORMAT = 1
MANIFEST = "manifest.json"
# Larger files are only measured: hashing the 40 GB of a full pipeline would take minutes of
# every start, and export has compared them when it built the bundle.
MAX_HASHED_BYTES = 64 * 2**20


class BundleError(Exception):
    """A bundle that is missing, incomplete or altered; the text names the file."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle, resident on its device."""

    name: str
    pipeline: Any
    """QwenImageEditPlusPipeline; each adapter is loaded under the name of its task type."""
    adapters: tuple[str, ...]
    """Task types."""
    preview: PreviewMap


def load_bundle(
    folder: Path, dtype: str, device: str, *, int8: bool = False, vae_tiling: bool = False
) -> Bundle:
    """Checks the files and loads the pipeline with all its adapters.

    Args:
        folder: the bundle.
        dtype: of all weights, as torch names it.
        device: as torch names it.
        int8: keeps the linear layers of transformer and text encoder in 8 bits, which halves
            what they take of the device; they compute in `dtype`, and so do the adapters.
        vae_tiling: has the VAE encode and decode tile by tile, which takes little memory at any
            size; blended seams change the picture slightly.

    Raises:
        BundleError: the manifest or a file is missing or differs.
    """
    manifest = read_manifest(folder)
    pipeline = QwenImageEditPlusPipeline.from_pretrained(
        folder / manifest["pipeline"], dtype=getattr(torch, dtype), local_files_only=True
    )
    if int8:
        quantise(pipeline.transformer, device)
        quantise(pipeline.text_encoder, device)
    if vae_tiling:
        pipeline.vae.enable_tiling()
    adapters: dict[str, dict[str, Any]] = manifest["adapters"]
    if not adapters:
        raise BundleError(f"{folder / MANIFEST}: lists no adapter")
    with warnings.catch_warnings():
        # peft warns of every adapter after the first; several are the point here.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        for task_type, adapter in adapters.items():
            path = folder / adapter["file"]
            pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=task_type)
    # Adapters take their type from the weights they lie beside, but not from those in 8 bits.
    pipeline.transformer.to(getattr(torch, dtype))
    pipeline.to(device)
    return Bundle(
        name=manifest["name"],
        pipeline=pipeline,
        adapters=tuple(adapters),
        preview=PreviewMap(**manifest["preview"]),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest and compares every file that it lists.

    Raises:
        BundleError: it cannot be read, has another format, or a file is missing or differs.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from None
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{path}: format {manifest.get('format')} is not {FORMAT}")
    for name, expected in manifest["files"].items():
        _compare(folder / name, expected["bytes"], expected["sha256"])
    return manifest


def _compare(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing")
    if path.stat().st_size != size:
        raise BundleError(f"{path}: {path.stat().st_size} bytes, not {size}")
    if size > MAX_HASHED_BYTES:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise BundleError(f"{path}: differs from the manifest")
