"""The benchmarks' client reads the event stream as the server frames it."""

import httpx
import pytest

from benchmarks import client as rest

STREAM = """\
id: 1

data: {"status": "queued", "current_step": 0, "error": null}

: ping

id: 2

data: {"status": "processing", "current_step": 1, "error": null}

id: 3

data: {"status": "done", "current_step": 1, "error": null}

"""


def connected(stream: str) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/generate/stream/abc"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=stream)

    return httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(answer))


async def test_numbers_and_messages_belong_together() -> None:
    async with connected(STREAM) as client:
        received = await rest.follow(client, "abc")
    assert [(event.number, event.message["status"]) for event in received] == [
        (1, "queued"),
        (2, "processing"),
        (3, "done"),
    ]
    assert received[0].at <= received[1].at <= received[2].at


async def test_a_job_that_fails_is_an_error() -> None:
    failed = STREAM.replace('"done", "current_step": 1, "error": null', '"error", "error": "no"')
    async with connected(failed) as client:
        with pytest.raises(RuntimeError, match="abc: no"):
            await rest.follow(client, "abc")


async def test_a_stream_that_ends_early_is_an_error() -> None:
    async with connected(STREAM.partition("id: 3")[0]) as client:
        with pytest.raises(RuntimeError, match="ended before the job"):
            await rest.follow(client, "abc")


async def test_an_unknown_job_is_an_error() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, json={"detail": "no"}))
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        with pytest.raises(httpx.HTTPStatusError):
            await rest.follow(client, "abc")
