from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from frontend.http import sse

EVENT = '{"status":"done"}'


def test_the_number_comes_behind_its_data() -> None:
    assert sse.one_block(7, EVENT) == b'data: {"status":"done"}\nid: 7\n\n'
    assert sse.separate_blocks(7, EVENT) == b'data: {"status":"done"}\n\nid: 7\n\n'


@pytest.mark.parametrize(
    ("headers", "framed"),
    [
        ({"accept": "text/event-stream"}, sse.SEPARATE_BLOCKS),
        ({"accept": "text/event-stream", "cache-control": "no-cache"}, sse.ONE_BLOCK),
        ({"accept": "text/event-stream", "cache-control": "no-store"}, sse.ONE_BLOCK),
        ({"accept": "text/event-stream", "cache-control": "max-age=0, No-Cache"}, sse.ONE_BLOCK),
        ({"accept": "text/event-stream, application/json"}, sse.ONE_BLOCK),
        ({"accept": "*/*"}, sse.ONE_BLOCK),
        ({}, sse.ONE_BLOCK),
    ],
)
def test_the_known_web_client_is_recognised_by_its_headers(
    headers: dict[str, str], framed: sse.Framing
) -> None:
    assert sse.framing(Headers(headers)) is framed


def test_a_header_of_several_lines_is_read_whole() -> None:
    lines = [("accept", "text/event-stream"), ("cache-control", "a"), ("cache-control", "no-cache")]
    raw = [(name.encode(), value.encode()) for name, value in lines]
    assert sse.framing(Headers(raw=raw)) is sse.ONE_BLOCK


def test_text_is_utf8() -> None:
    assert "俯视".encode() in sse.one_block(1, '"俯视"')


def test_a_ping_is_a_comment() -> None:
    assert sse.ONE_BLOCK.ping == b": ping\n"
    assert sse.SEPARATE_BLOCKS.ping == b": ping\n\n"
