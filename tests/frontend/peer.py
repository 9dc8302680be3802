"""Owns a client that speaks bytes, for what no HTTP library would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.web_client import WebClient


class _Reader(asyncio.StreamReader):
    """Ends at a reset as at any end: asyncio's forgets then what came before."""

    def set_exception(self, exc: Exception) -> None:
        self.feed_eof()


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return the status, the headers and the JSON of one answer."""
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {
                name.lower(): value for name, value in (line.split(": ") for line in head[1:-1])
            }
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, json.loads(body)

    async def begun(self) -> None:
        """Wait until an answer's first byte has come."""
        async with asyncio.timeout(30):
            await self._reader.readexactly(1)

    def leave(self) -> None:
        """Close the connection at once, whatever has not been read."""
        self._writer.transport.abort()

    async def let_go(self) -> None:
        """Wait, without reading, until the server, which is in this process, has closed its end."""
        _, port = self._writer.get_extra_info("sockname")[:2]
        async with asyncio.timeout(60):
            while any(
                each.raddr and each.raddr.port == port and each.fd != -1
                for each in psutil.Process().net_connections("tcp")
            ):
                await asyncio.sleep(0.05)

    async def closed(self) -> bytes:
        """Wait until the server has closed the connection; return what came before."""
        async with asyncio.timeout(30):
            return await self._reader.read()


@contextlib.asynccontextmanager
async def peer(client: WebClient) -> AsyncIterator[Peer]:
    """Open a connection to the server of `client`."""
    url = client.http.base_url
    assert url.port is not None
    loop = asyncio.get_running_loop()
    reader = _Reader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, url.host, url.port)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
