"""Owns what comes from the Hugging Face hub, or from the hub's cache without a network."""

import os
import re
import shutil
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from export.errors import ExportError

BASE = "Qwen/Qwen-Image-Edit-2509"
# The commit whose configurations `export.qwen.published` holds.
REVISION = "d3968ef930e841f4c73640fb8afa3b306a78167e"
# The files of a diffusers pipeline; pictures and readme files are not downloaded.
PATTERNS = [
    "model_index.json",
    *(f"*/*.{kind}" for kind in ("json", "safetensors", "txt", "jinja")),
]
_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^@]+)(@(?P<revision>.+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch_pipeline(repository: str, revision: str) -> Path:
    """Download a pipeline into the hub's cache, or continue a broken download.

    HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are respected. The hub's client shows its own bars.

    Args:
        repository: owner/name.
        revision: a commit.

    Returns:
        The folder in the cache. Its files are links to the cache's blobs.

    Raises:
        ExportError: the download failed; the text says whether the hub cannot be reached.
    """
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=PATTERNS)
    except Exception as error:  # errors of the hub, HTTP and hf_xet share no base
        raise ExportError(_reason(f"{repository} at {revision}", error)) from error
    return Path(folder)


def fetch_file(source: str) -> Path:
    """Find a file, on this machine or on the hub.

    Args:
        source: a path, or `owner/name:file`; `@revision` after it asks for an older version.

    Returns:
        The path of the file, perhaps in the hub's cache.

    Raises:
        ExportError: the source is neither, or the download failed.
    """
    if (path := Path(source)).is_file():
        return path
    named = _HUB_FILE.fullmatch(source)
    if named is None:
        raise ExportError(f"{source}: no such file, and not of the form owner/name:file")
    try:
        return Path(hf_hub_download(named["repo"], named["file"], revision=named["revision"]))
    except Exception as error:
        raise ExportError(_reason(source, error)) from error


def place(source: Path, target: Path) -> None:
    """Link a file to its place, or copy it where the two lie in different file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    blob = source.resolve()
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)


def expected_sha256(path: Path) -> str | None:
    """Return the SHA-256 that the hub states for a file in its cache; None if it states none.

    The cache names a large file's blob by its SHA-256, but compares no hash after the download.
    """
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _reason(what: str, error: Exception) -> str:
    if isinstance(error, RepositoryNotFoundError):
        return f"{what}: not on the hub, or private; set HF_TOKEN"
    if isinstance(error, LocalEntryNotFoundError):
        return f"{what}: not in the hub's cache, and the hub cannot be reached"
    return f"{what}: {error}"
