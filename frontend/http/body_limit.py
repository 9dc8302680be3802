"""Owns the bounds on request bodies, before anything reads them."""

from __future__ import annotations

import asyncio
import email.message
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from frontend.errors import ServingError
from frontend.http.access import owner_of
from frontend.shares import Holdings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# 64 MB of `[],[],` would become gigabytes of objects. A real request has dozens of values.
MAX_JSON_VALUES = 10_000
# How long a whole body may take: 64 MiB in five minutes are 2 Mbit/s.
BODY_TIMEOUT_S = 300.0
# How long each part of it may take. A byte now and then would not be enough.
PART_TIMEOUT_S = 30.0
PART_BYTES = 64 * 1024
_VALUE_STARTS = (b",", b"[", b"{")
# What a body may be coded as, and the status where it is something else.
_CODINGS = {
    "Content-Encoding": ({"", "identity"}, 415),
    # RFC 9112, 6.1. The server undoes one "chunked", and passes everything before it on.
    "Transfer-Encoding": ({"", "chunked"}, 501),
}


class BodyLimit:
    """ASGI middleware that refuses a body as soon as the body is known to exceed a bound.

    Once the application answers, nothing reads the body any more, and no bound cuts the answer.

    Args:
        app: the application behind it.
        max_bytes: bound on one body.
        max_pending_bytes: bound on all bodies whose requests are being handled.
        max_uploads: bound on the requests whose bodies are on their way.
        owner_fraction: of either bound, for one owner.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_pending_bytes: int,
        max_uploads: int,
        owner_fraction: float,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._bytes = Holdings("bytes of uploads", max_pending_bytes, owner_fraction)
        self._uploads = Holdings("uploads", max_uploads, owner_fraction)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its body while the application reads it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        owner = owner_of(scope).name
        declared = int(headers.get("content-length", "0"))
        counts_values = _is_json(headers.get("content-type"))
        received = counted = values = 0
        complete = answered = uploading = False
        clock = asyncio.get_running_loop().time
        deadline = clock() + BODY_TIMEOUT_S
        part_end, part_deadline = PART_BYTES, clock() + PART_TIMEOUT_S

        def uncount() -> None:
            nonlocal counted
            self._bytes.add(owner, -counted)
            counted = 0

        def end_upload() -> None:
            nonlocal uploading
            self._uploads.add(owner, -uploading)
            uploading = False

        async def send_noting(message: Message) -> None:
            nonlocal answered
            answered = True
            # Whoever answers has read what it needs, and keeps none of it.
            uncount()
            end_upload()
            await send(message)

        async def bounded() -> Message:
            nonlocal received, counted, values, complete, uploading, part_end, part_deadline
            if complete or answered:
                # Unbounded: the application now waits for the client to disconnect.
                return await receive()
            self._check_size(declared)
            _check_codings(headers)
            if not uploading and (declared or "transfer-encoding" in headers):
                _check(self._uploads, owner)
                self._uploads.add(owner)
                uploading = True
            try:
                async with asyncio.timeout_at(min(deadline, part_deadline)):
                    message = await receive()
            except TimeoutError:
                if answered:
                    return await receive()
                raise HTTPException(408, "body: did not come in time") from None
            complete = not message.get("more_body", False)
            chunk = message.get("body", b"")
            if answered:
                return message
            if complete:
                end_upload()
            received += len(chunk)
            if received >= part_end:
                part_end, part_deadline = received + PART_BYTES, clock() + PART_TIMEOUT_S
            self._check_size(received)
            _check(self._bytes, owner, len(chunk))
            counted += len(chunk)
            self._bytes.add(owner, len(chunk))
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
            uncount()
            end_upload()

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"body: more than {self._max_bytes} bytes")


def _check_codings(headers: Headers) -> None:
    for name, (known, status) in _CODINGS.items():
        coding = ", ".join(headers.getlist(name))
        if coding.strip().lower() not in known:
            raise HTTPException(
                status, f"{name}: {coding[:20]} is not supported, send the body as it is"
            )


def _check(holdings: Holdings, owner: str, amount: int = 1) -> None:
    try:
        holdings.check(owner, amount)
    except ServingError as error:
        # FastAPI, which reads the body, passes on no other exception.
        raise HTTPException(error.status, error.detail) from None


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
