"""Runs ONNX networks and reads their borders."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

from export.fastsam.decoding import FloatArray
from export.fastsam.onnx_network import anchors


def run(network: onnx.ModelProto, images: FloatArray) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[npt.NDArray[np.float32]] = session.run(None, {"images": images})
    return outputs


def borders(network: onnx.ModelProto) -> dict[str, tuple[int, list[Any]]]:
    return {
        tensor.name: (
            tensor.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim],
        )
        for tensor in (*network.graph.input, *network.graph.output)
    }


def expected_borders(size: int) -> dict[str, tuple[int, list[Any]]]:
    return {
        "images": (TensorProto.FLOAT, ["n", 3, size, size]),
        "output0": (TensorProto.FLOAT, ["n", 37, anchors(size)]),
        "output1": (TensorProto.FLOAT, ["n", 32, size // 4, size // 4]),
    }
