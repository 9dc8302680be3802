from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from frontend.domain import EditParams, EditProgress, EditResult
from frontend.errors import (
    BackendError,
    EditCancelledError,
    InvalidInputError,
    ServingError,
    TritonAwayError,
)
from frontend.triton.client import TritonClient
from frontend.triton.tensors import edit_update
from tests.fakes.pictures import png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.triton.stream import InferStream
    from tests.fakes.triton_server import FakeTriton


@pytest.fixture
async def triton_client(triton: FakeTriton) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.url)
    yield client
    await client.close()


def params(steps: int = 3, image: bytes = b"") -> EditParams:
    return EditParams(
        prompt="", image=image or png(), task_type="removal", num_inference_steps=steps, seed=1
    )


async def updates(stream: InferStream) -> list[Any]:
    return [edit_update(response) async for response in stream.responses()]


async def test_an_edit_streams_to_its_result(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    *progress, result = await updates(triton_client.edit("a", params(), 10))
    assert isinstance(result, EditResult)
    assert all(isinstance(update, EditProgress) for update in progress)
    assert [update.stage for update in progress].count("denoising") == 3
    assert triton.cut_streams == []


async def test_large_messages_pass_both_ways(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.info = {"debug_info": "x" * 20_000_000}
    result = (await updates(triton_client.edit("a", params(image=bytes(20_000_000)), 30)))[-1]
    assert len(result.info) > 20_000_000
    assert len(triton.requests["a"]["IMAGE"][0]) == 20_000_000


async def test_an_error_is_raised_once_triton_has_closed_the_stream(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.refuse = "[INVALID_ARGUMENT] prompt: no"
    with pytest.raises(InvalidInputError, match="prompt: no"):
        await updates(triton_client.edit("a", params(), 10))
    assert triton.cut_streams == []


async def test_a_cut_stream_ends_with_the_first_reason(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 5
    stream = triton_client.edit("a", params(), 10)
    reading = asyncio.create_task(updates(stream))
    await asyncio.sleep(0.05)
    stream.cut(EditCancelledError("first"))
    stream.cut(BackendError("second"))
    with pytest.raises(EditCancelledError, match="first"):
        await reading
    await asyncio.sleep(0.05)
    assert triton.cut_streams == ["a"]


async def test_a_stream_cut_before_it_is_read_says_why(triton_client: TritonClient) -> None:
    stream = triton_client.edit("a", params(), 10)
    stream.cut(BackendError("too late"))
    with pytest.raises(BackendError, match="too late"):
        await updates(stream)


async def test_cancelling_the_reader_is_not_taken_for_a_cut(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 5
    reading = asyncio.create_task(updates(triton_client.edit("a", params(), 10)))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.sleep(0.05)
    assert triton.live == 0


async def test_an_abandoned_stream_is_cut(triton_client: TritonClient, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 5
    stream = triton_client.edit("a", params(), 10)
    async with contextlib.aclosing(stream.responses()) as responses:
        await anext(responses)
    await asyncio.sleep(0.05)
    assert triton.live == 0


async def test_a_deadline_is_an_error(triton_client: TritonClient, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 5
    with pytest.raises(BackendError, match="did not finish in time"):
        await updates(triton_client.edit("a", params(), 0.1))


async def test_a_cancel_tells_whether_it_found_its_job(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 5
    reading = asyncio.create_task(updates(triton_client.edit("a", params(), 10)))
    await asyncio.sleep(0.05)
    assert not (await triton_client.cancel("b")).cancelled
    assert (await triton_client.cancel("a")).cancelled
    with pytest.raises(EditCancelledError):
        await reading
    assert triton.cut_streams == []


async def test_an_absent_triton_is_away_at_once_and_found_when_it_returns(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    await triton.kill()
    calls = (triton_client.cancel(""), triton_client.mismatches())
    for call in (*calls, updates(triton_client.edit("a", params(), 10))):
        with pytest.raises(TritonAwayError):
            async with asyncio.timeout(2):
                await call
    await triton.start()
    async with asyncio.timeout(3):
        while True:
            with contextlib.suppress(ServingError):
                await triton_client.cancel("")
                break
            await asyncio.sleep(0.05)


async def test_the_loaded_models_tensors_are_compared(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    assert await triton_client.mismatches() == []
    del triton.behaviour.config.input[0]
    assert await triton_client.mismatches() == ["input PROMPT TYPE_STRING [1] is missing"]
