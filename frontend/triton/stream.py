"""Owns one request's stream to Triton: the order of its calls and its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from frontend import loop_time
from frontend.errors import ServingError
from frontend.triton.call import Call
from frontend.triton.model_errors import from_model

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

# How long Triton may take to close a stream after its last response, while the loop runs.
DRAIN_TIMEOUT_S = 1.0


class InferStream(Call):
    """The responses to one request on a stream of its own.

    A stream carries one request, and this side closes its half at once. So the end of the stream
    is the end of the request, no final flag is needed, and a cut harms no other request.

    Args:
        call: a new ModelStreamInfer call; the stream owns it from now on.
        request: the ModelInferRequest; forgotten once it is sent.
    """

    def __init__(self, call: Any, request: Any) -> None:
        super().__init__(call)
        self._request = request

    async def responses(self) -> AsyncGenerator[Any]:
        """Send the request and yield each ModelInferResponse until Triton closes the stream.

        Raises:
            ServingError: the answer of the model or of Triton, or the reason of the cut.
        """
        try:
            await self._send()
            while (message := await self._read()) is not grpc.aio.EOF:
                if message.error_message:
                    await self._drain()
                    raise from_model(message.error_message)
                yield message.infer_response
        finally:
            # Without effect after the end of the stream, as on every good path.
            self._call.cancel()

    async def _send(self) -> None:
        request, self._request = self._request, None
        # Writing to a failed call raises only InvalidStateError. The next read raises the real
        # reason.
        with contextlib.suppress(asyncio.InvalidStateError):
            await self._translate(self._while_alive(self._call.write(request)))
            await self._translate(self._call.done_writing())

    async def _while_alive(self, writing: Coroutine[Any, Any, None]) -> None:
        """Await a write, but no longer than the call lives.

        grpc.aio's waits until the call has begun, and for ever if it ends before.
        """
        ended = asyncio.Event()
        self._call.add_done_callback(lambda _: ended.set())
        tasks = [asyncio.ensure_future(each) for each in (writing, ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                await tasks[0]
        finally:
            for task in tasks:
                task.cancel()

    async def _read(self) -> Any:
        return await self._translate(self._call.read())

    async def _drain(self) -> None:
        """Wait until Triton closes the stream, so that this side need not cut it."""
        with contextlib.suppress(TimeoutError, ServingError):
            async with loop_time.timeout(DRAIN_TIMEOUT_S):
                while await self._read() is not grpc.aio.EOF:
                    pass
