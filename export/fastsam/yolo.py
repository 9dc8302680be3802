"""Ultralytics' network definition and loss, imported so that it stays offline and writes nothing.

Ultralytics is AGPL-3.0. Export and tests use it; nothing that serves does.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

# Read when ultralytics is imported. It would write settings under the user's home, look for a
# network, and print what it built.
if "YOLO_CONFIG_DIR" not in os.environ:
    _settings = tempfile.mkdtemp(prefix="artmancer-ultralytics-")
    atexit.register(shutil.rmtree, _settings, ignore_errors=True)
    os.environ["YOLO_CONFIG_DIR"] = _settings
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
_pillow_open = Image.open
_threads = os.environ.get("OMP_NUM_THREADS")

from ultralytics import FastSAM
from ultralytics.models.fastsam import FastSAMPredictor
from ultralytics.nn.tasks import SegmentationModel, torch_safe_load, yaml_model_load
from ultralytics.utils.loss import v8SegmentationLoss
from ultralytics.utils.ops import scale_masks

# It replaces this by a function that installs packages when it meets a file that is no picture.
Image.open = _pillow_open
# It sets this to 1, which processes that are started later would inherit: a Triton for one.
if _threads is None:
    os.environ.pop("OMP_NUM_THREADS", None)

__all__ = [
    "FastSAM",
    "FastSAMPredictor",
    "load_network",
    "scale_masks",
    "segmentation_loss",
    "segmentation_network",
]

# The library's own weights of the loss terms.
_LOSS_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "overlap_mask": True}


def segmentation_network(depth: float, width: float, max_channels: int) -> Any:
    """Build a network of FastSAM's family, untrained: yolov8-seg with the one class "object".

    Args:
        depth: multiplies how often blocks repeat; 0.33 in FastSAM-s, 1.0 in FastSAM-x.
        width: multiplies the channels; 0.5 in FastSAM-s, 1.25 in FastSAM-x.
        max_channels: bound of the channels before they are multiplied.

    Returns:
        An ultralytics SegmentationModel, its weights from torch's global generator.
    """
    definition = yaml_model_load("yolov8n-seg.yaml")
    definition |= {"nc": 1, "scale": "n", "scales": {"n": [depth, width, max_channels]}}
    network = SegmentationModel(definition, nc=1, verbose=False)
    network.names = {0: "object"}
    network.task = "segment"
    network.args = SimpleNamespace(**_LOSS_GAINS)
    return network


def segmentation_loss(network: Any) -> Any:
    """Return ultralytics' loss for a network: (predictions, targets) -> (terms, named terms)."""
    return v8SegmentationLoss(network)


def load_network(path: Path, trusted: bool) -> Any:
    """Open a checkpoint as ultralytics writes it.

    Args:
        path: the .pt file.
        trusted: lets the pickle build anything; else only layers that ultralytics knows.

    Returns:
        The network in FP32, in evaluation mode.

    Raises:
        Exception: whatever a damaged or foreign pickle makes of itself.
    """
    checkpoint, _ = torch_safe_load(str(path), safe_only=not trusted)
    return (checkpoint.get("ema") or checkpoint["model"]).float().eval()
