"""The manifest of a bundle: what is in the folder, with the size and SHA-256 of every file."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.errors import ExportError

FORMAT = 1
MANIFEST = "manifest.json"


class BundleError(ExportError):
    """A bundle folder that is missing, incomplete or altered; the text names the file."""


def write(
    bundle: Path, fields: dict[str, Any], on_file: Callable[[Path], None] = lambda _: None
) -> None:
    """Writes `manifest.json`, listing every file that now lies in the folder.

    Args:
        bundle: the bundle folder, complete but for its manifest.
        fields: the manifest's own keys (name, base, pipeline, adapters, preview).
        on_file: called with each file before it is hashed.
    """
    files = {}
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            on_file(path)
            files[path.relative_to(bundle).as_posix()] = fingerprint(path)
    manifest = {"format": FORMAT, **fields, "files": files}
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def verify(bundle: Path, on_file: Callable[[Path], None] = lambda _: None) -> dict[str, Any]:
    """Reads the manifest and compares every file it lists, hash included.

    Args:
        bundle: the bundle folder.
        on_file: called with each file before it is hashed.

    Returns:
        The manifest.

    Raises:
        BundleError: the manifest cannot be read, has another format, or a file differs.
    """
    try:
        manifest: dict[str, Any] = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        found, files = manifest["format"], manifest["files"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{bundle / MANIFEST}: {error!r}") from None
    if found != FORMAT:
        raise BundleError(f"{bundle / MANIFEST}: format {found} is not {FORMAT}")
    for name, expected in files.items():
        path = bundle / name
        if not path.is_file():
            raise BundleError(f"{path}: missing")
        on_file(path)
        if fingerprint(path) != expected:
            raise BundleError(f"{path}: differs from the manifest")
    return manifest


def fingerprint(path: Path) -> dict[str, str | int]:
    """Gives the SHA-256 and the size of a file, as the manifest lists them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}
