"""Owns the connection to Triton and every request sent over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.errors import BackendError
from frontend.triton import edit_tensors, mask_tensors, tensors
from frontend.triton.call import InferCall
from frontend.triton.model_errors import status_error
from frontend.triton.stream import InferStream

if TYPE_CHECKING:
    from frontend.domain.edits import EditParams
    from frontend.domain.masks import MaskPrompts
    from frontend.domain.models import EditModelState, MaskModelState

_CHANNEL_OPTIONS = [
    # Proxies of the environment are for the web; most refuse to carry gRPC to a neighbour.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Find a Triton that returns within a second; gRPC's default is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Despite its name, this bounds how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # Notice a machine that vanishes; the kernel alone needs a quarter of an hour. Triton accepts
    # these pings because it answers our own pings in between. A gRPC server that has sent
    # nothing meanwhile takes such pings for abuse.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]


class TritonClient:
    """One channel to Triton's gRPC port; create and close it in the same event loop.

    It uses tritonclient's generated stubs. The aio client on top of them hides why a stream ended
    and refuses the reserved parameters. No proxy of the environment is used, because a Triton
    stands on this machine or beside it.

    Args:
        url: host:port.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._channel = grpc.aio.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self, grace_s: float = 0) -> None:
        """Close the channel; cut the calls that have not ended after so many seconds."""
        await self._channel.close(grace_s)

    def edit(self, job_id: str, params: EditParams) -> InferStream:
        """Start one edit; it is sent once its responses are read.

        The caller bounds how long it takes, because it may wait for others at the model.

        Args:
            job_id: names the job for `cancel_edit`.
            params: the edit.
        """
        request = edit_tensors.edit_request(job_id, params)
        return InferStream(self._stub.ModelStreamInfer(), request)

    async def cancel_edit(self, job_id: str) -> EditModelState:
        """Have image_edit cancel the job `job_id`; "" cancels none and is a ping.

        The caller bounds the wait.

        Raises:
            ServingError: there is no answer, or an unreadable one.
        """
        stream = InferStream(self._stub.ModelStreamInfer(), edit_tensors.cancel_request(job_id))
        states = [edit_tensors.model_state(response) async for response in stream.responses()]
        if len(states) != 1:
            raise BackendError("Triton's answer to a ping is not readable")
        return states[0]

    def mask(
        self, call_id: str, prompts: MaskPrompts, image: bytes | str, timeout_s: float
    ) -> InferCall:
        """Send one mask request.

        Args:
            call_id: names the call for `cancel_mask`.
            prompts: what to find.
            image: the picture, an encoded file or its image_id.
            timeout_s: seconds after which the call fails.
        """
        request = mask_tensors.mask_request(call_id, prompts, image)
        return InferCall(self._stub.ModelInfer(request, timeout=timeout_s))

    async def cancel_mask(self, call_id: str) -> MaskModelState:
        """Have smart_mask cancel the call `call_id`; "" cancels none and is a ping.

        The caller bounds the wait.

        Raises:
            ServingError: there is no answer, or an unreadable one.
        """
        call = InferCall(self._stub.ModelInfer(mask_tensors.cancel_request(call_id)))
        return mask_tensors.model_state(await call.response())

    async def mismatches(self, table: tensors.ModelTensors) -> list[str]:
        """Compare a table of ours with the loaded model's tensors; empty if they agree.

        The caller bounds the wait.

        Raises:
            ServingError: there is no answer.
        """
        request: Any = service_pb2.ModelConfigRequest(name=table.model)
        try:
            answer = await self._stub.ModelConfig(request)
        except grpc.aio.AioRpcError as error:
            raise status_error(error) from error
        return tensors.mismatches(table, answer.config)
