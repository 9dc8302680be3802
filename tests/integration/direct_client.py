"""Owns a direct client of Triton's gRPC: requests as Python values, responses read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc.aio as grpc_aio
from tritonclient.utils import np_to_triton_dtype

from tests.fakes.web_client import scene, square_mask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Tensors = dict[str, Any]


def tensors(values: Tensors) -> list[grpc_aio.InferInput]:
    inputs = []
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            array = value
        else:
            items = value if isinstance(value, list) else [value]
            text = [item.encode() if isinstance(item, str) else item for item in items]
            array = np.array(text, dtype=np.object_)
        tensor = grpc_aio.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


# What is to outlast its client's next calls, and is cancelled in the end.
LONG: Tensors = {
    "NUM_INFERENCE_STEPS": np.array([100], np.int32),
    "WIDTH": np.array([512], np.int32),
    "HEIGHT": np.array([512], np.int32),
}


def removal(**changes: Any) -> Tensors:
    plain: Tensors = {
        "PROMPT": "remove the object",
        "IMAGE": scene(),
        "CONDITIONAL_IMAGE_0": square_mask(),
        "TASK_TYPE": "removal",
        "INPUT_QUALITY": "original",
        "NUM_INFERENCE_STEPS": np.array([3], np.int32),
        "SEED": np.array([7], np.int64),
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


class Response:
    """One response of a stream: its tensors as Python values, its final flag, its error."""

    def __init__(self, result: Any, error: Exception | None) -> None:
        self.error = None if error is None else str(error)
        self.final = False
        self.values: Tensors = {}
        if result is not None:
            raw = result.get_response()
            self.final = raw.parameters["triton_final_response"].bool_param
            for output in raw.outputs:
                self.values[output.name] = result.as_numpy(output.name)[0]


async def stream(
    client: grpc_aio.InferenceServerClient, values: Tensors, request_id: str = ""
) -> AsyncGenerator[Response]:
    async def requests() -> AsyncGenerator[Tensors]:
        yield {
            "model_name": "image_edit",
            "inputs": tensors(values),
            "request_id": request_id,
        }

    async for result, error in client.stream_infer(requests(), stream_timeout=300):
        yield Response(result, error)


async def collect(client: Any, values: Tensors, request_id: str = "") -> list[Response]:
    return [response async for response in stream(client, values, request_id)]
