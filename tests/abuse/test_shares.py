"""One client that takes all it gets, beside another."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.fakes.web_client import b64, edit, scene, square_mask

from .attackers import connect
from .good_client import PHOTO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from tests.integration.server import Server

    from .good_client import GoodClient

# What the proxy on this machine says: the attacker is not the well-behaved client.
ADDRESS = {"X-Forwarded-For": "192.0.2.66"}


@contextlib.asynccontextmanager
async def stranger(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Open the attacker's client."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url, headers=ADDRESS, timeout=120, limits=limits
    ) as client:
        yield client


async def flood(
    client: httpx.AsyncClient, path: str, body: Mapping[str, Any], count: int
) -> set[int]:
    """Send a request so many times at once; return the statuses of the answers."""
    sent = (client.post(path, json=body) for _ in range(count))
    answers = await asyncio.gather(*sent)
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
            assert "one may" in answer.json()["detail"]
    return {answer.status_code for answer in answers}


@pytest.mark.slow
async def test_a_queue_full_of_one_client_s_edits(server: Server, good: GoodClient) -> None:
    async with stranger(server) as attacker, good:
        small = edit(num_inference_steps=4, width=256, height=256)
        codes = await flood(attacker, "/api/generate", small, 130)
        assert codes == {200, 429}
        before = len(good.ends)
        await good.worked_on(2)
        # They have not waited for the batch: most of it is still there.
        query = "/api/generate?status=queued&limit=100"
        left = (await attacker.get(query)).json()["tasks"]
        good.note(f"{len(left)} of the attacker's edits wait, {len(good.ends) - before} were made")
        assert len(left) > 40
        for task in left:
            await attacker.post(f"/api/generate/async/cancel/{task['task_id']}")


# A hundred whole pictures to click on take two cores for seconds, those of the attacker too.
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("clicks", marks=pytest.mark.soak),
        pytest.param("cut-outs", marks=pytest.mark.slow),
        "edits that fail",
    ],
)
async def test_pictures_without_end(server: Server, good: GoodClient, kind: str) -> None:
    photo = base64.b64encode(PHOTO.read_bytes()).decode()
    attacks: dict[str, tuple[str, dict[str, Any]]] = {
        "clicks": ("/api/smart-mask", {"image": photo, "points": [[285, 75]], "use_blur": True}),
        "cut-outs": (
            "/api/image-utils/extract-object",
            {"image": b64(scene(256)), "mask": b64(square_mask(256))},
        ),
        "edits that fail": ("/api/generate", edit(input_image=photo, conditional_images=["AAAA"])),
    }
    path, body = attacks[kind]
    async with stranger(server) as attacker, good:
        codes = set()
        for _ in range(2):
            codes |= await flood(attacker, path, body, 90)
            await good.worked_on()
        assert 429 in codes
        assert codes <= {200, 400, 429}


async def test_uploads_that_go_on_for_ever(server: Server, good: GoodClient) -> None:
    head = (
        b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"X-Forwarded-For: 192.0.2.66\r\nContent-Length: 66000000\r\n\r\n"
    )

    def upload() -> None:
        opened = stack.enter_context(connect(server))
        with contextlib.suppress(OSError):
            opened.sendall(head + b" " * 60_000_000)

    with contextlib.ExitStack() as stack:
        async with good:
            for _ in range(4):
                await asyncio.to_thread(upload)
            await good.worked_on(2)
            async with stranger(server) as attacker:
                answer = await attacker.post("/api/generate", content=b" " * 20_000_000)
                assert answer.status_code == 429
