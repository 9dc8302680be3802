"""Owns the bounds on connections: how many, how long a head may take, how slowly one may read.

uvicorn bounds none of these, and whatever bounds requests begins only behind a complete head. So
this is uvicorn's own protocol with bounds around it. It is the one over httptools, because h11
parses bodies of megabytes in Python; what httptools lacks, a bound on the head, is counted here.

A connection is idle while no answer is due on it. If there are as many connections as may be, an
idle one makes room: first one that was never answered, and of those the one that has been idle
longest. So a flood of idle connections costs nobody else's.

From bytes that cannot be read on, a connection is deaf: it gives the answers that are due, and
closes.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import ipaddress
import json
import resource
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import structlog
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frontend.domain.owners import address_name, unmapped
from frontend.errors import RETRY_AFTER_S, UnavailableError
from frontend.http.refusals import WINDOW_S, Window
from frontend.http.safe_headers import NEVER_STORED, safe_headers
from frontend.loop_time import RunningClock
from frontend.supervision import supervised_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Message, Receive, Scope, Send
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from frontend.settings import Settings

log = structlog.get_logger()

MAX_HEAD_BYTES = 32 * 1024
# Requests that a connection may send ahead of its answers.
MAX_PIPELINED = 16
SWEEP_S = 1.0
# How long a client may take to read the last answer and close, once all of it is sent.
LINGER_S = 1.0
# What it may still send meanwhile.
LINGER_BYTES = 1024 * 1024
MAX_LINGERING = 64
# Files for all else: Triton's channels, psutil, libraries that open theirs late.
RESERVED_FILES = 128
# Files that are enough for this process; the usual limit, 1,024, is there for select alone.
MAX_FILES = 65_536
# uvicorn's own.
MAX_BACKLOG = 2048
KEEP_ALIVE_S = 75.0
# Linux's number of the state of a connection that neither end has closed.
TCP_ESTABLISHED = 1


class Addresses:
    """Counts what each address holds; trusted proxies hold it for others, so they have no bound.

    An IPv6 client holds what its whole network does, as `address_name` says.

    Args:
        most: for each address.
        most_in_all: for all of them and the trusted proxies.
        trusted: addresses or networks of proxies.
    """

    def __init__(self, most: int, most_in_all: int, trusted: tuple[str, ...]) -> None:
        self._most = most
        self._most_in_all = most_in_all
        self._trusted = [ipaddress.ip_network(each) for each in trusted]
        self._held: collections.Counter[str] = collections.Counter()

    @property
    def full(self) -> bool:
        """Whether no address may hold more."""
        return self._held.total() >= self._most_in_all

    def may_hold(self, address: str) -> bool:
        """Return whether the bound of this address lets it hold one more."""
        return self._held[address_name(address)] < self._most or self._is_trusted(address)

    def hold(self, address: str) -> None:
        """Count one more."""
        self._held[address_name(address)] += 1

    def release(self, address: str) -> None:
        """Count one less."""
        name = address_name(address)
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:  # a socket without one
            return True
        return any(parsed in network for network in self._trusted)


class Connections:
    """All connections of one server.

    Args:
        settings: the bounds.
        most: connections in all, after `raise_file_limit`.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        self._settings = settings
        self._most = most
        self._addresses = Addresses(
            settings.max_connections_per_address, most, settings.trusted_proxies
        )
        # In the order of their coming; a dict, because a set has none.
        self._open: dict[BoundedProtocol, None] = {}
        self._lingering = 0
        self._lines = Window(WINDOW_S, lambda count: log.info("connections_left_out", count=count))
        self._clock: RunningClock | None = None
        self._tasks: list[asyncio.Task[object]] = []  # the loop itself holds tasks weakly

    @property
    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn.Config takes as `http`; uvicorn only calls it."""
        return cast("type[asyncio.Protocol]", functools.partial(BoundedProtocol, self))

    @property
    def clock(self) -> RunningClock:
        """Seconds of this server's event loop."""
        if self._clock is None:
            self._clock = RunningClock()
            self._tasks = [
                supervised_task("connections-clock", self._clock.run()),
                supervised_task("connections", self._sweep(self._clock)),
            ]
        return self._clock

    def enter(self, connection: BoundedProtocol) -> str | None:
        """Count a new connection, if need be in the place of an idle one.

        Returns:
            Why it is refused; None if it is not.
        """
        if not self._addresses.may_hold(connection.address):
            return "This address has as many connections open as it may"
        if self._addresses.full and not self._make_room():
            return "The server has as many connections open as it may"
        self._addresses.hold(connection.address)
        self._open[connection] = None
        return None

    def note(self, event: str, **facts: object) -> None:
        """Log what became of a connection, unless a flood of lines would hide all others."""
        if self._lines.has_room():
            log.info(event, **facts)

    def leave(self, connection: BoundedProtocol) -> None:
        """Forget a connection that `enter` counted."""
        if connection in self._open:
            del self._open[connection]
            self._addresses.release(connection.address)

    @contextlib.contextmanager
    def lingering(self) -> Iterator[bool]:
        """Tell whether one more connection may wait until its client has read the last answer."""
        if self._lingering >= MAX_LINGERING:
            yield False
            return
        self._lingering += 1
        try:
            yield True
        finally:
            self._lingering -= 1

    def _make_room(self) -> bool:
        idle = [each for each in self._open if each.idle]
        if not idle:
            return False
        least = min(idle, key=lambda each: (each.was_answered, each.since))
        self.leave(least)
        least.transport.abort()
        return True

    async def _sweep(self, clock: RunningClock) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = clock()
            for connection in list(self._open):
                connection.judge(now, self._settings)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with bounds.

    Args:
        connections: the server's.
        arguments: uvicorn's own.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections
        self._clock = connections.clock
        self.address = ""
        """The peer's, which may be a proxy's."""
        self.since = 0.0
        """When it last became idle, or began to be sent a head; seconds of the running clock."""
        self._stuck_since: float | None = None
        # Bytes since the last one that belonged to a body, as far as the last piece tells: there
        # may be as many again.
        self._between_bodies = 0
        self._has_asked = False
        self._head_open = False
        self._body_open = False
        self._running: RequestResponseCycle | None = None
        self._deaf = False
        self._broken: tuple[RequestResponseCycle, int, str] | None = None
        self._discarded = 0
        self._linger = contextlib.ExitStack()

    @property
    def idle(self) -> bool:
        """Whether no answer is due."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    @property
    def was_answered(self) -> bool:
        """Whether an answer has begun on it, so that its client is likely to ask again."""
        return self.cycle is not None

    def judge(self, now: float, settings: Settings) -> None:
        """Close this connection if one of its times is over, or if its client has left unseen."""
        if self.pipeline and self._is_left():
            self.transport.abort()
            return
        if self._is_stuck():
            self._stuck_since = now if self._stuck_since is None else self._stuck_since
            if now - self._stuck_since > settings.write_timeout_s:
                self._connections.note(
                    "connection_cut", reason="the client does not read its answer"
                )
                self.transport.abort()
            return
        self._stuck_since = None
        if not self.idle or self.transport.is_closing():
            return
        waits_for_next = self._has_asked and not self._head_open and not self._body_open
        limit_s = KEEP_ALIVE_S if waits_for_next else settings.head_timeout_s
        if now - self.since <= limit_s:
            return
        if self._head_open:
            self._refuse(408, "head: did not come in time")
        else:
            self.transport.close()

    def _is_stuck(self) -> bool:
        """Return whether the client has to read before anything goes on.

        uvicorn waits between 64 KiB that are unread and 16. Behind a whole answer nothing waits.
        """
        if self.flow.write_paused:
            return True
        return self.idle and self.transport.get_write_buffer_size() > 0

    def _is_left(self) -> bool:
        """Return whether the client has closed its end.

        uvicorn reads nothing while a request waits for the answer of another, not even the end.
        """
        if self.transport.is_closing():
            return False
        info = self.transport.get_extra_info("socket")
        return bool(info.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED)

    # --- asyncio's calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        if self.client:
            # A socket for both kinds of addresses has an IPv4 client, and so a proxy, as IPv6.
            self.address = unmapped(self.client[0])
            self.client = self.address, self.client[1]
        self.since = self._clock()
        if reason := self._connections.enter(self):
            self._refuse(503, reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.leave(self)
        self._linger.close()
        super().connection_lost(exc)
        # uvicorn tells only the newest request, which may wait behind this one, and never begin.
        if self._running is not None:
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, as far as no bound is exceeded."""
        unread = memoryview(data)
        if self._deaf:
            if self.idle and not self.transport.get_write_buffer_size():
                self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        while unread and not self._deaf and not self.transport.is_closing():
            # A piece never brings the count above the bound by more than one byte.
            piece = unread[: MAX_HEAD_BYTES + 1 - self._between_bodies]
            unread = unread[len(piece) :]
            self._between_bodies += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]  # httptools takes any buffer
            if self._between_bodies <= MAX_HEAD_BYTES:
                continue
            if self._body_open:
                self._refuse(400, f"body: more than {MAX_HEAD_BYTES} bytes between its parts")
            else:
                self._refuse(431, f"head: more than {MAX_HEAD_BYTES} bytes")

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._stuck_since = None
        super().resume_writing()

    # --- httptools' calls ---

    def on_message_begin(self) -> None:
        """Note when the head began."""
        super().on_message_begin()
        self._head_open = self._has_asked = True
        if self.idle:
            self.since = self._clock()

    def on_headers_complete(self) -> None:
        """Note that the head is there.

        Raises:
            OverflowError: too many are there already; the parser stops, and uvicorn refuses.
            Exception: uvicorn's, of a target that it cannot read; it refuses then, too.
        """
        if len(self.pipeline) >= MAX_PIPELINED:
            raise OverflowError
        super().on_headers_complete()
        self._head_open, self._body_open = False, True
        self._between_bodies = 0

    def on_body(self, body: bytes) -> None:
        """Note that a part of the body is there."""
        self._between_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is there."""
        self._body_open = False
        self._between_bodies = 0
        super().on_message_complete()
        if self.idle:
            self.since = self._clock()

    # --- uvicorn's calls ---

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Note which request is being answered."""
        self._running = cycle
        cycle.transport = cast("asyncio.Transport", _AnswerTransport(self.transport, self._end))

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def receive_readable() -> Message:
                self._check_body(cycle)
                message = await receive()
                self._check_body(cycle)
                return message

            if scope["http_version"] != "1.1":
                # Such a client knows neither chunks nor 100 Continue.
                cycle.waiting_for_100_continue = False
                send = _until_close(cycle, send)
            await _closing_half_answers(cycle, app, scope, receive_readable, send)

        super()._start_asgi_task(cycle, cast("ASGI3Application", run))

    def _check_body(self, cycle: RequestResponseCycle) -> None:
        """Refuse a request whose body cannot be read, unless an answer has begun.

        Raises:
            HTTPException: which the application answers, as it does where a body is too large.
        """
        if self._broken is None or cycle.response_started or cycle.disconnected:
            return
        broken, status, detail = self._broken
        if broken is cycle:
            raise HTTPException(status, detail)

    def on_response_complete(self) -> None:
        """Note that the answer is out."""
        super().on_response_complete()
        # This server's own sweep counts the time, also that of a body which nobody reads.
        self._unset_keepalive_if_required()
        self.since = self._clock()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if it had not asked for an upgrade."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Answer what is not HTTP."""
        if self._body_open:
            self._refuse(400, "body: cannot be read, because its chunks are not HTTP/1.1")
        else:
            self._refuse(400, "not a readable HTTP/1.1 request")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with an error where HTTP allows it, then close.

        Requests before this one get their answers first: RFC 9112, 9.3.2.
        """
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        if self._body_open and not self.idle:
            self.cycle.keep_alive = False
            # The application answers, so that a page of another origin may read that too.
            self._broken = self.cycle, status, detail
            self.cycle.message_event.set()
        elif self._body_open or not self.idle:
            # No request is left that this could be the answer to.
            self._connections.note("connection_not_kept", reason=detail)
            self.cycle.keep_alive = False
            if self.idle:
                self._linger_on()
        elif self._linger.enter_context(self._connections.lingering()):
            self._connections.note("connection_refused", status=status, detail=detail)
            self.transport.write(_answer(status, detail))
            self._half_close()
        else:
            self._connections.note("connection_cut", reason=detail)
            self.transport.abort()

    # --- the end ---

    def _end(self) -> None:
        """Close behind an answer, and not at once if its client may be sending."""
        running = self._running
        is_open = not self.transport.is_closing() and (self._deaf or self._body_open)
        if is_open and running and running.response_complete:
            # None of those that wait is begun any more.
            self.pipeline.clear()
            self.cycle = running
            self._deaf = True
            self._linger_on()
        else:
            self.transport.close()

    def _linger_on(self) -> None:
        if self._linger.enter_context(self._connections.lingering()):
            self._half_close()
        else:
            self.transport.close()

    def _half_close(self) -> None:
        """Send the end; the kernel would drop an answer if all was closed with bytes unread."""
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._abort_once_sent)

    def _abort_once_sent(self) -> None:
        # `judge` ends one that does not read.
        if self.transport.get_write_buffer_size():
            self.loop.call_later(LINGER_S, self._abort_once_sent)
        else:
            self.transport.abort()


class _AnswerTransport:
    """What uvicorn writes an answer to.

    Args:
        transport: the connection's.
        close: what ends the connection instead.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _until_close(cycle: RequestResponseCycle, send: Send) -> Send:
    """Return what sends an answer without chunks: one of unknown length ends by closing."""
    unsized = False

    async def send_plainly(message: Message) -> None:
        nonlocal unsized
        if message["type"] == "http.response.start":
            unsized = b"content-length" not in dict(message["headers"])
            if unsized:
                cycle.chunked_encoding = cycle.keep_alive = False
        elif unsized:
            # uvicorn holds what it sends against this number.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_plainly


