"""Owns the bounds on request bodies, before anything reads them."""

from __future__ import annotations

import asyncio
import email.message
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from model_kit.memory import Returns, give_back

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# 64 MB of `[],[],` would become gigabytes of objects. A real request has dozens of values.
MAX_JSON_VALUES = 10_000
# How long a whole body may take, and one part of it: 64 MiB in five minutes are 2 Mbit/s.
BODY_TIMEOUT_S = 300.0
PART_TIMEOUT_S = 30.0
# Of each byte of a body: itself, its text, its file, and the pixels in it.
BYTES_OF_BODY = 4
_VALUE_STARTS = (b",", b"[", b"{")


class BodyLimit:
    """ASGI middleware that refuses a body as soon as the body is known to exceed a bound.

    Once the application answers, nothing reads the body any more, and no bound cuts the answer.

    Args:
        app: the application behind it.
        max_bytes: bound on one body.
        max_pending_bytes: bound on all bodies whose requests are being handled.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_pending_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._returns = Returns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its body while the application reads it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = int(headers.get("content-length", "0"))
        counts_values = _is_json(headers.get("content-type"))
        received = counted = values = 0
        complete = answered = False
        clock = asyncio.get_running_loop().time
        deadline = clock() + BODY_TIMEOUT_S

        async def send_noting(message: Message) -> None:
            nonlocal counted, answered
            answered = True
            # Whoever answers has read what it needs, and keeps none of it.
            self._pending_bytes -= counted
            counted = 0
            await send(message)

        async def bounded() -> Message:
            nonlocal received, counted, values, complete
            if complete or answered:
                # Unbounded: the application now waits for the client to disconnect.
                return await receive()
            self._check_size(declared)
            if (encoding := headers.get("content-encoding", "identity")) != "identity":
                raise HTTPException(
                    415,
                    f"Content-Encoding: {encoding[:20]} is not supported, send the body as it is",
                )
            try:
                async with asyncio.timeout_at(min(deadline, clock() + PART_TIMEOUT_S)):
                    message = await receive()
            except TimeoutError:
                if answered:
                    return await receive()
                raise HTTPException(408, "body: did not come in time") from None
            complete = not message.get("more_body", False)
            chunk = message.get("body", b"")
            if answered:
                return message
            received += len(chunk)
            counted += len(chunk)
            self._pending_bytes += len(chunk)
            self._check_size(received)
            if self._pending_bytes > self._max_pending_bytes:
                raise HTTPException(503, "The server is busy with uploads")
            if counts_values:
                # Base64 contains none of these bytes; `in` finds that out ten times faster
                # than `count`.
                values += sum(chunk.count(start) for start in _VALUE_STARTS if start in chunk)
                if values > MAX_JSON_VALUES:
                    raise HTTPException(400, f"body: more than {MAX_JSON_VALUES} JSON values")
            return message

        try:
            await self._app(scope, bounded, send_noting)
        finally:
            self._pending_bytes -= counted
            if self._returns.is_due(BYTES_OF_BODY * received):
                # Off the loop, because it walks through all that is free.
                asyncio.get_running_loop().run_in_executor(None, give_back)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"body: more than {self._max_bytes} bytes")


def _is_json(content_type: str | None) -> bool:
    """Return whether FastAPI parses a body of this type as JSON; this is FastAPI's own rule."""
    if not content_type:
        return False
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
