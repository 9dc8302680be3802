"""Owns the import of ultralytics, which must stay offline and write nothing.

Ultralytics is AGPL-3.0. Export and tests use it; the code that serves does not.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

# Ultralytics reads these variables at its import. Without them it writes settings under the user's
# home, looks for the internet, and prints what it built.
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

# Ultralytics replaces Image.open by a function that installs packages when a file is no picture.
Image.open = _pillow_open
# Ultralytics sets this to 1. Processes started later, such as a Triton, would inherit it.
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

# Ultralytics' own weights of the loss terms.
_LOSS_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "overlap_mask": True}


def segmentation_network(depth: float, width: float, max_channels: int) -> Any:
    """Build an untrained network of FastSAM's family: yolov8-seg with the one class "object".

    Args:
        depth: factor on how often blocks repeat; 0.33 in FastSAM-s, 1.0 in FastSAM-x.
        width: factor on the number of channels; 0.5 in FastSAM-s, 1.25 in FastSAM-x.
        max_channels: largest number of channels before `width` applies.

    Returns:
        An ultralytics SegmentationModel; its weights come from torch's global generator.
    """
    definition = yaml_model_load("yolov8n-seg.yaml")
    definition |= {"nc": 1, "scale": "n", "scales": {"n": [depth, width, max_channels]}}
    network = SegmentationModel(definition, nc=1, verbose=False)
    network.names = {0: "object"}
    network.task = "segment"
    network.args = SimpleNamespace(**_LOSS_GAINS)
    return network


def segmentation_loss(network: Any) -> Any:
    """Return ultralytics' loss of a network: (predictions, targets) -> (terms, named terms)."""
    return v8SegmentationLoss(network)


def load_network(path: Path, trusted: bool) -> Any:
    """Open a checkpoint that ultralytics wrote.

    Args:
        path: the .pt file.
        trusted: let the pickle build anything; else only layers that ultralytics knows.

    Returns:
        The network in FP32, in evaluation mode.

    Raises:
        Exception: any, where the pickle is damaged or foreign.
    """
    checkpoint, _ = torch_safe_load(str(path), safe_only=not trusted)
    return (checkpoint.get("ema") or checkpoint["model"]).float().eval()
