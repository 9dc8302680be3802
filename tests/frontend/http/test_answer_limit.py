"""Large answers: sent in pieces, counted once, given up when nobody reads."""

from __future__ import annotations

import asyncio
import json
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI

from frontend.errors import ClosingError, JobNotFoundError, ServingError, StoreAwayError
from frontend.http import answer_limit
from frontend.http.answer_limit import PIECE_BYTES, SMALL_BYTES, AnswerLimit, Stored, StoredAnswer
from frontend.http.answers import HANDLERS
from frontend.http.crashes import CrashAnswer
from frontend.http.head import HeadAsGet
from frontend.http.refusals import RefusalLog
from tests.fakes.owners import owned
from tests.fakes.web_client import WebClient, b64, edit, scene, square_mask
from tests.frontend.conftest import listening
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

SCOPE = owned({"type": "http", "method": "GET", "path": "/x", "headers": []})


class Reader:
    """A client that reads once it may."""

    def __init__(self) -> None:
        self.status = 0
        self.pieces: list[bytes] = []
        self.whole = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.begun = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.begun.set()
            return
        await self.reads.wait()
        self.pieces.append(message["body"])
        self.whole = not message.get("more_body", False)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def answering(body: bytes) -> AnswerLimit:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        length = str(len(body)).encode()
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    return AnswerLimit(app, max_pending_bytes=3 * SMALL_BYTES, owner_fraction=1)


@pytest.mark.parametrize("size", [0, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES])
async def test_an_answer_arrives_whole_in_small_pieces(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    reader = Reader()
    await answering(body)(SCOPE, reader.receive, reader.send)
    assert reader.body == body
    assert reader.whole
    assert max(map(len, reader.pieces)) <= SMALL_BYTES


async def test_what_does_not_fit_beside_unread_answers_is_refused() -> None:
    limit = answering(b"x" * (2 * SMALL_BYTES))
    readers = [Reader() for _ in range(3)]
    for reader in readers:
        reader.reads.clear()
    tasks = [asyncio.create_task(limit(SCOPE, each.receive, each.send)) for each in readers]
    for reader in readers:
        await reader.begun.wait()
    # The same bytes for all of them, so they count once.
    assert [reader.status for reader in readers] == [200, 200, 200]
    assert limit._bytes.sum == 2 * SMALL_BYTES

    other = Reader()
    limit._app = answering(bytes(2 * SMALL_BYTES))._app
    await limit(SCOPE, other.receive, other.send)
    assert other.status == 503
    assert json.loads(other.body) == {"detail": "The server is busy with bytes of answers"}
    for reader in readers:
        reader.reads.set()
    await asyncio.gather(*tasks)
    assert limit._bytes.sum == 0
    again = Reader()
    await limit(SCOPE, again.receive, again.send)
    assert (again.status, again.whole) == (200, True)


async def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_limit, "READ_TIMEOUT_S", 0.05)
    limit, reader = answering(b"x" * (2 * SMALL_BYTES)), Reader()
    reader.reads.clear()
    await limit(SCOPE, reader.receive, reader.send)
    assert not reader.whole
    assert limit._bytes.sum == 0


async def test_a_stream_begins_before_its_first_byte() -> None:
    first = asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await first.wait()
        await send({"type": "http.response.body", "body": b"event"})

    reader = Reader()
    task = asyncio.create_task(AnswerLimit(app, 10, 1)(SCOPE, reader.receive, reader.send))
    async with asyncio.timeout(30):
        await reader.begun.wait()
    first.set()
    await task


@dataclass
class InMemory:
    """A store's blob, which comes in pieces of its own."""

    data: bytes
    error: ServingError | None = None
    """Why it comes no more."""

    async def size(self) -> int:
        return len(self.data)

    async def piece(self, at: int, count: int) -> bytes:
        if self.error:
            raise self.error
        return self.data[at : at + min(count, 10_000)]


LOST = pytest.mark.parametrize(
    "error", [JobNotFoundError("a"), StoreAwayError("The store is away"), ClosingError()]
)


@pytest.mark.parametrize("size", [0, 1, 2, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 2])
async def test_a_stored_part_is_sent_as_base64(size: int) -> None:
    data = bytes(number % 251 for number in range(size))

    reader = Reader()
    answer = StoredAnswer([b"<", Stored(InMemory(data), as_base64=True), b">"], "text/plain")
    await answer(SCOPE, reader.receive, reader.send)
    assert reader.body == b"<" + b64(data).encode() + b">"
    assert answer.headers["content-length"] == str(len(reader.body))


