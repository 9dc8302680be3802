"""How a stream ends that nothing closes in time, or that is closed while the loop stands still."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import grpc
import pytest

from frontend.errors import ModelCancelledError, TritonDownError
from frontend.triton.stream import DRAIN_TIMEOUT_S, InferStream

if TYPE_CHECKING:
    from collections.abc import Callable


class UnbegunCall:
    """A call of grpc.aio that ends before its metadata was sent: its write waits for ever."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._callbacks: list[Callable[[object], None]] = []

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._callbacks.append(callback)

    def cancel(self) -> None:
        self.end()

    def end(self) -> None:
        self._ended.set()
        for callback in self._callbacks:
            callback(self)

    async def write(self, _request: object) -> None:
        await asyncio.Event().wait()

    async def done_writing(self) -> None:
        await self._ended.wait()

    async def read(self) -> object:
        await self._ended.wait()
        none = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, "gone")


async def test_a_write_to_a_call_that_ends_before_it_has_begun_ends_too() -> None:
    call = UnbegunCall()
    responses = InferStream(call, object()).responses()
    reading = asyncio.ensure_future(anext(responses))
    await asyncio.sleep(0)
    call.end()
    async with asyncio.timeout(30):
        with pytest.raises(TritonDownError):
            await reading


async def test_a_cut_ends_it_with_its_reason() -> None:
    stream = InferStream(UnbegunCall(), object())
    reading = asyncio.ensure_future(anext(stream.responses()))
    await asyncio.sleep(0)
    stream.cut(ModelCancelledError("first"))
    async with asyncio.timeout(30):
        with pytest.raises(ModelCancelledError, match="first"):
            await reading


class ClosingCall:
    """A call of grpc.aio that Triton closes after an error, while the loop stands still."""

    def __init__(self) -> None:
        self.was_cut = False
        self._messages = [SimpleNamespace(error_message="[CANCELLED] the job was cancelled")]
        self._open = True

    def add_done_callback(self, _callback: Callable[[object], None]) -> None:
        pass

    def cancel(self) -> None:
        self.was_cut |= self._open

    async def write(self, _request: object) -> None:
        pass

    async def done_writing(self) -> None:
        pass

    async def read(self) -> object:
        if self._messages:
            return self._messages.pop()
        time.sleep(DRAIN_TIMEOUT_S + 0.2)  # noqa: ASYNC251 (that is what happens)
        for _ in range(4):  # gRPC passes on what has come meanwhile
            await asyncio.sleep(0)
        self._open = False
        return grpc.aio.EOF


async def test_a_loop_that_stands_still_cuts_no_stream_that_closes() -> None:
    call = ClosingCall()
    with pytest.raises(ModelCancelledError):
        await anext(InferStream(call, object()).responses())
    assert not call.was_cut
