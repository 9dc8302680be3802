"""Owns comparing runtimes of the mask network on this processor: time, and masks against FP32."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from matplotlib.axes import Axes
from PIL import Image

from benchmarks.report import summary
from export import manifest
from export.fastsam import bundle as fastsam_bundle
from export.fastsam import checkpoint as fastsam_checkpoint
from export.fastsam import untrained as fastsam_untrained
from fastsam.network import Network
from smart_mask.features import Features, read_features
from smart_mask.letterbox import Floats, Letterbox, Pixels

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ("photo.jpg", "reference.jpg", "warm-light.jpg")
TIMED_SIZE = 640
REFERENCE = "ONNX Runtime"

Run = Callable[[Floats], tuple[Floats, Floats]]


def measure(bundle: Path, *, rounds: int) -> dict[str, Any]:
    """Time a network of FastSAM-s size by turns, and compare the masks of a trained one.

    Args:
        bundle: bundle of the trained network.
        rounds: how often each runtime runs.

    Returns:
        By runtime, milliseconds for one image of TIMED_SIZE², and lowest and mean IoU with the
        masks of REFERENCE. The masks are those of the bundle's network in photographs.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "FastSAM-s.pt")
        fastsam_untrained.write_untrained(checkpoint, "FastSAM-s", TIMED_SIZE)
        network = fastsam_checkpoint.export_onnx(
            fastsam_checkpoint.open_checkpoint(checkpoint), TIMED_SIZE
        )
        large = Path(folder, "bundle")
        fastsam_bundle.place(
            large, "FastSAM-s", "untrained", TIMED_SIZE, network.SerializeToString(), parity={}
        )
        seconds = _time(_runtimes(large), rounds)
    masks = _masks(_runtimes(bundle), image_side(bundle))
    return {
        "size": TIMED_SIZE,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "ms": {name: summary([1000 * s for s in samples]) for name, samples in seconds.items()},
        "mask_iou": masks,
    }


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the median time of each runtime, and the lowest IoU of its masks."""
    names = list(reversed(results["ms"]))
    medians = [results["ms"][name]["median"] for name in names]
    bars = axes.barh(names, medians)
    axes.bar_label(
        bars,
        [
            f"{median:.0f} ms, IoU ≥ {results['mask_iou'][name]['min']:.3f}"
            for name, median in zip(names, medians, strict=True)
        ],
        padding=3,
    )
    axes.set(
        title=f"FastSAM-s's network at {results['size']}²",
        xlabel="milliseconds",
        xlim=(0, 1.6 * max(medians)),
    )


def _runtimes(bundle: Path) -> dict[str, Run]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(bundle / fastsam_bundle.NETWORK, options)
    return {
        REFERENCE: lambda images: tuple(session.run(None, {"images": images})),
        "OpenVINO, float32": Network(bundle, "float32").run,
        "OpenVINO, auto": Network(bundle, "auto").run,
    }


def _time(runtimes: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    images = np.random.default_rng(0).random((1, 3, TIMED_SIZE, TIMED_SIZE), np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(rounds):
        for name, run in runtimes.items():
            started = time.perf_counter()
            run(images)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _masks(runtimes: dict[str, Run], side: int) -> dict[str, dict[str, float]]:
    compared: dict[str, list[float]] = {name: [] for name in runtimes}
    for photograph in PHOTOGRAPHS:
        picture = np.asarray(Image.open(ROOT / "examples" / photograph).convert("RGB"))
        found = {name: _features(run, picture, side) for name, run in runtimes.items()}
        reference = _every_mask(found[REFERENCE])
        for name, features in found.items():
            own = _every_mask(features)
            for mask in reference:
                ious = [(mask & other).sum() / (mask | other).sum() for other in own]
                compared[name].append(float(max(ious, default=0.0)))
    return {
        name: {
            "masks": len(ious),
            "min": round(min(ious), 4),
            "mean": round(float(np.mean(ious)), 4),
        }
        for name, ious in compared.items()
    }


def _features(run: Run, picture: Pixels, side: int) -> Features:
    letterbox = Letterbox.fit(picture.shape[1], picture.shape[0], side)
    predictions, prototypes = run(letterbox.apply(picture))
    return read_features(
        letterbox, predictions[0], prototypes[0], confidence=0.25, iou=0.7, most=300
    )


def _every_mask(features: Features) -> list[Any]:
    return [features.mask(index) > 0 for index in range(len(features.scores))]


def image_side(bundle: Path) -> int:
    """Return the side of a mask network's images, in pixels."""
    return int(manifest.read(bundle, "image_size")["image_size"])
