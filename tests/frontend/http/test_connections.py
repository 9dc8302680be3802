"""Connections from outside, on real sockets, against their bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Response
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from frontend.http import connections
from frontend.http.connections import (
    LINGER_BYTES,
    MAX_BACKLOG,
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    RESERVED_FILES,
    Addresses,
    Connections,
    raise_file_limit,
)
from frontend.settings import Settings
from tests.fakes.bad_masks import mask_request
from tests.fakes.pictures import b64, encoded
from tests.fakes.web_client import WebClient, edit
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually
from tests.frontend.peer import Peer, peer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = (
    b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
SOON = 1.0  # seconds, in which a test sends what it has to; the sweep adds one


async def refusal(connected: Peer) -> tuple[int, str]:
    """Return the status and the sentence of a refusal, and check its form."""
    status, headers, body = await connected.answer()
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert ("retry-after" in headers) == (status == 503)
    assert await connected.closed() == b""
    assert isinstance(body["detail"], str)
    return status, body["detail"]


@pytest.mark.parametrize(
    "endless",
    [b"X-Long: " + b"a" * (2 * MAX_HEAD_BYTES), b"a:b\r\n" * MAX_HEAD_BYTES],
    ids=["one header", "many headers"],
)
async def test_a_head_has_a_bound(client: WebClient, endless: bytes) -> None:
    async with peer(client) as connected:
        await connected.send(HEAD + endless)
        assert await refusal(connected) == (431, f"head: more than {MAX_HEAD_BYTES} bytes")


async def test_a_head_within_the_bound_is_read(client: WebClient) -> None:
    async with peer(client) as connected:
        for _ in range(3):
            padding = b"a" * (MAX_HEAD_BYTES - len(HEAD) - len(b"X: \r\n\r\n"))
            await connected.send(HEAD + b"X: " + padding + b"\r\n\r\n")
            assert (await connected.answer())[0] == 200


@pytest.mark.parametrize("target", [b"/" + b"a" * 40_000, b"/?" + b"a" * 40_000])
async def test_a_long_target_is_part_of_the_head(client: WebClient, target: bytes) -> None:
    async with peer(client) as connected:
        await connected.send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await refusal(connected))[0] == 431


@pytest.mark.parametrize(
    "between",
    [b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 20_000, b"1\r\nx\r\n" + b"0" * 100_000],
    ids=["trailers", "size of a chunk"],
)
async def test_what_stands_between_bodies_has_the_same_bound(
    client: WebClient, between: bytes
) -> None:
    async with peer(client) as connected:
        await connected.send(CHUNKED + between)
        told = 400, f"body: more than {MAX_HEAD_BYTES} bytes between its parts"
        assert await refusal(connected) == told


BROKEN_BODIES = [
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n",
    b"fffffffffffffffff\r\n",
    b"5\r\nhelloXX5\r\n",
    b'5\r\n{"im"\r\nQQ\r\n',
]


@pytest.mark.parametrize("path", ["/api/smart-mask", "/api/generate", "/api/smart-mask/cancel/x"])
@pytest.mark.parametrize("body", BROKEN_BODIES, ids=lambda body: ascii(body[:9]))
async def test_a_body_whose_framing_cannot_be_read_is_told_so(
    serve: Serve, body: bytes, path: str
) -> None:
    head = CHUNKED.replace(b"/api/generate", path.encode()).replace(
        b"\r\n\r\n", b"\r\nOrigin: http://web\r\n\r\n"
    )
    async with serve(log_level="info", cors_origins=("http://web",)) as client:
        for parts in ([head + body], [head, body]):
            with capture_logs() as entries:
                async with peer(client) as connected:
                    for part in parts:
                        await connected.send(part)
                    status, headers, answer = await connected.answer()
                    assert await connected.closed() == b""
            assert status == 400
            assert answer == {"detail": "body: cannot be read, because its chunks are not HTTP/1.1"}
            assert headers["connection"] == "close"
            assert headers["access-control-allow-origin"] == "http://web"
            logged = [each for each in entries if each["event"].startswith(("conn", "request"))]
            assert [(each["event"], each["status"]) for each in logged] == [
                ("request_refused", 400)
            ]


@pytest.mark.parametrize("path", ["/api/generate/multi-steps", "/livez", "/nowhere"])
async def test_a_broken_body_that_nobody_reads_changes_no_answer(
    client: WebClient, path: str
) -> None:
    async with peer(client) as connected:
        await connected.send(CHUNKED.replace(b"/api/generate", path.encode()) + b"zz\r\n")
        status, headers, _ = await connected.answer()
        assert status in (404, 405, 501)
        assert headers["connection"] == "close"
        assert await connected.closed() == b""


async def test_a_body_that_breaks_behind_its_answer_gets_no_second_one(client: WebClient) -> None:
    async with peer(client) as connected:
        await connected.send(CHUNKED.replace(b"/api/generate", b"/nowhere"))
        assert (await connected.answer())[0] == 404
        await connected.send(b"zz\r\n")
        assert await connected.closed() == b""


def posted(path: str, request: object) -> bytes:
    """Return a whole request."""
    body = json.dumps(request).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


JUNK = [
    *(b"x", b" \n", b"GARBAGE\r\n\r\n", b"GET http://a HTTP/1.1\r\n\r\n"),
    b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * MAX_HEAD_BYTES,
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: ascii(junk[:9]))
async def test_a_whole_request_gets_its_own_answer_whatever_follows(
    serve: Serve, triton: FakeTriton, junk: bytes
) -> None:
    triton.masks.behaviour.delay_s = 60
    async with serve(log_level="info") as client, peer(client) as connected:
        with capture_logs() as entries:
            await connected.send(posted("/api/smart-mask", mask_request()))
            await eventually(lambda: triton.masks.live == 1)
            await connected.send(junk)
            await eventually(lambda: "connection_not_kept" in [each["event"] for each in entries])
            # More than a client may send behind its answer.
            for _ in range(4):
                await connected.send(b"x" * LINGER_BYTES)
            triton.masks.release()
            status, headers, body = await connected.answer()
        assert (status, body["success"], headers["connection"]) == (200, True, "close")
        assert await connected.closed() == b""
    assert triton.masks.cancelled == []
    assert "connection_refused" not in [each["event"] for each in entries]


async def test_a_length_in_characters_is_told_what_it_cuts_off(client: WebClient) -> None:
    body = json.dumps(edit(prompt="é" * 20), ensure_ascii=False)
    async with peer(client) as connected:
        await connected.send(
            b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
        )
        status, detail = await refusal(connected)
        assert status == 400
        assert detail.startswith("body: not JSON: ")


async def test_an_edit_is_queued_whatever_follows(client: WebClient) -> None:
    async with peer(client) as connected:
        await connected.send(posted("/api/generate", edit()) + b"x")
        status, headers, body = await connected.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await connected.closed() == b""
    await client.wait_status(body["task_id"], "done")


async def test_a_stream_goes_on_whatever_follows(client: WebClient, triton: FakeTriton) -> None:
    triton.hold()
    task_id = await client.submit()
    async with peer(client) as connected:
        request = f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await connected.send(request.encode())
        await connected.begun()
        await connected.send(b"\x00junk")
        triton.release()
        received = await connected.closed()
    assert b'"status":"done"' in received
    assert received.endswith(b"\r\n0\r\n\r\n")


async def test_what_was_asked_before_a_broken_body_is_answered_first(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    async with peer(client) as connected:
        await connected.send(posted("/api/smart-mask", mask_request()))
        await eventually(lambda: triton.masks.live == 1)
        await connected.send(HEAD + b"\r\n" + CHUNKED + b"zz\r\n")
        triton.masks.release()
        assert (await connected.answer())[0] == 200
        status, headers, _ = await connected.answer()
        assert (status, headers.get("connection")) == (200, None)
        assert (await refusal(connected))[0] == 400


async def test_a_large_answer_comes_whole_whatever_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_S", 0.02)
    app = FastAPI()
    answered = asyncio.Event()

    @app.get("/large")
    async def large() -> Response:
        return PlainTextResponse("x" * 30_000_000, background=BackgroundTask(answered.set))

    async with listening(app) as url, WebClient(url) as client, peer(client) as connected:
        await connected.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\njunk")
        await answered.wait()
        await asyncio.sleep(0.5)  # many times as long as a connection lingers that has sent all
        received = await connected.closed()
    assert received.endswith(b"\r\n\r\n" + b"x" * 30_000_000)


async def test_where_no_more_may_linger_only_refusals_go_unsaid(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_LINGERING", 0)
    async with serve(log_level="info") as client, peer(client) as junk, peer(client) as whole:
        with capture_logs() as entries:
            await junk.send(b"junk\r\n\r\n")
            assert await junk.closed() == b""
        events = [each["event"] for each in entries]
        assert "connection_cut" in events
        assert "connection_refused" not in events
        await whole.send(posted("/api/generate", edit()) + b"x")
        assert (await whole.answer())[0] == 200
        assert await whole.closed() == b""


async def test_a_refused_upload_is_not_reset(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_S", 60.0)  # the client is the one that closes
    async with serve(max_body_bytes=1000) as client:
        loop, url = asyncio.get_running_loop(), client.http.base_url
        with socket.create_connection((url.host, url.port)) as uploading:
            uploading.setblocking(False)
            head = (
                b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: close\r\nContent-Length: 900000\r\n\r\n"
            )
            # A client reads only once it has sent, so what the server has not read lies there.
            await loop.sock_sendall(uploading, head + b"x" * 900_000)
            received = b""
            while piece := await loop.sock_recv(uploading, 65536):
                received += piece
    assert received.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("version", ["1.0", "0.9"])
async def test_an_old_client_gets_a_stream_without_chunks(client: WebClient, version: str) -> None:
    task_id = await client.submit()
    path = f"/api/generate/stream/{task_id}"
    whole = (await client.http.get(path)).content
    async with peer(client) as connected:
        await connected.send(f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        head, body = (await connected.closed()).split(b"\r\n\r\n", 1)
    assert body == whole
    assert b"transfer-encoding" not in head
    assert [line for line in head.split(b"\r\n") if line.startswith(b"connection")] == [
        b"connection: close"
    ]


async def test_an_old_client_gets_other_answers_with_their_length(client: WebClient) -> None:
    body = b"x" * 10
    async with peer(client) as connected:
        await connected.send(
            b"POST /api/generate HTTP/1.0\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert (await refusal(connected))[0] == 400  # and no 100 before it


@pytest.mark.parametrize("asked", ["", "Connection: close\r\n"])
async def test_a_stream_says_at_most_once_how_its_connection_ends(
    client: WebClient, asked: str
) -> None:
    task_id = await client.submit()
    await client.follow(task_id)
    async with peer(client) as connected:
        await connected.send(
            f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n{asked}\r\n"
            "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
        )
        received = await connected.closed()
    assert b"keep-alive" not in received
    assert received.count(b"connection: close") == 1


async def test_requests_ahead_of_their_answers_have_a_bound(client: WebClient) -> None:
    async with peer(client) as connected:
        await connected.send((HEAD + b"\r\n") * (MAX_PIPELINED // 2))
        for _ in range(MAX_PIPELINED // 2):
            assert (await connected.answer())[0] == 200
        await connected.send((HEAD + b"\r\n") * 2000)
        received = await connected.closed()
        answers = received.count(b"HTTP/1.1 200")
        assert 0 < answers < 2000
        # Those that it may send are answered, and the last one tells that no other will be.
        assert received.count(b"connection: close") == 1
        assert received[received.rindex(b"HTTP/1.1 200") :].count(b"connection: close") == 1


@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize(
    "line",
    [
        *(b"\x16\x03\x01 hello", b"CONNECT x:443 HTTP/1.1", b"GET http://a HTTP/1.1"),
        *(b"GET http://[::1 HTTP/1.1", b"GET http:///x HTTP/1.1", b"GET http://a:99999/x HTTP/1.1"),
    ],
)
async def test_what_is_not_http_is_told_so(client: WebClient, line: bytes, answers: int) -> None:
    async with peer(client) as connected:
        for _ in range(answers):
            await connected.send(HEAD + b"\r\n")
            assert (await connected.answer())[0] == 200
        await connected.send(line + b"\r\n\r\n")
        assert await refusal(connected) == (400, "not a readable HTTP/1.1 request")


async def test_an_upgrade_is_passed_over(client: WebClient) -> None:
    async with peer(client) as connected:
        await connected.send(HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await connected.answer())[0] == 200


async def test_half_a_head_is_told_that_it_is_late(serve: Serve) -> None:
    async with serve(head_timeout_s=SOON) as client, peer(client) as first, peer(client) as later:
        await first.send(HEAD)
        await later.send(HEAD + b"\r\n")
        await later.answer()
        await later.send(b"G")
        for each in (first, later):
            assert await refusal(each) == (408, "head: did not come in time")


async def test_one_that_sends_nothing_is_closed(serve: Serve) -> None:
    async with serve(head_timeout_s=SOON) as client, peer(client) as silent:
        assert await silent.closed() == b""


async def test_bytes_that_begin_no_request_do_not_keep_a_connection(serve: Serve) -> None:
    async with serve(head_timeout_s=SOON) as client, peer(client) as dripping:
        closing = asyncio.create_task(dripping.closed())
        while not closing.done():
            with contextlib.suppress(ConnectionError):
                await dripping.send(b"\r\n")
            await asyncio.sleep(0.05)
        assert await closing == b""


async def test_a_body_that_nobody_reads_does_not_keep_a_connection(serve: Serve) -> None:
    async with serve(head_timeout_s=SOON) as client, peer(client) as connected:
        await connected.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert (await connected.answer())[0] == 200
        assert await connected.closed() == b""


async def test_a_slow_upload_is_no_late_head(serve: Serve) -> None:
    async with serve(head_timeout_s=SOON) as client, peer(client) as connected:
        await connected.send(
            b"POST /api/smart-mask/cancel/x HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Length: 3\r\n\r\n"
        )
        for _ in range(3):  # together more than a sweep and the deadline of a head
            await asyncio.sleep(SOON)
            await connected.send(b"x")
        assert (await connected.answer())[0] == 200


async def test_an_idle_connection_makes_room(serve: Serve) -> None:
    async with serve(max_connections=16) as client, contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(peer(client)) for _ in range(40)]
        assert (await client.http.get("/livez")).status_code == 200
        assert await idle[0].closed() == b""


async def test_one_that_was_never_answered_makes_room_first(serve: Serve) -> None:
    async with serve(max_connections=16) as client, contextlib.AsyncExitStack() as stack:
        guest = await stack.enter_async_context(peer(client))
        await guest.send(HEAD + b"\r\n")
        assert (await guest.answer())[0] == 200
        silent = [await stack.enter_async_context(peer(client)) for _ in range(40)]
        assert await silent[0].closed() == b""
        await guest.send(HEAD + b"\r\n")
        assert (await guest.answer())[0] == 200


async def test_connections_that_work_are_not_closed_for_new_ones(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    bounds = {"max_connections": 16, "owner_fraction": 1}
    async with serve(**bounds) as client, contextlib.AsyncExitStack() as stack:
        stack.callback(triton.release)
        await client.http.get("/livez")
        task_id = await client.submit()
        busy = []
        for number in range(20):
            each = await stack.enter_async_context(peer(client))
            # A body that is not there yet: an answer is due.
            await each.send(
                b"POST /api/smart-mask HTTP/1.1\r\n"
                b"Host: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 9\r\n\r\n"
            )
            busy.append(each)
            if number == 0:
                first = each
        told = await refusal(busy[-1])
        assert told == (503, "The server has as many connections open as it may")
        await first.send(b"{}       ")
        assert (await first.answer())[0] == 400
        triton.release()
        await client.cancel(task_id)


async def test_an_address_has_a_bound_and_a_trusted_proxy_has_none(serve: Serve) -> None:
    bounds = {"max_connections_per_address": 2}
    async with serve(**bounds, trusted_proxies=()) as client, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(peer(client))
        async with peer(client) as third:
            told = await refusal(third)
            assert told == (503, "This address has as many connections open as it may")
    async with serve(**bounds) as client, contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(peer(client))
        assert (await client.http.get("/livez")).status_code == 200


def test_a_network_of_ipv6_is_one_address() -> None:
    addresses = Addresses(2, 100, ("2001:db8:2::1/128",))
    for held in ("2001:db8:1::1", "2001:db8:1::2"):
        assert addresses.may_hold(held)
        addresses.hold(held)
    assert not addresses.may_hold("2001:db8:1::3")
    assert addresses.may_hold("2001:db8:2::1")
    assert addresses.may_hold("192.0.2.1")
    addresses.release("2001:db8:1::1")
    assert addresses.may_hold("2001:db8:1::3")


async def test_a_proxy_is_trusted_at_a_socket_for_both_kinds_of_addresses() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse(scope["client"][0])(scope, receive, send)

    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::", 0))
        settings = Settings()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connections(settings, 100).protocol,
                log_config=None,
                forwarded_allow_ips=list(settings.trusted_proxies),
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await eventually(lambda: server.started)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient() as client:
                answer = await client.get(url, headers={"X-Forwarded-For": "192.0.2.1"})
            assert answer.text == "192.0.2.1"
        finally:
            server.should_exit = True
            await serving


async def test_streams_have_a_bound_for_the_address_that_the_proxy_names(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    # Eight streams in all, and a quarter of them for one owner.
    bounds = {"max_connections": 16, "owner_fraction": 0.25}
    async with serve(**bounds) as client, contextlib.AsyncExitStack() as stack:
        stack.callback(triton.release)

        async def open_streams(address: str) -> list[int]:
            headers = {"X-Forwarded-For": address}
            submitted = await client.http.post("/api/generate", json=edit(), headers=headers)
            path = f"/api/generate/stream/{submitted.json()['task_id']}"
            codes = []
            for _ in range(3):
                opened = client.http.stream("GET", path, headers=headers)
                answer = await stack.enter_async_context(opened)
                codes.append(answer.status_code)
                if answer.status_code == 429:
                    await answer.aread()
                    assert "event streams" in answer.json()["detail"]
                    assert int(answer.headers["retry-after"]) > 0
            return codes

        assert await open_streams("192.0.2.1") == [200, 200, 429]
        assert await open_streams("192.0.2.2") == [200, 200, 429]
        triton.release()


async def opened(client: WebClient, path: str) -> None:
    """Wait until an event stream can be opened."""
    async with asyncio.timeout(30):
        while True:
            async with client.http.stream("GET", path) as again:
                if again.status_code == 200:
                    return


async def test_a_stream_that_is_left_is_not_counted_any_more(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve(max_connections=16, owner_fraction=0.1) as client:
        task_id = await client.submit()
        path = f"/api/generate/stream/{task_id}"
        async with client.http.stream("GET", path) as first:
            assert first.status_code == 200
        await opened(client, path)
        triton.release()


async def test_a_stream_that_is_left_with_a_request_behind_it_is_not_counted_any_more(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    bounds = {"max_connections": 16, "owner_fraction": 0.1}
    async with serve(**bounds) as client, contextlib.AsyncExitStack() as stack:
        stack.callback(triton.release)
        path = f"/api/generate/stream/{await client.submit()}"
        leaving = await stack.enter_async_context(peer(client))
        await leaving.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await leaving.begun()
        await leaving.send(HEAD + b"\r\n")
        assert (await client.http.get(path)).status_code == 429
        leaving.leave()
        await opened(client, path)
        triton.release()


async def test_a_mask_that_is_left_with_a_request_behind_it_is_cancelled(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    body = json.dumps(mask_request(image=b64(encoded("PNG", (8, 8))), image_id=None)).encode()
    async with peer(client) as leaving:
        await leaving.send(
            b"POST /api/smart-mask HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await eventually(lambda: triton.masks.live == 1)
        await leaving.send(HEAD + b"\r\n")
        leaving.leave()
    await eventually(lambda: len(triton.masks.cancelled) == 1)


async def test_one_that_does_not_read_is_cut(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.info = {"debug_info": {"conditional_images": ["x" * 30_000_000]}}
    async with serve(write_timeout_s=SOON) as client:
        task_id = await client.submit(edit())
        await client.wait_status(task_id, "done")
        async with peer(client) as lazy:
            await lazy.send(
                f"GET /api/generate/result/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            await lazy.let_go()
            received = await lazy.closed()
            assert received.startswith(b"HTTP/1.1 200")
            assert len(received) < 30_000_000
        # One that reads gets all of it.
        answer = await client.http.get(f"/api/generate/result/{task_id}")
        assert len(answer.content) > 30_000_000
        assert answer.json()["task_id"] == task_id


@pytest.mark.parametrize(
    ("limits", "most", "backlog", "raised_to"),
    [
        ((1024, 1_048_576), 1024, MAX_BACKLOG, 65_536),
        ((256, resource.RLIM_INFINITY), 1024, MAX_BACKLOG, 65_536),
        ((1_048_576, 1_048_576), 1024, MAX_BACKLOG, 1_048_576),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1024, MAX_BACKLOG, -1),
        ((1024, 2048), 1024, 512, 2048),
        ((300, 300), 300 - RESERVED_FILES, RESERVED_FILES // 2, 300),
        ((64, 64), 32, 16, 64),
    ],
)
def test_the_limit_of_open_files_is_raised_and_a_reserve_kept(
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    most: int,
    backlog: int,
    raised_to: int,
) -> None:
    held = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: held[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: held.__setitem__(0, new))
    assert raise_file_limit(Settings(max_connections=1024)) == (most, backlog)
    assert held[0] == (raised_to, limits[1])


async def test_the_bounds_count_nobody_twice(serve: Serve) -> None:
    async with serve(max_connections_per_address=4, trusted_proxies=()) as client:
        for _ in range(30):
            async with peer(client) as connected:
                await connected.send(HEAD + b"Connection: close\r\n\r\n")
                assert (await connected.answer())[0] == 200
                assert await connected.closed() == b""
