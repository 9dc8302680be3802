"""Owns the bundle of the mask network: what is in it, and putting one in place."""

import json
from pathlib import Path
from typing import Any

from export import manifest
from export.fastsam.decoding import CONFIDENCE
from export.folders import replacing

NETWORK = "network.onnx"
PARITY = "parity.json"
DEMO_NAME = "artmancer-demo-masks"
# Lower than FastSAM's, because the demo's small network is less sure.
DEMO_CONFIDENCE = 0.1
# What `python -m export fastsam-train` made.
DEMO = Path(__file__).parents[1] / "demo_masks" / "weights"


def place(
    bundle: Path, name: str, base: str, image_size: int, network: bytes, parity: dict[str, Any]
) -> None:
    """Put an exported network in place of the bundle that lies there.

    Args:
        bundle: the folder.
        name: what the network is called, such as "FastSAM-s".
        base: where the network comes from, in words.
        image_size: side of the network's images, in pixels.
        network: the ONNX file.
        parity: how the ONNX file compares with the network that it was exported from.

    Raises:
        ManifestError: the folder holds something that is no bundle.
    """
    manifest.refuse_other_content(bundle)
    with replacing(bundle) as folder:
        (folder / NETWORK).write_bytes(network)
        (folder / PARITY).write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
        _write_manifest(folder, name, base, image_size, CONFIDENCE)


def place_demo(bundle: Path, force: bool) -> str:
    """Put the shipped network in place, unless another network lies there.

    Args:
        bundle: the folder.
        force: replace a bundle of any name.

    Returns:
        "placed"; "current" where the shipped network lay there already; "kept" where another
        bundle lies there.

    Raises:
        ManifestError: the folder holds something that is no bundle, or, without `force`, a bundle
            whose name cannot be read.
    """
    manifest.refuse_other_content(bundle)
    if not force and (bundle / manifest.MANIFEST).exists():
        if manifest.read(bundle, "name")["name"] != DEMO_NAME:
            return "kept"
        if _is_current(bundle):
            return "current"
    report = json.loads((DEMO / "report.json").read_text(encoding="utf-8"))
    training = report["training"]
    base = (
        f"{report['network']}; trained on synthetic scenes,"
        f" seed {training['seed']}, {training['iterations']} iterations"
    )
    with replacing(bundle) as folder:
        (folder / NETWORK).write_bytes((DEMO / NETWORK).read_bytes())
        _write_manifest(folder, DEMO_NAME, base, report["image_size"], DEMO_CONFIDENCE)
    return "placed"


def _write_manifest(folder: Path, name: str, base: str, image_size: int, confidence: float) -> None:
    fields = {"name": name, "base": base, "network": NETWORK, "image_size": image_size}
    manifest.write(folder, {**fields, "confidence": confidence})


def _is_current(bundle: Path) -> bool:
    try:
        found = manifest.verify(bundle)
    except manifest.ManifestError:
        return False
    current = (bundle / NETWORK).read_bytes() == (DEMO / NETWORK).read_bytes()
    return current and found.get("confidence") == DEMO_CONFIDENCE
