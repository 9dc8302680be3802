"""Owns the framing of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html, within what the known web client
reads: LF only, and blocks that begin with `data:` and hold one line of JSON. It skips any other
block, so the number for Last-Event-ID goes in a block of its own before its data: the standard
keeps the last `id:` it has seen.
"""

from __future__ import annotations

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    # A proxy that collects the stream would turn progress into one late lump.
    "X-Accel-Buffering": "no",
}
PING = b": ping\n\n"


def encode(seq: int, data: str) -> bytes:
    r"""Frame one event.

    Args:
        seq: its number, for Last-Event-ID.
        data: JSON without a line break.
    """
    return f"id: {seq}\n\ndata: {data}\n\n".encode()
