"""Owns one call to Triton, and cutting it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from frontend.triton.model_errors import status_error

if TYPE_CHECKING:
    from frontend.errors import ServingError


class Call:
    """A call that this side can cut, with a reason.

    Args:
        call: a new call of the generated stub; this object owns it from now on.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._cut_reason: ServingError | None = None

    def cut(self, reason: ServingError) -> None:
        """End the call from this side; the code that waits for it gets the first `reason`.

        Ask the model to cancel first: under load, cutting live calls can crash Triton 2.51.
        """
        self._cut_reason = self._cut_reason or reason
        self._call.cancel()

    async def _translate(self, operation: Any) -> Any:
        try:
            return await operation
        except grpc.aio.AioRpcError as error:
            raise self._cut_reason or status_error(error) from error
        except asyncio.CancelledError:
            # A cut call raises this too, and must not look as if this task were cancelled.
            task = asyncio.current_task()
            if self._cut_reason is None or (task is not None and task.cancelling()):
                raise
            raise self._cut_reason from None


class InferCall(Call):
    """A request with one response; it is sent at once."""

    async def response(self) -> Any:
        """Return the ModelInferResponse.

        Raises:
            ServingError: the answer of the model or of Triton, or the reason of the cut.
        """
        return await self._translate(self._call)
