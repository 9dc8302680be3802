"""Owns comparing runtimes of the mask network on this processor: time, and masks against FP32."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from matplotlib.axes import Axes

from benchmarks.mask_agreement import Run, agreement
from benchmarks.report import summary
from export import manifest
from export.fastsam import bundle as fastsam_bundle
from export.fastsam import checkpoint as fastsam_checkpoint
from export.fastsam import untrained as fastsam_untrained
from fastsam.network import Network

TIMED_SIZE = 640
REFERENCE = "ONNX Runtime"


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
    masks = agreement(_runtimes(bundle), REFERENCE, image_side(bundle))
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


def image_side(bundle: Path) -> int:
    """Return the side of a mask network's images, in pixels."""
    return int(manifest.read(bundle, "image_size")["image_size"])
