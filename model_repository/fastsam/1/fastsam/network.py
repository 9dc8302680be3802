"""Owns FastSAM's network on a CPU: loading a bundle's ONNX file, running it by OpenVINO."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from model_kit.bundles import BundleError, read_manifest
from model_kit.errors import invalid
from model_kit.parameters import Parameters

Floats = npt.NDArray[np.float32]

# Precision by its name in config.pbtxt; None lets OpenVINO choose the fastest.
PRECISIONS: dict[str, openvino.Type | None] = {"auto": None, "float32": openvino.Type.f32}


class Network:
    """A compiled network; one call at a time."""

    def __init__(self, bundle: Path, precision: str) -> None:
        """Compile the network of a bundle and run it once.

        Args:
            bundle: a folder with `manifest.json` (network, image_size) and the ONNX file.
            precision: one of `PRECISIONS`.

        Raises:
            ValueError: the bundle cannot be read.
        """
        try:
            manifest = read_manifest(bundle)
            path, self.side = bundle / manifest["network"], int(manifest["image_size"])
        except (BundleError, ValueError, LookupError, TypeError) as error:
            raise ValueError(f"parameter BUNDLE: {bundle} cannot be read: {error!r}") from None
        self._shape = [3, self.side, self.side]
        core = openvino.Core()
        network = core.read_model(path)
        # A fixed shape of one picture is faster than any larger batch.
        network.reshape([1, *self._shape])
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if (element_type := PRECISIONS[precision]) is not None:
            config["INFERENCE_PRECISION_HINT"] = element_type
        self._compiled = core.compile_model(network, "CPU", config)
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()
        self.run(np.zeros([1, *self._shape], np.float32))

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> "Network":
        """Compile the network that a model's parameters name.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name; or the bundle cannot
                be read.
        """
        precision = parameters.choice("PRECISION", PRECISIONS)
        return cls(parameters.path("BUNDLE"), precision)

    def run(self, images: Floats) -> tuple[Floats, Floats]:
        """Run the network.

        Args:
            images: float32 [n, 3, side, side], RGB in 0..1.

        Returns:
            Predictions, float32 [n, 37, anchors], and prototypes, float32 [n, 32, side/4, side/4].

        Raises:
            CodedError: INVALID_ARGUMENT: the images are not of the network's size.
        """
        if list(images.shape[1:]) != self._shape:
            expected = ", ".join(map(str, self._shape))
            raise invalid("images", f"must be [n, {expected}], not {list(images.shape)}")
        predictions, prototypes = [], []
        with self._lock:
            for image in images:
                outputs = self._request.infer([image[None]], share_inputs=True)
                predictions.append(outputs[0].copy())
                prototypes.append(outputs[1].copy())
        return np.concatenate(predictions), np.concatenate(prototypes)
