"""Owns the attackers: bounded, and only against a server on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.server import Server

PIECE = 65536


def connect(server: Server, receive_bytes: int | None = None) -> socket.socket:
    """Open a connection.

    Args:
        server: a server on this machine.
        receive_bytes: of the socket's buffer; None: the kernel's default.
    """
    address = urlsplit(server.url)
    assert address.hostname == "127.0.0.1"
    opened = socket.socket()
    opened.settimeout(10)
    if receive_bytes is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    opened.connect((address.hostname, address.port))
    return opened


@contextlib.asynccontextmanager
async def crowd(
    server: Server, count: int, data: bytes = b"", receive_bytes: int | None = None
) -> AsyncIterator[list[socket.socket]]:
    """Hold `count` connections that have sent `data` and do nothing more.

    Those that the server refuses at once are among them.
    """
    with contextlib.ExitStack() as stack:
        sockets = []

        def gather() -> None:
            for _ in range(count):
                each = stack.enter_context(connect(server, receive_bytes))
                with contextlib.suppress(OSError):
                    each.sendall(data)
                sockets.append(each)

        # In a thread: the loop takes the times of the well-behaved client.
        await asyncio.to_thread(gather)
        yield sockets


def pour(server: Server, beginning: bytes, filling: bytes, most: int) -> int:
    """Send a beginning, then the filling over and over.

    Returns:
        How many bytes the server took before it ended the connection, at most `most`.
    """
    block = filling * (PIECE // len(filling))
    taken = 0
    with connect(server) as opened, contextlib.suppress(OSError):
        opened.sendall(beginning)
        while taken < most:
            opened.sendall(block)
            taken += len(block)
    return taken


def is_open(opened: socket.socket) -> bool:
    """Return whether the server has left a connection open, and drop what it has sent."""
    opened.setblocking(False)
    try:
        while opened.recv(PIECE):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
