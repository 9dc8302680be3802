"""Owns a TCP link to a server that can be cut, or stand still, as networks do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Link:
    """Passes bytes on between its own port and a server's; an asynchronous context manager.

    Args:
        port: of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._is_cut = False
        # Of the connections that came before and after each `swallow`.
        self._flows: list[asyncio.Event] = []
        self._new_flow()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self._flow()
        await self._server.wait_closed()
        await asyncio.gather(*self._connections)

    @property
    def connections(self) -> int:
        """Number of connections that have come and not ended."""
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection, and each new one, until `heal`."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def stand_still(self) -> None:
        """Pass no byte on until `heal`; nobody is told."""
        self._flowing.clear()

    def swallow(self) -> None:
        """Pass no byte on of the connections that there are; new ones are good."""
        self._flowing.clear()
        self._new_flow()

    def _new_flow(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._flows.append(self._flowing)

    def heal(self) -> None:
        """Be a good link again."""
        self._is_cut = False
        self._flow()

    def _flow(self) -> None:
        for flowing in self._flows:
            flowing.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        flowing = self._flowing
        async with contextlib.AsyncExitStack() as writers:
            await writers.enter_async_context(self._known(writer))
            await flowing.wait()
            if self._is_cut:
                writer.transport.abort()
                return
            try:
                far = await asyncio.open_connection("127.0.0.1", self._target)
            except OSError:  # the server itself is away
                writer.transport.abort()
                return
            await writers.enter_async_context(self._known(far[1]))
            await asyncio.gather(
                self._pass(reader, far[1], flowing), self._pass(far[0], writer, flowing)
            )

    @contextlib.asynccontextmanager
    async def _known(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.remove(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(2**16):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