def raise_file_limit(settings: Settings) -> tuple[int, int]:
    """Raise this process's limit of open files as far as may be, up to MAX_FILES.

    Returns:
        How many connections may be open, so that RESERVED_FILES are left for all else; and the
        backlog, how many more may be accepted before the first of them is counted.
    """
    wanted = settings.max_connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.max_connections, MAX_BACKLOG
    aim = max(wanted, MAX_FILES)
    if soft < aim:
        soft = aim if hard == resource.RLIM_INFINITY else min(aim, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = settings.max_connections
    if soft < wanted:
        most = max(soft - RESERVED_FILES, soft // 2)
        log.warning("few_open_files", limit=soft, connections=most)
    return most, min((soft - most) // 2, MAX_BACKLOG)


async def _closing_half_answers(
    cycle: RequestResponseCycle, app: ASGI3Application, *connection: Any
) -> None:
    """Run an application that may end an answer in its middle, and says why in the log.

    uvicorn would call that a fault of the application's.
    """
    await app(*connection)
    if cycle.response_started and not cycle.response_complete:
        cycle.disconnected = True
        cycle.transport.close()


def _answer(status: int, detail: str) -> bytes:
    body = json.dumps({"detail": detail}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **NEVER_STORED,
        **safe_headers(),
    }
    if status == UnavailableError.status:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode() + body
