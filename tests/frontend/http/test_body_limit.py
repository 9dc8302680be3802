from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import HTTPException

from frontend.http import body_limit
from frontend.http.body_limit import MAX_JSON_VALUES, BodyLimit
from tests.fakes.owners import owned
from tests.fakes.web_client import edit
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import WebClient


class Upload:
    """One request whose body comes in chunks, and an app that reads all of it."""

    def __init__(
        self, *chunks: bytes, declared: int | None = None, content_type: str = "application/json"
    ) -> None:
        self.chunks = list(chunks)
        headers = [(b"content-type", content_type.encode())]
        if declared is not None:
            headers.append((b"content-length", str(declared).encode()))
        self.scope: Scope = owned({"type": "http", "headers": headers})
        self.sent_on = b""
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def receive(self) -> Message:
        body = self.chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self.chunks)}

    async def send(self, message: Message) -> None:
        raise AssertionError("the app answers nothing")

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            self.sent_on += message["body"]
            more = message["more_body"]
        await self.go_on.wait()


def limit(upload: Upload, **bounds: Any) -> BodyLimit:
    return limited(upload.app, **{"max_pending_bytes": 1000} | bounds)


def limited(app: ASGIApp, **bounds: Any) -> BodyLimit:
    few = {"max_bytes": 10, "max_pending_bytes": 10, "max_uploads": 10, "owner_fraction": 1}
    return BodyLimit(app, **few | bounds)


async def run(limiter: BodyLimit, upload: Upload) -> int:
    """Run one request and return the status it is refused with, or 200."""
    try:
        await limiter(upload.scope, upload.receive, upload.send)
    except HTTPException as error:
        return error.status_code
    return 200


class Stalled(Upload):
    """An upload whose last chunk never comes."""

    async def receive(self) -> Message:
        if len(self.chunks) == 1:
            await asyncio.Event().wait()
        return await super().receive()


@pytest.mark.parametrize("bound", ["PART_TIMEOUT_S", "BODY_TIMEOUT_S"])
async def test_a_stalled_body_is_refused_and_no_longer_counted(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limit, bound, 0.05)
    upload = Stalled(b"0123456", b"7")
    limiter = limit(upload, max_pending_bytes=10)
    assert await run(limiter, upload) == 408
    assert await run(limiter, Upload(b"0123456789")) == 200


