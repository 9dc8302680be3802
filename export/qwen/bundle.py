"""Owns the bundle of the real model: Qwen-Image-Edit-2509 and the operator's adapters."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from export import manifest
from export.errors import ExportError
from export.folders import replacing
from export.qwen.adapters import Adapter, inspect
from export.qwen.hub import expected_sha256, fetch_file, fetch_pipeline, place
from export.qwen.transformer import empty_transformer, linear_shapes, read_config

# What Qwen-Image-Edit-2509 was made for.
IMAGE_AREA = 1024 * 1024

PIPELINE_CLASS = "QwenImageEditPlusPipeline"
LARGE_BYTES = 2**28


def build(
    bundle: Path,
    repository: str,
    revision: str,
    adapters: Mapping[str, str],
    on_stage: Callable[[str], None],
) -> dict[str, Any]:
    """Download what is missing, check everything, and put the bundle in place.

    A bundle that lies there with the same base and the same adapters is checked and kept.

    Args:
        bundle: the folder; another bundle that lies there is replaced.
        repository: owner/name of the base on the hub.
        revision: its commit.
        adapters: task type -> path, or file on the hub; at least one entry. A second adapter after
            a comma, such as a Lightning adapter, serves the task together with the first.
        on_stage: called with the stage that begins, in words.

    Returns:
        The manifest.

    Raises:
        ExportError: a download failed, a file is damaged, the base is no
            QwenImageEditPlusPipeline, an adapter does not fit it, or the folder holds something
            that is no bundle.
    """
    if not adapters:
        raise ExportError("no adapter: no task can be served without one")
    manifest.refuse_other_content(bundle)
    on_stage("finding the adapters")
    files = {task_type: _find(task_type, source) for task_type, source in adapters.items()}
    base = f"{repository} at {revision}"
    if (present := _present(bundle, base, files, on_stage)) is not None:
        return present
    on_stage(f"downloading {repository}")
    snapshot = fetch_pipeline(repository, revision)
    _check_class(snapshot)
    on_stage("comparing the adapters with the base")
    shapes = linear_shapes(empty_transformer(read_config(snapshot)))
    inspected = {
        name: inspect(path, shapes) for named in files.values() for name, path in named.items()
    }
    with replacing(bundle) as folder:
        on_stage("placing the files")
        stated = {}
        for path in sorted(path for path in snapshot.rglob("*") if path.is_file()):
            name = f"{manifest.PIPELINE}/{path.relative_to(snapshot).as_posix()}"
            place(path, folder / name)
            stated[name] = expected_sha256(path)
        for name, path in {name: each[name] for each in files.values() for name in each}.items():
            place(path, folder / name)
        on_stage("fitting the preview")
        preview = _fit_preview(folder / manifest.PIPELINE)
        on_stage("hashing the files")
        written = manifest.write(
            folder,
            {
                "name": repository.rpartition("/")[2].lower(),
                "base": base,
                "pipeline": manifest.PIPELINE,
                "adapters": {
                    task_type: _entry(adapters[task_type], list(named), inspected)
                    for task_type, named in files.items()
                },
                "image_area": IMAGE_AREA,
                "preview": preview,
            },
            _announce_large(on_stage),
        )
        _compare_with_hub(written, stated)
    return written


def _find(task_type: str, source: str) -> dict[str, Path]:
    """Find a task's own adapter, then its second one if it has any: name in the bundle -> file."""
    first, *others = (fetch_file(part.strip()) for part in source.split(","))
    if len(others) > 1:
        raise ExportError(f"{task_type}: {source}: at most two adapters serve a task")
    # Named by content, so that two tasks with the same adapter load one file.
    named = {
        f"adapters/lightning-{manifest.sha256(path)[:12]}.safetensors": path for path in others
    }
    return {manifest.ADAPTERS[task_type]: first, **named}


def _entry(source: str, names: list[str], inspected: Mapping[str, Adapter]) -> dict[str, Any]:
    adapter = inspected[names[0]]
    return {
        **dict(zip(("file", "lightning"), names, strict=False)),
        "source": source,
        "ranks": adapter.ranks,
        "layers": adapter.layers,
        "kinds": adapter.kinds,
    }


def _present(
    bundle: Path,
    base: str,
    adapters: Mapping[str, Mapping[str, Path]],
    on_stage: Callable[[str], None],
) -> dict[str, Any] | None:
    """Return the manifest of a bundle that holds exactly this, every file intact; else None."""
    try:
        found = manifest.read(bundle, "base", "files")
    except manifest.ManifestError:
        return None
    # A mask network's bundle has no adapters.
    if (found["base"], set(found.get("adapters", ()))) != (base, set(adapters)):
        return None
    on_stage("checking the files")
    announce = _announce_large(on_stage)
    for task_type, named in adapters.items():
        entry = found["adapters"][task_type]
        if [entry[key] for key in ("file", "lightning") if key in entry] != list(named):
            return None
        for name, path in named.items():
            announce(path)
            if manifest.fingerprint(path) != found["files"].get(name):
                return None
    try:
        return manifest.verify(bundle, announce)
    except manifest.ManifestError:
        return None


def _announce_large(on_stage: Callable[[str], None]) -> Callable[[Path], None]:
    """Announce each file that takes a while; a bundle has a dozen of them."""

    def on_file(path: Path) -> None:
        size = path.stat().st_size
        if size > LARGE_BYTES:
            on_stage(f"hashing {path.parent.name}/{path.name}, {size / 1e9:.1f} GB")

    return on_file


def _check_class(snapshot: Path) -> None:
    path = snapshot / "model_index.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, LookupError) as error:
        raise ExportError(f"{path}: {error!r}") from None
    if found != PIPELINE_CLASS:
        raise ExportError(f"{path}: {found}, but the models serve a {PIPELINE_CLASS}")


def _compare_with_hub(written: Mapping[str, Any], stated: Mapping[str, str | None]) -> None:
    for name, sha256 in stated.items():
        if sha256 is not None and written["files"][name]["sha256"] != sha256:
            raise ExportError(
                f"{name}: damaged in the hub's cache; delete it there and download it again"
            )


def _fit_preview(pipeline: Path) -> dict[str, list[Any]]:
    import torch
    from diffusers import AutoencoderKLQwenImage

    from export.preview import fit_preview, synthetic_pictures

    vae = AutoencoderKLQwenImage.from_pretrained(
        pipeline / "vae", dtype=torch.float32, local_files_only=True
    ).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        pictures = synthetic_pictures(count=16, size=128)
        latents = vae.encode(2 * pictures[:, :, None] - 1).latent_dist.mode()
        return fit_preview(vae, latents)
