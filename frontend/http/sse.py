"""Owns the framing of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The number for Last-Event-ID comes
behind its data, so that a connection that breaks in between repeats an event and loses none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.datastructures import Headers


class Framing(NamedTuple):
    """How a stream is written for one kind of client."""

    event: Callable[[int, str], bytes]
    """An event's number and its JSON to what goes over the wire."""
    note: Callable[[str], bytes]
    """The same for JSON that is not in the log and so has no number."""
    ping: bytes
    """What keeps an idle connection open."""


HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    # Otherwise a proxy may collect the stream, and all progress arrives at the end.
    "X-Accel-Buffering": "no",
}
_UNCACHED = ("no-cache", "no-store")


def framing(headers: Headers) -> Framing:
    """Return how to frame events for the client that sends these headers.

    The known web client parses everything behind `data:` up to the next blank line as JSON, so
    the number needs a block of its own there. Libraries that hand on each block as an event need
    number and data in one. The request shows which it is: EventSource and the usual libraries
    forbid caching, the known web client does not.

    Args:
        headers: of the request.
    """
    cache = ",".join(headers.getlist("cache-control")).lower()
    known_web_client = headers.get("accept") == "text/event-stream" and not any(
        word in cache for word in _UNCACHED
    )
    return SEPARATE_BLOCKS if known_web_client else ONE_BLOCK


def one_block(number: int, data: str) -> bytes:
    r"""Frame one event as the standard says.

    Args:
        number: for Last-Event-ID.
        data: JSON without a line break.
    """
    return f"data: {data}\nid: {number}\n\n".encode()


def separate_blocks(number: int, data: str) -> bytes:
    """Frame one event as a `data:` block and an `id:` block; see `framing`."""
    return f"data: {data}\n\nid: {number}\n\n".encode()


def note(data: str) -> bytes:
    """Frame what has no number: a client that comes back does not ask for it."""
    return f"data: {data}\n\n".encode()


def separate_note(data: str) -> bytes:
    """Do as `note` does, and show by a comment's block that no `id:` block follows."""
    return f"data: {data}\n\n: not in the log\n\n".encode()


# Without a blank line: httpx-sse takes the one behind a comment for the end of an event, once it
# has seen a number.
ONE_BLOCK = Framing(one_block, note, b": ping\n")
# With one: the known web client splits the stream at blank lines before it looks at a block.
SEPARATE_BLOCKS = Framing(separate_blocks, separate_note, b": ping\n\n")