async def test_waiting_for_the_client_to_leave_has_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_limit, "PART_TIMEOUT_S", 0.05)
    left = asyncio.Event()

    async def receive() -> Message:
        if upload.chunks:
            return await Upload.receive(upload)
        await left.wait()
        return {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        asyncio.get_running_loop().call_later(0.2, left.set)
        assert (await receive())["type"] == "http.disconnect"

    upload = Upload(b"0")
    await limited(app)(upload.scope, receive, upload.send)


@pytest.mark.parametrize("declared", [None, 10])
async def test_a_body_at_the_bound_passes_whole(declared: int | None) -> None:
    upload = Upload(b"01234", b"56789", declared=declared)
    assert await run(limit(upload), upload) == 200
    assert upload.sent_on == b"0123456789"


async def test_a_declared_excess_is_refused_before_anything_is_read() -> None:
    upload = Upload(b"0", declared=11)
    assert await run(limit(upload), upload) == 413
    assert upload.chunks == [b"0"]


async def test_an_undeclared_or_understated_excess_is_refused_when_it_comes() -> None:
    for declared in (None, 5):
        upload = Upload(b"0123456789", b"0", b"never read", declared=declared)
        assert await run(limit(upload), upload) == 413
        assert upload.chunks == [b"never read"]


async def test_values_are_counted_over_all_chunks() -> None:
    half = b"[]," * (MAX_JSON_VALUES // 4)
    upload = Upload(half, half, half)
    assert await run(limit(upload, max_bytes=10**6, max_pending_bytes=10**6), upload) == 400
    upload = Upload(half)
    assert await run(limit(upload, max_bytes=10**6, max_pending_bytes=10**6), upload) == 200


async def test_pictures_beside_json_are_no_json_values() -> None:
    picture = bytes(range(256)) * 8192  # 2 MiB, in which each of the counted bytes stands often
    for content_type in ("multipart/form-data; boundary=x", "image/png", "text/plain"):
        upload = Upload(picture, content_type=content_type)
        assert await run(limit(upload, max_bytes=2**22, max_pending_bytes=2**22), upload) == 200
        assert upload.sent_on == picture


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/problem+json",
        "application/json, text/plain",
        "application/json/x",
        "application / json",
        "application/jsonp",
        "text/json",
        "json",
        "",
        "multipart/form-data; boundary=x",
    ],
)
async def test_values_are_counted_exactly_where_the_application_parses_json(
    client: WebClient, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    broken = await client.http.post("/api/smart-mask", content=b"{", headers=headers)
    bomb = await client.http.post("/api/smart-mask", content=b"[]," * 10_001, headers=headers)
    assert broken.status_code == bomb.status_code == 400
    parsed = broken.json()["detail"].startswith("body: not JSON")
    counted = bomb.json()["detail"] == "body: more than 10000 JSON values"
    assert parsed == counted
    if not parsed:
        assert "sent as application/json" in bomb.json()["detail"]


async def test_all_bodies_together_are_bounded_and_given_back() -> None:
    upload = Upload(b"0123456789")
    limiter = limit(upload, max_pending_bytes=15)
    upload.go_on.clear()
    first = asyncio.create_task(run(limiter, upload))
    await asyncio.sleep(0)
    second = Upload(b"0123456789")
    assert await run(limiter, second) == 503
    upload.go_on.set()
    assert await first == 200
    third = Upload(b"0123456789")
    assert await run(limiter, third) == 200


async def test_other_protocols_pass() -> None:
    passed = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    upload = Upload()
    limiter = limited(app)
    await limiter({"type": "lifespan"}, upload.receive, upload.send)
    assert passed == ["lifespan"]


async def test_a_stream_whose_request_never_comes_whole_is_refused(
    client: WebClient, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton.hold()
    task_id = await client.submit(edit())
    monkeypatch.setattr(body_limit, "PART_TIMEOUT_S", 0.1)
    async with peer(client) as stranger:
        await stranger.send(
            f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 10\r\n\r\n".encode()
        )
        status, _, body = await stranger.answer()
        assert (status, body) == (408, {"detail": "body: did not come in time"})
    triton.release()


@pytest.mark.parametrize("answers_first", [True, False])
async def test_a_body_that_does_not_come_cuts_no_answer(
    monkeypatch: pytest.MonkeyPatch, answers_first: bool
) -> None:
    monkeypatch.setattr(body_limit, "PART_TIMEOUT_S", 0.05)
    leaves = asyncio.Event()

    async def send(message: Message) -> None:
        assert message["status"] == 200

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if answers_first:
            await send(start)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        if not answers_first:
            await send(start)
        await asyncio.sleep(0.2)  # several times the deadline
        leaves.set()
        assert (await waiting)["type"] == "http.disconnect"

    scope = owned({"type": "http", "headers": [(b"content-length", b"10")]})
    await limited(app)(scope, receive, send)


async def test_an_answer_frees_the_place_of_its_body() -> None:
    answering, go_on = asyncio.Event(), asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answering.set()
        await go_on.wait()

    async def send(message: Message) -> None:
        assert message["status"] == 200

    # Two bodies do not fit beside each other.
    limiter = limited(app, max_pending_bytes=15)
    running = []
    for _ in range(3):
        upload = Upload(b"[]" * 5)
        running.append(asyncio.create_task(limiter(upload.scope, upload.receive, send)))
        await answering.wait()
        answering.clear()
    go_on.set()
    await asyncio.gather(*running)
