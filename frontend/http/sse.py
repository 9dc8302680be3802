"""Owns the framing of server-sent events.

It follows https://html.spec.whatwg.org/multipage/server-sent-events.html within what the known web
client reads: LF only, and blocks that begin with `data:` and hold one line of JSON. That client
skips any other block. So an event's number goes in a block of its own before the data: by the
standard, a reader keeps the last `id:` that it has seen.
"""

from __future__ import annotations

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    # Otherwise a proxy may collect the stream, and all progress arrives at the end.
    "X-Accel-Buffering": "no",
}
PING = b": ping\n\n"


def encode(seq: int, data: str) -> bytes:
    r"""Frame one event.

    Args:
        seq: the event's number, for Last-Event-ID.
        data: JSON without a line break.
    """
    return f"id: {seq}\n\ndata: {data}\n\n".encode()
