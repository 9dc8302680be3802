"""Owns the way from a checkpoint of FastSAM to ONNX; only here is a pickle opened."""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from export.errors import ExportError
from export.fastsam.onnx_network import INPUT, OUTPUTS, with_free_batch
from export.fastsam.yolo import load_network

OPSET = 18


def open_checkpoint(path: Path, trusted: bool = False) -> Any:
    """Open a checkpoint of FastSAM-s, FastSAM-x or another network of their family.

    Args:
        path: a .pt file as ultralytics writes it, which is a pickle.
        trusted: let the pickle build anything; else only layers that ultralytics knows.

    Returns:
        The network, in evaluation mode.

    Raises:
        ExportError: the file is missing or unreadable, or holds another kind of network.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        network = load_network(path, trusted)
    # A damaged or foreign pickle may raise anything.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ExportError(f"{path}: cannot be opened: {reason}") from error
    head = network.model[-1] if hasattr(network, "model") else network
    kind = type(head).__name__, getattr(head, "nc", None), getattr(head, "nm", None)
    if kind != ("Segment", 1, 32):
        raise ExportError(
            f"{path}: no FastSAM: the network ends in {kind[0]}, not in Segment of one class"
        )
    return network


def export_onnx(network: Any, size: int) -> onnx.ModelProto:
    """Trace a network for one image size and for any batch.

    Args:
        network: an ultralytics SegmentationModel, which stays as it is.
        size: side of the images, a multiple of 32.

    Returns:
        The ONNX network, checked, with all weights in FP32.
    """
    traced = copy.deepcopy(network).float().cpu().eval().requires_grad_(False)
    traced = traced.fuse(verbose=False)
    for module in traced.modules():
        if hasattr(module, "forward_split"):  # the same result by simpler operators
            module.forward = module.forward_split
    traced.model[-1].export = True
    images = torch.zeros(1, 3, size, size)
    traced(images)  # fills the head's anchors, which become constants
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder, "network.onnx")
        # The newer exporter needs onnxscript and does not keep the names of layers.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The tracer warns that the image size becomes fixed, which is wanted.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            traced,
            (images,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=OUTPUTS,
        )
        return with_free_batch(onnx.load(file))
