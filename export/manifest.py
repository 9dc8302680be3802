"""Owns the manifest of a bundle: what is in the folder, with size and SHA-256 of every file."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.errors import ExportError

FORMAT = 1
MANIFEST = "manifest.json"
# Where a bundle for edits keeps its base.
PIPELINE = "pipeline"
# Task type -> LoRA file in a bundle for edits; clients and operators know both names.
ADAPTERS = {
    "insertion": "adapters/insertion_cp.safetensors",
    "removal": "adapters/removal_cp.safetensors",
    "white-balance": "adapters/wb_cp.safetensors",
}


class ManifestError(ExportError):
    """Why a folder is no intact bundle: missing, incomplete or altered. The text names the file."""


def write(
    bundle: Path, fields: dict[str, Any], on_file: Callable[[Path], None] = lambda _: None
) -> dict[str, Any]:
    """Write `manifest.json`, which lists every file that now lies in the folder.

    Args:
        bundle: the bundle folder, complete but for its manifest.
        fields: the manifest's own keys (name, base, pipeline, adapters, preview).
        on_file: called with each file before the file is hashed.

    Returns:
        The manifest.
    """
    files = {}
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            on_file(path)
            files[path.relative_to(bundle).as_posix()] = fingerprint(path)
    manifest = {"format": FORMAT, **fields, "files": files}
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def read(bundle: Path, *needed: str) -> dict[str, Any]:
    """Read a manifest without comparing the files that it lists.

    Args:
        bundle: the bundle folder.
        needed: keys that the manifest must have.

    Returns:
        The manifest.

    Raises:
        ManifestError: the manifest cannot be read, is no JSON object, or lacks a needed key.
    """
    path = bundle / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: {error!r}") from None
    if not isinstance(manifest, dict):
        raise ManifestError(f"{path}: is no JSON object")
    if missing := [key for key in needed if key not in manifest]:
        raise ManifestError(f"{path}: lacks {', '.join(missing)}")
    return manifest


def verify(bundle: Path, on_file: Callable[[Path], None] = lambda _: None) -> dict[str, Any]:
    """Read the manifest and compare every file that it lists, hash included.

    Args:
        bundle: the bundle folder.
        on_file: called with each file before the file is hashed.

    Returns:
        The manifest.

    Raises:
        ManifestError: the manifest cannot be read, has another format, or a file differs.
    """
    manifest = read(bundle, "format", "files")
    if manifest["format"] != FORMAT:
        raise ManifestError(f"{bundle / MANIFEST}: format {manifest['format']} is not {FORMAT}")
    for name, expected in manifest["files"].items():
        path = bundle / name
        if not path.is_file():
            raise ManifestError(f"{path}: missing")
        on_file(path)
        if fingerprint(path) != expected:
            raise ManifestError(f"{path}: differs from the manifest")
    return manifest


def refuse_other_content(bundle: Path) -> None:
    """Protect a folder that no command may replace.

    Raises:
        ManifestError: the folder holds something that is no bundle.
    """
    if bundle.exists() and any(bundle.iterdir()) and not (bundle / MANIFEST).exists():
        raise ManifestError(f"{bundle}: holds something that is no bundle")


def fingerprint(path: Path) -> dict[str, str | int]:
    """Return the SHA-256 and the size of a file, as a manifest lists them."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
