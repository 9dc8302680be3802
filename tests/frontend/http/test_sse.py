from __future__ import annotations

from frontend.http import sse


def test_the_number_goes_in_a_block_of_its_own() -> None:
    assert sse.encode(7, '{"status":"done"}') == b'id: 7\n\ndata: {"status":"done"}\n\n'


def test_text_is_utf8() -> None:
    assert "俯视".encode() in sse.encode(1, '"俯视"')


def test_a_ping_is_a_comment() -> None:
    assert sse.PING == b": ping\n\n"
