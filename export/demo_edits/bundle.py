"""The demo bundle: its identity, its layout, and putting the shipped weights in place."""

import shutil
from pathlib import Path

from export import manifest
from export.folders import replacing

NAME = "artmancer-demo"
PIPELINE = "pipeline"
# Task type -> LoRA file, both as clients and operators know them.
ADAPTERS = {
    "insertion": "adapters/insertion_cp.safetensors",
    "removal": "adapters/removal_cp.safetensors",
    "white-balance": "adapters/wb_cp.safetensors",
}
# What `python -m export demo-train` made.
SHIPPED = Path(__file__).parent / "weights"


def is_current(bundle: Path) -> bool:
    """Tells whether the folder holds this very bundle, every file intact."""
    try:
        return manifest.verify(bundle) == manifest.verify(SHIPPED)
    except manifest.BundleError:
        return False


def place(bundle: Path) -> None:
    """Puts the shipped bundle in place.

    Args:
        bundle: the folder; a bundle that lies there is replaced.

    Raises:
        BundleError: the folder holds something that is no bundle, or a shipped file is damaged.
    """
    refuse_other_content(bundle)
    manifest.verify(SHIPPED)
    with replacing(bundle) as folder:
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)


def refuse_other_content(bundle: Path) -> None:
    """Protects a folder that is not ours to replace.

    Raises:
        BundleError: the folder holds something that is no bundle.
    """
    if bundle.exists() and any(bundle.iterdir()) and not (bundle / manifest.MANIFEST).exists():
        raise manifest.BundleError(f"{bundle}: holds something that is no bundle")
