"""Owns the bounds on large answers: a client that does not read costs a piece, not a picture.

An ASGI server takes a whole body and holds it until the client has read it. So large ones are
handed to it in pieces, each once the client has read those before.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Protocol

import structlog
from starlette.responses import JSONResponse, StreamingResponse

from frontend.errors import RETRY_AFTER_S, ServingError
from frontend.http.access import owner_of
from frontend.shares import Holdings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

# A multiple of 3, so that pieces can be encoded as base64 one by one.
PIECE_BYTES = 24 * 1024
SMALL_BYTES = 64 * 1024
# How long a client may take to read an answer that only it gets: as long as it may take to send.
READ_TIMEOUT_S = 300.0


class AnswerLimit:
    """ASGI middleware that sends large bodies in pieces and bounds how many bytes wait.

    An answer that an owner reads several times at once is counted once.

    Args:
        app: the application behind it.
        max_pending_bytes: bound on all large bodies that are being read.
        owner_fraction: of it, for one owner.
    """

    def __init__(self, app: ASGIApp, max_pending_bytes: int, owner_fraction: float) -> None:
        self._app = app
        self._bytes = Holdings("bytes of answers", max_pending_bytes, owner_fraction)
        # By the body and its owner.
        self._readers: dict[tuple[int, str], int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_in_pieces(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if int(dict(message["headers"]).get(b"content-length", 0)) > SMALL_BYTES:
                    start = message  # held back until its body is there: it may not fit
                else:
                    await send(message)
                return
            body = message.get("body", b"")
            begin, start = start, None
            if len(body) <= SMALL_BYTES:
                if begin is not None:
                    await send(begin)
                await send(message)
                return
            await self._send_large(scope, receive, send, begin, message)

        await self._app(scope, receive, send_in_pieces)

    async def _send_large(
        self, scope: Scope, receive: Receive, send: Send, begin: Message | None, message: Message
    ) -> None:
        body, owner = message["body"], owner_of(scope).name
        try:
            if begin is not None and (id(body), owner) not in self._readers:
                self._bytes.check(owner, len(body))
        except ServingError as error:
            refusal = JSONResponse(
                {"detail": error.detail}, error.status, {"Retry-After": str(RETRY_AFTER_S)}
            )
            await refusal(scope, receive, send)
            return
        self._count(body, owner)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                if begin is not None:
                    await send(begin)
                view = memoryview(body)
                for at in range(0, len(view), PIECE_BYTES):
                    await send(_part(bytes(view[at : at + PIECE_BYTES])))
                await send(_part(b"", more=message.get("more_body", False)))
        except TimeoutError:
            # Half an answer: the server closes the connection.
            log.info("answer_cut", path=scope["path"][:100], bytes=len(body))
        finally:
            self._uncount(body, owner)

    def _count(self, body: bytes, owner: str) -> None:
        readers = self._readers.get((id(body), owner), 0)
        self._readers[id(body), owner] = readers + 1
        if not readers:
            self._bytes.add(owner, len(body))

    def _uncount(self, body: bytes, owner: str) -> None:
        self._readers[id(body), owner] -= 1
        if not self._readers[id(body), owner]:
            del self._readers[id(body), owner]
            self._bytes.add(owner, -len(body))


class Blob(Protocol):
    """Bytes in a store, always the same ones."""

    async def size(self) -> int:
        """Return how many there are."""

    async def piece(self, at: int, count: int) -> bytes:
        """Return at most `count` of them from `at` on; fewer only where the store wants it."""


class Stored:
    """A part of an answer that lies in a store, of which only one piece is held at a time.

    Args:
        blob: the bytes.
        start: where the part begins in them.
        as_base64: whether to send it as base64.
    """

    def __init__(self, blob: Blob, *, start: int = 0, as_base64: bool = False) -> None:
        self._blob = blob
        self._start = start
        self._as_base64 = as_base64

    async def size(self) -> int:
        """Return how many bytes are sent."""
        size = await self._blob.size() - self._start
        return -(-size // 3) * 4 if self._as_base64 else size

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the part in copies of at most SMALL_BYTES."""
        at = self._start
        while piece := await self._piece(at):
            at += len(piece)
            yield base64.b64encode(piece) if self._as_base64 else piece

    async def _piece(self, at: int) -> bytes:
        """Return PIECE_BYTES, and fewer only at the end: base64 is cut at multiples of 3."""
        piece = await self._blob.piece(at, PIECE_BYTES)
        while 0 < len(piece) < PIECE_BYTES and (
            more := await self._blob.piece(at + len(piece), PIECE_BYTES - len(piece))
        ):
            piece += more
        return piece


class StoredAnswer(StreamingResponse):
    """An answer out of a store, which is read as its client reads, and no more once it has left.

    A reader that is slow does not keep the store from forgetting the job. It then gets half an
    answer, and the server closes the connection.

    Args:
        parts: what is sent, in order: bytes of the answer's own, and parts that lie in the store.
        media_type: of the answer.
        headers: further ones.
    """

    def __init__(
        self,
        parts: Sequence[bytes | Stored],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__((), media_type=media_type, headers=headers)
        self._parts = parts

    async def stream_response(self, send: Send) -> None:
        """Send it; the base class cancels this when the client leaves.

        Raises:
            ServingError: the store cannot give its beginning, and nothing has been sent.
        """
        sizes = [
            len(part) if isinstance(part, bytes) else await part.size() for part in self._parts
        ]
        self.headers["Content-Length"] = str(sum(sizes))
        pieces = self._pieces()
        first = await anext(pieces, b"")
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        try:
            await send(_part(first))
            async for piece in pieces:
                await send(_part(piece))
        except ServingError as error:
            log.info("answer_cut", reason=error.detail)
            return
        await send(_part(b"", more=False))

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield all parts; those of the answer's own once the store has given what follows."""
        own: list[bytes] = []
        for part in self._parts:
            if isinstance(part, bytes):
                own.append(part)
                continue
            async for piece in part.pieces():
                for each in own:
                    yield each
                own = []
                yield piece
        for each in own:
            yield each


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
