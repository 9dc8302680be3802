"""Owns comparing an exported network with the PyTorch network that it came from."""

import importlib.metadata
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from export.fastsam.decoding import (
    CONFIDENCE,
    FloatArray,
    decode,
    mask_iou,
    masks_at,
    network_input,
)
from export.fastsam.onnx_network import INPUT, image_size
from export.scenes.masks import draw_scene

SCENES = 4
# At least this many masks are compared in each scene, even where the network is unsure of them.
MIN_MASKS = 20
# Which rows of the predictions hold what.
PARTS = {"boxes": slice(0, 4), "scores": slice(4, 5), "coefficients": slice(5, None)}


def compare(network: Any, exported: onnx.ModelProto, scenes: int) -> dict[str, Any]:
    """Run both networks on drawn scenes: ONNX Runtime against PyTorch, on the CPU.

    Args:
        network: the ultralytics network, in evaluation mode.
        exported: the ONNX network that was exported from it.
        scenes: how many scenes.

    Returns:
        `difference`: the largest and the mean absolute difference of boxes (pixels of the
        input), scores, coefficients and prototypes. `masks`: how many final masks were compared,
        with the lowest and the mean IoU.
    """
    size = image_size(exported)
    session = onnxruntime.InferenceSession(
        exported.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    differences: dict[str, list[FloatArray]] = {name: [] for name in (*PARTS, "prototypes")}
    ious: list[float] = []
    for seed in range(scenes):
        images = network_input(draw_scene(seed, size).picture)
        with torch.no_grad():
            (predictions, prototypes), _ = network(torch.from_numpy(images))
        expected = predictions.numpy(), prototypes.numpy()
        found = session.run(None, {INPUT: images})
        for name, rows in PARTS.items():
            differences[name].append(np.abs(expected[0][:, rows] - found[0][:, rows]))
        differences["prototypes"].append(np.abs(expected[1] - found[1]))
        ious += _mask_ious(expected, found, size)
    return {
        "image_size": size,
        "scenes": scenes,
        "difference": {
            name: {
                "max": float(max(each.max() for each in values)),
                "mean": float(np.mean([each.mean() for each in values])),
            }
            for name, values in differences.items()
        },
        "masks": {"compared": len(ious), "min_iou": min(ious), "mean_iou": float(np.mean(ious))},
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")
        },
    }


def _mask_ious(
    expected: tuple[FloatArray, FloatArray], found: tuple[FloatArray, FloatArray], size: int
) -> list[float]:
    """Compare the first network's final masks with the second network's at the same anchors."""
    best = np.sort(expected[0][0, 4])[-MIN_MASKS]
    confidence = min(CONFIDENCE, 0.999 * float(best))
    final = decode(expected[0][0], expected[1][0], size, confidence)
    others = masks_at(final.anchors, found[0][0], found[1][0], size)
    return [mask_iou(mask, other) for mask, other in zip(final.masks, others, strict=True)]
