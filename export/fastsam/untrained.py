"""Owns checkpoints of FastSAM's size with random weights; FastSAM's own are not ours to ship."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.fastsam.decoding import CONFIDENCE, OVERLAP, network_input, suppress
from export.fastsam.sheet import Picture, letterboxed
from export.fastsam.yolo import segmentation_network

# Depth, width and largest number of channels of yolov8's scales s and x.
SCALES = {"FastSAM-s": (0.33, 0.5, 1024), "FastSAM-x": (1.0, 1.25, 512)}


def write_untrained(
    path: Path, name: str, size: int, picture: Picture | None = None, detections: int = 40
) -> None:
    """Write a random checkpoint that `ultralytics.FastSAM` opens; every call writes the same one.

    Args:
        path: the .pt file.
        name: a key of `SCALES`.
        size: side of the images that the checkpoint asks for, in pixels.
        picture: uint8 [height, width, 3], RGB. With a picture, the network is bent to find things
            in that picture. The things mean nothing, but give work to the code after the
            network. Without a picture, the network finds nothing anywhere.
        detections: about how many things the network finds.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = segmentation_network(*SCALES[name])
        if picture is not None:
            images = torch.from_numpy(network_input(letterboxed(picture, size)))
            _bend(network, images, detections)
    settings = {"imgsz": size, "task": "segment"}
    network.args = settings
    torch.save({"model": network.half(), "ema": None, "train_args": settings}, path)


def _bend(network: Any, images: torch.Tensor, detections: int) -> None:
    # Statistics of the picture itself keep activations from fading or growing with depth.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(images)
    network.eval().half().float()  # as a reader of the checkpoint gets it
    last = [scores[-1] for scores in network.model[-1].cv3]
    deviation = network(images)[1]["scores"].std()
    for convolution in last:
        convolution.weight /= deviation
    (predictions, _), raw = network(images)
    logits = raw["scores"][0, 0].numpy()
    order = np.argsort(-logits)
    centres, sides = np.split(predictions[0, :4].numpy().T[order], 2, axis=1)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    kept = suppress(boxes[: 50 * detections], OVERLAP)
    # The bar lies halfway between the last score that is found and the next one.
    last_found = kept[min(detections, len(kept)) - 1]
    bar = logits[order[last_found : last_found + 2]].mean()
    for convolution in last:
        convolution.bias += float(np.log(CONFIDENCE / (1 - CONFIDENCE)) - bar)
