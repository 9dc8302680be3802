"""The proxy's configuration, by nginx itself before a real frontend; skipped without nginx."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from frontend.http import body_limit
from frontend.http.connections import KEEP_ALIVE_S, MAX_HEAD_BYTES
from frontend.launcher import ports
from frontend.settings import Settings
from frontend.shares import Holdings
from tests.fakes.web_client import WebClient, check_stream, edit
from tests.frontend.eventually import eventually
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

CONFIG = Path(__file__).parents[3] / "docker" / "nginx.conf"
TEXT = CONFIG.read_text()
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def value(name: str) -> str:
    """Return the one value of a directive."""
    (found,) = set(re.findall(rf"^\s*{name} (.+);$", TEXT, re.MULTILINE))
    return str(found)


def test_its_bounds_are_the_frontend_s() -> None:
    settings = Settings()
    count, size = value("large_client_header_buffers").split()
    assert int(count) * int(size.removesuffix("k")) * 1024 == MAX_HEAD_BYTES
    assert f"head: more than {MAX_HEAD_BYTES} bytes" in TEXT
    assert value("client_header_timeout") == f"{settings.head_timeout_s:.0f}s"
    assert value("send_timeout") == f"{settings.write_timeout_s:.0f}s"
    assert value("client_max_body_size") == f"{settings.max_body_bytes // 2**20}m"
    assert value("limit_conn requests") == str(settings.max_connections_per_address)
    assert value("keepalive_timeout") == f"{KEEP_ALIVE_S:.0f}s"


@contextlib.asynccontextmanager
async def proxy(folder: Path, upstream: str, changes: dict[str, str]) -> AsyncIterator[WebClient]:
    """Run nginx on this machine before `upstream`, with the shipped configuration."""
    assert NGINX is not None
    (port,) = ports.free(1)
    changes = {
        "/tmp/": f"{folder}/",
        "frontend:8080": upstream,
        "listen 8081": f"listen 127.0.0.1:{port}",
    } | changes
    text = TEXT
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    if os.getuid() == 0:
        text = "user root;\n" + text
    config = folder / "nginx.conf"
    config.write_text(text)
    command = [NGINX, "-c", str(config), "-p", str(folder), "-e", "stderr"]
    checking = await asyncio.create_subprocess_exec(*command, "-t", stderr=subprocess.PIPE)
    _, said = await checking.communicate()
    assert checking.returncode == 0, said
    assert b"warn" not in said
    process = await asyncio.create_subprocess_exec(*command, "-g", "daemon off;")
    try:
        async with WebClient(f"http://127.0.0.1:{port}") as client:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        await client.http.get("/livez")
                        break
                    await asyncio.sleep(0.02)
            yield client
    finally:
        process.terminate()
        await process.wait()


def upstream_of(client: WebClient) -> str:
    return f"{client.http.base_url.host}:{client.http.base_url.port}"


@needs_nginx
async def test_an_edit_goes_through_it_and_strangers_do_not(serve: Serve, tmp_path: Path) -> None:
    async with serve() as frontend:
        upstream = upstream_of(frontend)
        async with proxy(tmp_path, upstream, {}) as client:
            events, result = await client.finish(edit(num_inference_steps=3))
            check_stream(events, 3)
            shown = await client.http.get(f"/api/generate/result-image/{result['task_id']}")
            assert shown.headers["cache-control"].startswith("private")
            for head, expected in (
                (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000, 431),
                (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
                (b"nonsense\r\n\r\n", 400),
                (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 400),
                (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
                (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ):
                async with peer(client) as stranger:
                    await stranger.send(head)
                    status, _, body = await stranger.answer()
                    assert status == expected
                    assert isinstance(body["detail"], str)
        quick = {"client_header_timeout 10s": "client_header_timeout 1s"}
        async with proxy(tmp_path, upstream, quick) as client:
            for begun in (b"", b"GET /livez HTTP/1.1\r\n"):
                async with peer(client) as stranger:
                    await stranger.send(begun)
                    await stranger.closed()


@needs_nginx
async def test_its_streams_have_a_bound_and_its_users_are_told_apart(
    serve: Serve, triton: FakeTriton, tmp_path: Path
) -> None:
    triton.hold()
    async with serve() as frontend:
        task_id = await frontend.submit(edit(num_inference_steps=100))
        path = f"/api/generate/stream/{task_id}"
        few = {"limit_conn streams 64": "limit_conn streams 2"}
        async with proxy(tmp_path, upstream_of(frontend), few) as client:
            async with (
                client.http.stream("GET", path) as first,
                client.http.stream("GET", path, headers={"X-Forwarded-For": "192.0.2.9"}) as second,
            ):
                # What a client says of itself is not believed: both count as this machine's.
                assert (first.status_code, second.status_code) == (200, 200)
                third = await client.http.get(path)
                assert third.status_code == 503
                assert third.headers["retry-after"] == "5"
                assert "as many" in third.json()["detail"]
            await client.cancel(task_id)


@needs_nginx
async def test_uploads_that_go_on_for_ever_cost_only_their_own_address(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Holdings] = []

    class Noted(Holdings):
        def __init__(self, what: str, total: int, fraction: float) -> None:
            super().__init__(what, total, fraction)
            held.append(self)

    monkeypatch.setattr(body_limit, "Holdings", Noted)
    monkeypatch.setattr(body_limit, "PART_TIMEOUT_S", 3.0)
    size = 4_000_000
    # Half of the bytes for one address: one upload that has not come to its end.
    async with serve(max_pending_body_bytes=int(1.8 * size)) as frontend:
        async with (
            proxy(tmp_path, upstream_of(frontend), {}) as client,
            peer(client) as slow,
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2")) as far,
        ):
            head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}"
            sent = b" " * (int(0.9 * size) - 65536)
            await slow.send(f"POST /api/generate HTTP/1.1\r\n{head}\r\n\r\n".encode() + sent)
            late = asyncio.create_task(slow.answer())
            await eventually(lambda: any(each.sum == len(sent) for each in held))
            own = await client.http.post("/api/generate", content=sent)
            assert own.status_code == 429
            other = await far.post(client.http.base_url.join("/api/generate"), content=sent)
            assert other.status_code == 400
            status, _, body = await late
            assert (status, body) == (408, {"detail": "body: did not come in time"})
            assert (await client.http.post("/api/generate", content=sent)).status_code == 400
        assert not [each for each in (tmp_path / "body").rglob("*") if each.is_file()]


@needs_nginx
async def test_a_frontend_that_is_away_is_a_503(tmp_path: Path) -> None:
    (port,) = ports.free(1)
    async with proxy(tmp_path, f"127.0.0.1:{port}", {}) as client:
        answer = await client.http.get("/livez")
        assert answer.status_code == 503
        assert answer.json() == {"detail": "The frontend does not answer"}
        assert answer.headers["retry-after"] == "5"


class Names(asyncio.DatagramProtocol):
    """A name server that knows one address."""

    address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 600, 4, socket.inet_aton(self.address))
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
        cast("asyncio.DatagramTransport", self.transport).sendto(head + data[12:] + answer, addr)


@needs_nginx
async def test_a_frontend_that_comes_back_with_another_address_is_found(tmp_path: Path) -> None:
    (port,) = ports.free(1)
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
    changes = {"127.0.0.11": "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        where = writer.get_extra_info("sockname")[0].encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(where) + where)
        writer.close()

    async def starts_at(address: str) -> asyncio.Server:
        names.address = address
        return await asyncio.start_server(answer, address, port)

    before = await starts_at("127.0.0.2")
    async with proxy(tmp_path, f"frontend:{port}", changes) as client:
        assert (await client.http.get("/livez")).text == "127.0.0.2"
        before.close()
        after = await starts_at("127.0.0.3")
        async with asyncio.timeout(30):
            while (found := await client.http.get("/livez")).status_code == 503:
                await asyncio.sleep(0.1)
        assert found.text == "127.0.0.3"
        after.close()
    transport.close()
