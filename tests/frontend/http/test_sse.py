from __future__ import annotations

import pytest

from frontend.http import sse

EVENT = '{"status":"done"}'


def test_the_number_comes_behind_its_data() -> None:
    assert sse.one_block(7, EVENT) == b'data: {"status":"done"}\nid: 7\n\n'
    assert sse.separate_blocks(7, EVENT) == b'data: {"status":"done"}\n\nid: 7\n\n'


@pytest.mark.parametrize(
    ("headers", "framed"),
    [
        ({"accept": "text/event-stream"}, sse.separate_blocks),
        ({"accept": "text/event-stream", "cache-control": "no-cache"}, sse.one_block),
        ({"accept": "text/event-stream", "cache-control": "no-store"}, sse.one_block),
        ({"accept": "text/event-stream, application/json"}, sse.one_block),
        ({"accept": "*/*"}, sse.one_block),
        ({}, sse.one_block),
    ],
)
def test_the_known_web_client_is_recognised_by_its_headers(
    headers: dict[str, str], framed: sse.Framing
) -> None:
    assert sse.framing(headers) is framed


def test_text_is_utf8() -> None:
    assert "俯视".encode() in sse.one_block(1, '"俯视"')


def test_a_ping_is_a_comment() -> None:
    assert sse.PING == b": ping\n\n"
