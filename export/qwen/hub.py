"""What comes from the Hugging Face hub, or out of its cache where there is no network."""

import os
import re
import shutil
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from export.manifest import BundleError

BASE = "Qwen/Qwen-Image-Edit-2509"
# The commit whose configurations stand in `qwen_published`.
REVISION = "d3968ef930e841f4c73640fb8afa3b306a78167e"
# What a diffusers pipeline consists of; pictures and readme files stay where they are.
PATTERNS = [
    "model_index.json",
    *(f"*/*.{kind}" for kind in ("json", "safetensors", "txt", "jinja")),
]
_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^@]+)(@(?P<revision>.+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch_pipeline(repository: str, revision: str) -> Path:
    """Download a pipeline into the hub's cache, from where an earlier download broke off.

    HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are respected; progress is shown by the hub's own bars.

    Args:
        repository: owner/name.
        revision: a commit.

    Returns:
        The folder in the cache; its files are links to the cache's blobs.

    Raises:
        BundleError: it cannot be had; the text says whether for want of a network.
    """
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=PATTERNS)
    except Exception as error:  # the hub's, its HTTP client's and hf_xet's have no base in common
        raise BundleError(_reason(f"{repository} at {revision}", error)) from error
    return Path(folder)


def fetch_file(source: str) -> Path:
    """Find a file, on this machine or on the hub.

    Args:
        source: a path, or `owner/name:file`, with `@revision` behind it where not the newest.

    Raises:
        BundleError: it is neither, or cannot be had.
    """
    if (path := Path(source)).is_file():
        return path
    named = _HUB_FILE.fullmatch(source)
    if named is None:
        raise BundleError(f"{source}: no such file, and not of the form owner/name:file")
    try:
        return Path(hf_hub_download(named["repo"], named["file"], revision=named["revision"]))
    except Exception as error:
        raise BundleError(_reason(source, error)) from error


def place(source: Path, target: Path) -> None:
    """Put a file at its place: by a link where both lie in one file system, else as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    blob = source.resolve()
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)


def expected_sha256(path: Path) -> str | None:
    """The SHA-256 that the hub states for a file in its cache; None where it states another hash.

    The cache names a large file's blob by it, but does not compare it with what arrived.
    """
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _reason(what: str, error: Exception) -> str:
    if isinstance(error, RepositoryNotFoundError):
        return f"{what}: not on the hub, or private; set HF_TOKEN"
    if isinstance(error, LocalEntryNotFoundError):
        return f"{what}: not in the hub's cache, and the hub cannot be reached"
    return f"{what}: {error}"
