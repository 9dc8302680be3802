from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi import Request

from frontend.http import json_route

if TYPE_CHECKING:
    from starlette.types import Message

GOOD = [
    '{"a": [1, 2.5, -0.0, true, null, "ảnh", "\\u00e9"]}'.encode(),
    b'{"a": 1, "a": 2}',
    b"[NaN, Infinity, 1e999]",
    b"123456789012345678901234567890",
]
ODD = [b'"\\ud800"', b"{", b"[1,]", b'{"a": 1} x', b"\xff", b"[" * 5_000 + b"]" * 5_000]


async def parsed(kind: type[Request], body: bytes) -> str:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        return repr(await kind({"type": "http"}, receive).json())
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("body", [*GOOD, *ODD], ids=lambda body: str(body[:12]))
async def test_a_body_means_what_the_standard_parser_makes_of_it(body: bytes) -> None:
    assert await parsed(json_route._Request, body) == await parsed(Request, body)


@pytest.mark.parametrize("body", GOOD, ids=lambda body: str(body[:12]))
async def test_the_standard_parser_is_asked_only_about_what_is_odd(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Request, "json", lambda _: pytest.fail("slow"))
    await parsed(json_route._Request, body)
