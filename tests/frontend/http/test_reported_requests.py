"""Guards: requests of which public reports say that servers like this one answer them wrongly."""

from __future__ import annotations

import asyncio
import codecs
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.bad_masks import mask_request
from tests.fakes.mask_model import MASK
from tests.fakes.pictures import b64
from tests.fakes.web_client import edit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import WebClient
    from tests.frontend.conftest import Serve

JSON = {"Content-Type": "application/json"}


def sent_edit(triton: FakeTriton) -> dict[str, Any]:
    """Return the inputs of the only edit that has reached the model."""
    (inputs,) = triton.requests.values()
    return inputs


# fastapi/fastapi#4990, eneo-ai/eneo#871, wri/project-zeno#333: a slash, and https is lost
async def test_a_trailing_slash_leads_to_the_same_scheme_and_host(serve: Serve) -> None:
    headers = {"Host": "api.example", "X-Forwarded-Proto": "https"}
    async with serve(allowed_hosts=("api.example",)) as client:
        for path in ("/api/generate/async", "/api/smart-mask"):
            answer = await client.http.post(f"{path}/", json=edit(), headers=headers)
            assert answer.status_code == 307
            # Relative, because Host may be anybody's.
            assert answer.headers["location"] == path


# OCA/rest-framework#194, mindroom-ai/mindroom#1257: bodies of other encodings
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
async def test_json_may_have_any_of_its_encodings(
    client: WebClient, triton: FakeTriton, encoding: str
) -> None:
    body = json.dumps(edit(prompt="xóa vật thể 🪑"), ensure_ascii=False).encode(encoding)
    answer = await client.http.post("/api/generate/async", content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    async for _ in client.events(answer.json()["task_id"]):
        pass
    assert sent_edit(triton)["PROMPT"] == ["xóa vật thể 🪑".encode()]


async def test_a_mark_in_front_of_nothing_is_refused(client: WebClient) -> None:
    answer = await client.http.post("/api/smart-mask", content=codecs.BOM_UTF8, headers=JSON)
    assert answer.status_code == 400


# The last of two equal keys counts, and it is the one that is checked.
@pytest.mark.parametrize(("first", "last", "status"), [(-1, 5, 200), (5, -1, 400)])
async def test_of_equal_keys_the_last_counts(
    client: WebClient, triton: FakeTriton, first: int, last: int, status: int
) -> None:
    rest = json.dumps(edit())[1:]
    body = f'{{"seed": {first}, {rest.removesuffix("}")}, "seed": {last}}}'
    answer = await client.http.post("/api/generate/async", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    if status == 200:
        async for _ in client.events(answer.json()["task_id"]):
            pass
        assert sent_edit(triton)["SEED"] == [last]
    else:
        assert answer.json()["detail"].startswith("seed: ")


# discord/discord-api-docs#6561, justrach/codegraff#576: texts that break what reads them
@pytest.mark.parametrize(
    "text", ["a\0b", "\u202eright", "{}", "{0.__class__}", "%s%n", "🪑" * 9], ids=ascii
)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "angle", "background_preset"])
async def test_a_text_reaches_the_model_as_it_is(
    client: WebClient, triton: FakeTriton, field: str, text: str
) -> None:
    await client.finish(edit(**{field: text}))
    assert sent_edit(triton)[field.upper()] == [text.encode()]


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "angle", "background_preset"])
async def test_half_a_character_is_refused_by_name(client: WebClient, field: str) -> None:
    body = json.dumps(edit(**{field: "@"})).replace('"@"', '"\\ud800"')
    answer = await client.http.post("/api/generate/async", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{field}: ")


async def raw(client: WebClient, *parts: bytes) -> bytes:
    """Send a request as it is, and return the answer's first line."""
    url = client.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(30):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.readline()
    finally:
        writer.close()


# Kludex/uvicorn#88, sanic-org/sanic#1587: uploads
@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: abc\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 5\r\nContent-Length: 7\r\n",
    ],
    ids=str,
)
async def test_a_length_that_is_none_is_refused_at_once(client: WebClient, lines: bytes) -> None:
    head = b"POST /api/smart-mask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 400 " in await raw(client, head + lines + b"\r\n")


async def test_a_client_that_expects_100_continue_gets_it(client: WebClient) -> None:
    head = b"POST /api/smart-mask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    asked = head + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert b" 100 " in await raw(client, asked)


async def test_too_large_a_body_is_refused_before_it_comes(serve: Serve) -> None:
    async with serve(max_body_bytes=1000) as client:
        head = (
            b"POST /api/smart-mask HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Type: application/json\r\n"
        )
        assert b" 413 " in await raw(client, head + b"Content-Length: 1001\r\n\r\n")


async def test_a_body_may_come_in_crumbs(client: WebClient) -> None:
    body = json.dumps(mask_request()).encode()
    crumbs = [body[start : start + 7] for start in range(0, len(body), 7)]

    async def sent() -> AsyncIterator[bytes]:
        for crumb in crumbs:
            yield crumb

    answer = await client.http.post("/api/smart-mask", content=sent(), headers=JSON)
    assert answer.json()["mask_base64"] == b64(MASK)
