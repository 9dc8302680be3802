from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode as Status

from frontend.domain.edits import EditParams, EditProgress, EditResult
from frontend.domain.masks import MaskPrompts
from frontend.errors import (
    BackendError,
    InvalidInputError,
    ModelCancelledError,
    NotCachedError,
    ServingError,
    TritonDownError,
    UnavailableError,
)
from frontend.triton.client import TritonClient
from frontend.triton.edit_tensors import IMAGE_EDIT, edit_update
from frontend.triton.mask_tensors import SMART_MASK, mask_result
from tests.fakes.mask_model import MASK
from tests.fakes.pictures import png
from tests.frontend.eventually import eventually

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


CLICK = MaskPrompts(points=((1.0, 2.0),))


async def updates(stream: InferStream) -> list[Any]:
    return [edit_update(response) async for response in stream.responses()]


async def test_an_edit_streams_to_its_result(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    *progress, result = await updates(triton_client.edit("a", params()))
    assert isinstance(result, EditResult)
    assert all(isinstance(update, EditProgress) for update in progress)
    assert [update.stage for update in progress].count("denoising") == 3
    assert triton.cut_streams == []


async def test_large_messages_pass_both_ways(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.info = {"debug_info": "x" * 20_000_000}
    result = (await updates(triton_client.edit("a", params(image=bytes(20_000_000)))))[-1]
    assert len(result.info) > 20_000_000
    assert len(triton.requests["a"]["IMAGE"][0]) == 20_000_000


async def test_an_error_is_raised_once_triton_has_closed_the_stream(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.refuse = "[INVALID_ARGUMENT] prompt: no"
    with pytest.raises(InvalidInputError, match="prompt: no"):
        await updates(triton_client.edit("a", params()))
    assert triton.cut_streams == []


async def test_a_cut_stream_ends_with_the_first_reason(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 60
    stream = triton_client.edit("a", params())
    reading = asyncio.create_task(updates(stream))
    await eventually(lambda: triton.live)
    stream.cut(ModelCancelledError("first"))
    stream.cut(BackendError("second"))
    with pytest.raises(ModelCancelledError, match="first"):
        await reading
    await eventually(lambda: triton.cut_streams == ["a"])


async def test_a_stream_cut_before_it_is_read_says_why(triton_client: TritonClient) -> None:
    stream = triton_client.edit("a", params())
    stream.cut(BackendError("too late"))
    with pytest.raises(BackendError, match="too late"):
        await updates(stream)


async def test_cancelling_the_reader_is_not_taken_for_a_cut(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 60
    reading = asyncio.create_task(updates(triton_client.edit("a", params())))
    await eventually(lambda: triton.live)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await eventually(lambda: triton.live == 0)


async def test_an_abandoned_stream_is_cut(triton_client: TritonClient, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 60
    stream = triton_client.edit("a", params())
    async with contextlib.aclosing(stream.responses()) as responses:
        await anext(responses)
    await eventually(lambda: triton.live == 0)


async def test_a_cancel_tells_whether_it_found_its_job(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 60
    reading = asyncio.create_task(updates(triton_client.edit("a", params())))
    await eventually(lambda: triton.live)
    assert not (await triton_client.cancel_edit("b")).cancelled
    assert (await triton_client.cancel_edit("a")).cancelled
    with pytest.raises(ModelCancelledError):
        await reading
    assert triton.cut_streams == []


async def test_an_absent_triton_is_away_at_once_and_found_when_it_returns(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    await triton.kill()
    calls = (
        triton_client.cancel_edit(""),
        triton_client.cancel_mask(""),
        triton_client.mismatches(IMAGE_EDIT),
        triton_client.mask("a", CLICK, b"image", 60).response(),
        updates(triton_client.edit("a", params())),
    )
    for call in calls:
        with pytest.raises(TritonDownError):
            async with asyncio.timeout(20):
                await call
    await triton.start()
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(ServingError):
                await triton_client.cancel_edit("")
                break
            await asyncio.sleep(0.05)


async def test_the_loaded_models_tensors_are_compared(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    assert await triton_client.mismatches(IMAGE_EDIT) == []
    del triton.behaviour.config.input[0]
    assert await triton_client.mismatches(IMAGE_EDIT) == ["input PROMPT TYPE_STRING [1] is missing"]
    assert await triton_client.mismatches(SMART_MASK) == []


async def test_a_mask_comes_in_one_answer(triton_client: TritonClient, triton: FakeTriton) -> None:
    picture = bytes(20_000_000)
    first = mask_result(await triton_client.mask("a", CLICK, picture, 300).response())
    again = mask_result(await triton_client.mask("b", CLICK, first.image_id, 300).response())
    assert (first.cached, again.cached) == (False, True)
    assert first.mask == again.mask == MASK
    sent, named = triton.masks.requests
    assert len(sent["IMAGE"][0]) == 20_000_000
    assert named == {"IMAGE_ID": [first.image_id.encode()], "POINTS": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("refuse", "kind", "text"),
    [
        ((Status.INVALID_ARGUMENT, "[INVALID_ARGUMENT] POINTS: no"), InvalidInputError, "POINTS"),
        ((Status.UNKNOWN, "wrapped: [UNAVAILABLE] full"), UnavailableError, "^full$"),
        ((Status.INTERNAL, "[INTERNAL] log"), BackendError, "^log$"),
        ((Status.CANCELLED, "[CANCELLED] by whom?"), ModelCancelledError, "^by whom"),
        ((Status.INTERNAL, "Failed, At: /secret.py"), BackendError, "failed with INTERNAL$"),
        ((Status.UNAVAILABLE, "unavailable"), TritonDownError, "not available"),
        ((Status.NOT_FOUND, "unknown model 'smart_mask'"), TritonDownError, "does not have"),
    ],
)
async def test_how_a_mask_can_fail(
    triton_client: TritonClient,
    triton: FakeTriton,
    refuse: tuple[Status, str],
    kind: type[ServingError],
    text: str,
) -> None:
    triton.masks.behaviour.refuse = refuse
    with pytest.raises(kind, match=text):
        await triton_client.mask("a", CLICK, b"image", 60).response()


async def test_an_unknown_picture_differs_from_an_unknown_model(
    triton_client: TritonClient,
) -> None:
    with pytest.raises(NotCachedError):
        await triton_client.mask("a", CLICK, "0" * 64, 60).response()


async def test_a_dead_process_is_away(triton_client: TritonClient, triton: FakeTriton) -> None:
    triton.masks.behaviour.dead = True
    for call in (
        triton_client.mask("a", CLICK, b"i", 60).response(),
        triton_client.cancel_mask(""),
    ):
        with pytest.raises(TritonDownError, match="process has died"):
            await call


async def test_a_mask_has_a_deadline(triton_client: TritonClient, triton: FakeTriton) -> None:
    triton.masks.behaviour.delay_s = 60
    with pytest.raises(BackendError, match="did not finish in time"):
        await triton_client.mask("a", CLICK, b"image", 0.1).response()
    await eventually(lambda: triton.masks.live == 0)


async def test_a_cancelled_mask_is_no_cancelled_task(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    waiting = asyncio.create_task(triton_client.mask("a", CLICK, b"image", 60).response())
    await eventually(lambda: triton.masks.live)
    assert not (await triton_client.cancel_mask("b")).cancelled
    assert (await triton_client.cancel_mask("a")).cancelled
    with pytest.raises(ModelCancelledError):
        await waiting
    assert triton.masks.cut == []


async def test_a_cut_mask_ends_with_the_reason(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    call = triton_client.mask("a", CLICK, b"image", 60)
    waiting = asyncio.create_task(call.response())
    await eventually(lambda: triton.masks.live)
    call.cut(BackendError("first"))
    with pytest.raises(BackendError, match="first"):
        await waiting
    await eventually(lambda: triton.masks.cut == ["a"])


async def test_a_mask_nobody_waits_for_is_cut(
    triton_client: TritonClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    waiting = asyncio.create_task(triton_client.mask("a", CLICK, b"image", 60).response())
    await eventually(lambda: triton.masks.live)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: triton.masks.cut == ["a"])


async def test_a_ping_tells_about_the_masks_too(triton_client: TritonClient) -> None:
    state = await triton_client.cancel_mask("")
    assert (state.bundle, state.cancelled, state.cache["images"]) == ("fake-masks", False, 0)
