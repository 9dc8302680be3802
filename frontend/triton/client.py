"""Owns the connection to Triton and the three things that are asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.errors import BackendError
from frontend.triton import tensors
from frontend.triton.stream import InferStream, status_error

if TYPE_CHECKING:
    from frontend.domain import EditParams, ModelState

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A Triton that returns is found within a second, not after gRPC's default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Despite its name: how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2000),
]


class TritonClient:
    """One channel to Triton's gRPC port; create and close it in the same event loop.

    It speaks to Triton through tritonclient's generated stubs: the aio client on top of them
    hides why a stream ended and refuses the reserved parameters.

    Args:
        url: host:port.
    """

    def __init__(self, url: str) -> None:
        self._channel = grpc.aio.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel; streams that are still open are cut."""
        await self._channel.close()

    def edit(self, task_id: str, params: EditParams, timeout_s: float) -> InferStream:
        """Start one edit; nothing is sent before its responses are read.

        Args:
            task_id: names the job for `cancel`.
            params: what to do.
            timeout_s: the stream fails when it takes longer.
        """
        request = tensors.edit_request(task_id, params)
        return InferStream(self._stub.ModelStreamInfer(timeout=timeout_s), request)

    async def cancel(self, task_id: str) -> ModelState:
        """Tell the model to stop the job `task_id`; "" stops none and is a ping.

        The caller bounds the wait.

        Raises:
            ServingError: no answer, or not the promised one.
        """
        stream = InferStream(self._stub.ModelStreamInfer(), tensors.cancel_request(task_id))
        states = [tensors.model_state(response) async for response in stream.responses()]
        if len(states) != 1:
            raise BackendError("Triton's answer to a ping is not readable")
        return states[0]

    async def mismatches(self) -> list[str]:
        """Compare our tensors with the loaded model's; empty where they agree.

        The caller bounds the wait.

        Raises:
            ServingError: no answer.
        """
        request: Any = service_pb2.ModelConfigRequest(name=tensors.MODEL)
        try:
            answer = await self._stub.ModelConfig(request)
        except grpc.aio.AioRpcError as error:
            raise status_error(error) from error
        return tensors.mismatches(answer.config)
