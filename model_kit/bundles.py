"""Owns reading a bundle's manifest and comparing the files that it lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
# Larger files are only measured. Hashing the 40 GB of a full pipeline would delay every start by
# minutes, and export has compared them when it built the bundle.
MAX_HASHED_BYTES = 64 * 2**20


class BundleError(Exception):
    """A bundle is missing, incomplete or altered; the text names the file."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a bundle's manifest.

    Raises:
        BundleError: it cannot be read, or is no JSON object.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from None
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: not a JSON object")
    return manifest


def read_checked_manifest(folder: Path) -> dict[str, Any]:
    """Read a bundle's manifest and compare every file that it lists.

    Raises:
        BundleError: the manifest cannot be read or has another format, or a file is missing or
            differs.
    """
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{folder / MANIFEST}: format {manifest.get('format')} is not {FORMAT}")
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
