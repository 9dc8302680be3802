"""Owns one request's stream with Triton: its order of calls and its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from frontend.errors import ServingError
from frontend.triton.call import Call
from frontend.triton.model_errors import from_model

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# How long Triton may take to close a stream after its last response.
DRAIN_TIMEOUT_S = 1.0


class InferStream(Call):
    """The responses to one request on a stream of its own.

    With one request per stream, whose sending side is closed at once, the end of the stream is
    the end of the request: no final flag needs to be asked for, and cutting it harms no other.

    Args:
        call: a fresh ModelStreamInfer call; the stream owns it.
        request: the ModelInferRequest; forgotten once it is sent.
    """

    def __init__(self, call: Any, request: Any) -> None:
        super().__init__(call)
        self._request = request

    async def responses(self) -> AsyncGenerator[Any]:
        """Send the request and yield each ModelInferResponse until Triton closes the stream.

        Raises:
            ServingError: what the model or Triton answered, or the reason it was cut for.
        """
        try:
            await self._send()
            while (message := await self._read()) is not grpc.aio.EOF:
                if message.error_message:
                    await self._drain()
                    raise from_model(message.error_message)
                yield message.infer_response
        finally:
            # Does nothing where the stream has ended, as it has on every good path.
            self._call.cancel()

    async def _send(self) -> None:
        request, self._request = self._request, None
        # A write to a call that has failed already says only so; the read tells why.
        with contextlib.suppress(asyncio.InvalidStateError):
            await self._translate(self._call.write(request))
            await self._translate(self._call.done_writing())

    async def _read(self) -> Any:
        return await self._translate(self._call.read())

    async def _drain(self) -> None:
        """Let Triton close the stream, so that this side need not cut it."""
        with contextlib.suppress(TimeoutError, ServingError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while await self._read() is not grpc.aio.EOF:
                    pass