@LOST
async def test_a_part_that_the_store_forgets_ends_the_answer_unfinished(
    error: ServingError,
) -> None:
    blob = InMemory(b"x" * (3 * PIECE_BYTES))
    reader = Reader()
    reader.reads.clear()
    answer = StoredAnswer([Stored(blob)], "text/plain")
    sending = asyncio.create_task(answer(SCOPE, reader.receive, reader.send))
    await reader.begun.wait()
    blob.error = error
    reader.reads.set()
    await sending
    assert 0 < len(reader.body) < 3 * PIECE_BYTES
    assert not reader.whole


async def test_half_an_answer_is_no_fault_of_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Ending(InMemory):
        async def piece(self, at: int, count: int) -> bytes:
            if at:
                raise ClosingError()
            return self.data[:count]

    app = FastAPI()
    blob = Ending(b"x" * (3 * PIECE_BYTES))
    app.add_api_route("/blob", lambda: StoredAnswer([Stored(blob)], "image/png"))
    async with listening(app) as url, WebClient(url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.http.get("/blob")
    assert caplog.records == []


@LOST
async def test_an_answer_whose_beginning_the_store_has_not_is_refused(error: ServingError) -> None:
    def answer() -> StoredAnswer:
        blob = InMemory(b"x" * (3 * PIECE_BYTES), error)
        return StoredAnswer([b"<", b"<", Stored(blob)], "image/png")

    app = FastAPI(exception_handlers=HANDLERS)
    app.state.refusals = RefusalLog()
    app.add_api_route("/blob", answer)
    app.add_middleware(AnswerLimit, max_pending_bytes=SMALL_BYTES, owner_fraction=1)
    app.add_middleware(CrashAnswer, refusals=app.state.refusals)
    async with listening(app) as url, WebClient(url) as client:
        refused = await client.http.get("/blob")
    assert refused.status_code == error.status
    assert refused.json() == {"detail": error.detail}


class Endless:
    """A blob that no reader comes to the end of."""

    async def size(self) -> int:
        return 10**15

    async def piece(self, at: int, count: int) -> bytes:
        await asyncio.sleep(0)
        return bytes(count)


class Noting:
    """Middleware that tells when a request has ended."""

    def __init__(self, app: ASGIApp, ended: asyncio.Event) -> None:
        self._app = app
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "http":
            self._ended.set()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_is_read_for_a_client_that_has_left(method: str) -> None:
    app, ended = FastAPI(), asyncio.Event()
    app.add_api_route("/blob", lambda: StoredAnswer([Stored(Endless())], "image/png"))
    app.add_middleware(AnswerLimit, max_pending_bytes=SMALL_BYTES, owner_fraction=1)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Noting, ended=ended)
    async with listening(app) as url, WebClient(url) as client, peer(client) as leaving:
        await leaving.send(f"{method} /blob HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await leaving.begun()
        if method == "GET":
            assert not ended.is_set()
            leaving.leave()
        async with asyncio.timeout(30):
            await ended.wait()


async def test_debug_pictures_stay_away_where_they_are_not_wanted(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.info = {"debug_info": {"conditional_images": ["x" * 1_000_000]}}
    async with serve() as client:
        _, result = await client.finish()
        path = f"/api/generate/result/{result['task_id']}"
        small = await client.http.get(path, params={"debug": "false"})
        assert len(small.content) < 10_000
        assert small.json() == result | {"debug_info": None}


async def test_the_archive_holds_both_pictures(serve: Serve) -> None:
    async with serve() as client:
        _, result = await client.finish(edit(input_image=b64(scene(300))))
        path = f"/api/visualization/{result['task_id']}/download"
        archive = zipfile.ZipFile(BytesIO((await client.http.get(path)).content))
        assert archive.testzip() is None
        assert archive.read("original.png") == scene(300)
        assert b64(archive.read("generated.png")) == result["image"]


async def test_a_large_mask_arrives_whole(serve: Serve) -> None:
    body = {"image": b64(scene(700)), "mask": b64(square_mask(700))}
    async with serve() as client:
        answer = await client.http.post("/api/image-utils/extract-object", json=body)
        assert len(answer.content) > 2 * SMALL_BYTES
        assert answer.json()["success"]
