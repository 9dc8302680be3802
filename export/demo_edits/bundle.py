"""Owns the demo bundle: its name, its shipped weights, and putting them in place."""

import shutil
from pathlib import Path

from export import manifest
from export.folders import replacing

NAME = "artmancer-demo"
# What `python -m export demo-train` made.
SHIPPED = Path(__file__).parent / "weights"


def is_current(bundle: Path) -> bool:
    """Return whether the folder holds this very bundle with every file intact."""
    try:
        return manifest.verify(bundle) == manifest.verify(SHIPPED)
    except manifest.ManifestError:
        return False


def place(bundle: Path) -> None:
    """Put the shipped bundle in place.

    Args:
        bundle: the folder. A bundle that lies there is replaced.

    Raises:
        ManifestError: the folder holds something that is no bundle, or a shipped file is damaged.
    """
    manifest.refuse_other_content(bundle)
    manifest.verify(SHIPPED)
    with replacing(bundle) as folder:
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
