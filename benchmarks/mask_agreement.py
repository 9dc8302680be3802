"""Owns comparing the masks that two ways of running one mask network find in photographs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smart_mask.features import Features, read_features
from smart_mask.letterbox import Floats, Letterbox, Pixels

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTOGRAPHS = ("photo.jpg", "reference.jpg", "warm-light.jpg")

Run = Callable[[Floats], tuple[Floats, Floats]]


def agreement(runtimes: Mapping[str, Run], reference: str, side: int) -> dict[str, dict[str, Any]]:
    """Compare each mask of a reference with the one of each runtime that is nearest to it.

    Args:
        runtimes: by name; each turns float32 [1, 3, side, side] into predictions and prototypes.
        reference: the name of one of them.
        side: of the network's images, in pixels.

    Returns:
        By runtime, the number of masks, lowest and mean IoU, and how many pixels of the network's
        input the edges of a box are off at most.
    """
    compared: dict[str, list[tuple[float, float]]] = {name: [] for name in runtimes}
    for photograph in PHOTOGRAPHS:
        picture = np.asarray(Image.open(EXAMPLES / photograph).convert("RGB"))
        found = {name: _features(run, picture, side) for name, run in runtimes.items()}
        for name, features in found.items():
            own = _every_mask(features)
            for index, mask in enumerate(_every_mask(found[reference])):
                ious = [float((mask & other).sum() / (mask | other).sum()) for other in own]
                best = int(np.argmax(ious))
                off = np.abs(found[reference].boxes[index] - features.boxes[best]).max()
                compared[name].append((ious[best], float(off)))
    return {
        name: {
            "masks": len(each),
            "min": round(min(iou for iou, _ in each), 4),
            "mean": round(float(np.mean([iou for iou, _ in each])), 4),
            "box_pixels": round(max(off for _, off in each), 3),
        }
        for name, each in compared.items()
    }


def _features(run: Run, picture: Pixels, side: int) -> Features:
    letterbox = Letterbox.fit(picture.shape[1], picture.shape[0], side)
    predictions, prototypes = run(letterbox.apply(picture))
    return read_features(
        letterbox, predictions[0], prototypes[0], confidence=0.25, iou=0.7, most=300
    )


def _every_mask(features: Features) -> list[Any]:
    return [features.mask(index) > 0 for index in range(len(features.scores))]
