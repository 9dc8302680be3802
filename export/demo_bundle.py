"""The demo bundle: its identity, its layout, and putting it in place."""

from collections.abc import Callable
from pathlib import Path

from export import manifest
from export.folders import replacing

NAME = "artmancer-demo"
# Names the recipe: a bundle with another base is out of date and built anew.
BASE = "QwenImageEditPlusPipeline, 5.4 M random parameters, seed 0, recipe 1"
PIPELINE = "pipeline"
# Task type -> LoRA file, both as clients and operators know them.
ADAPTERS = {
    "insertion": "adapters/insertion_cp.safetensors",
    "removal": "adapters/removal_cp.safetensors",
    "white-balance": "adapters/wb_cp.safetensors",
}
STAGES = ("pipeline", "preview map", "adapters", "manifest")


def is_current(bundle: Path) -> bool:
    """Tells whether the folder holds this very bundle, every file intact."""
    try:
        found = manifest.verify(bundle)
    except manifest.BundleError:
        return False
    return (found["name"], found["base"]) == (NAME, BASE)


def build(bundle: Path, on_stage: Callable[[str], None]) -> None:
    """Builds the bundle and puts it in place; the same recipe gives the same bytes.

    Args:
        bundle: the folder; a bundle that lies there is replaced.
        on_stage: called with each of `STAGES` when it begins.

    Raises:
        BundleError: the folder holds something that is no bundle.
    """
    refuse_other_content(bundle)
    # Here because torch and diffusers take seconds to import, and is_current needs neither.
    from export import demo_weights

    with replacing(bundle) as folder:
        preview = demo_weights.write(folder / PIPELINE, _adapter_paths(folder), on_stage)
        on_stage("manifest")
        manifest.write(
            folder,
            {
                "name": NAME,
                "base": BASE,
                "pipeline": PIPELINE,
                "adapters": {task_type: {"file": file} for task_type, file in ADAPTERS.items()},
                "preview": preview,
            },
        )


def refuse_other_content(bundle: Path) -> None:
    """Protects a folder that is not ours to replace.

    Raises:
        BundleError: the folder holds something that is no bundle.
    """
    if bundle.exists() and any(bundle.iterdir()) and not (bundle / manifest.MANIFEST).exists():
        raise manifest.BundleError(f"{bundle}: holds something that is no bundle")


def _adapter_paths(folder: Path) -> dict[str, Path]:
    return {task_type: folder / file for task_type, file in ADAPTERS.items()}
