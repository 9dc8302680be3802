"""Owns one call to Triton, and cutting it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from frontend.triton.model_errors import status_error

if TYPE_CHECKING:
    from frontend.errors import ServingError


class Call:
    """A call that can be ended from this side, with a reason.

    Args:
        call: a fresh one of the generated stub; owned from here on.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._cut_reason: ServingError | None = None

    def cut(self, reason: ServingError) -> None:
        """End the call from this side; who waits gets `reason`, the first one where several.

        Under load, cutting live calls can crash Triton 2.51: ask the model to cancel first.
        """
        self._cut_reason = self._cut_reason or reason
        self._call.cancel()

    async def _translate(self, operation: Any) -> Any:
        try:
            return await operation
        except grpc.aio.AioRpcError as error:
            raise self._cut_reason or status_error(error) from error
        except asyncio.CancelledError:
            # A cut call raises this too; it must not look like the cancelling of this task.
            task = asyncio.current_task()
            if self._cut_reason is None or (task is not None and task.cancelling()):
                raise
            raise self._cut_reason from None


class InferCall(Call):
    """A request with one response, on its way from its making on."""

    async def response(self) -> Any:
        """Return the ModelInferResponse.

        Raises:
            ServingError: what the model or Triton answered, or the reason it was cut for.
        """
        return await self._translate(self._call)
