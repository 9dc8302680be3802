"""Attacks before any request: heads, idle connections, answers that nobody reads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.fakes.web_client import WebClient, edit
from tests.integration.server import PATIENCE, launched

from .attackers import connect, crowd, is_open, pour
from .good_client import GoodClient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.server import Server

MB = 10**6
# Of the frontend's memory that one connection may cost.
PER_READER = 256 * 1024
# All that a client may fetch of a job.
RESULTS = [
    *("/api/generate/result/{}", "/api/generate/result-image/{}"),
    *("/api/visualization/{}/original", "/api/visualization/{}/generated"),
    "/api/visualization/{}/download",
]
HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


def noise(side: int) -> str:
    """Return a picture that no compression makes smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return base64.b64encode(buffer.getvalue()).decode()


async def large_result(server: Server, side: int, pictures: int) -> tuple[str, int]:
    """Have a job done whose result is large; return its id and the result's bytes."""
    async with WebClient(server.url) as client:
        request = edit(num_inference_steps=1, width=256, height=256, input_image=noise(side))
        request["conditional_images"] += [noise(side)] * pictures
        task_id = await client.submit(request)
        assert (await client.follow(task_id))[-1]["status"] == "done"
        answer = await client.http.get(f"/api/generate/result/{task_id}")
        return task_id, len(answer.content)


async def unread(server: Server, good: GoodClient, side: int, pictures: int, readers: int) -> None:
    task_id, size = await large_result(server, side, pictures)
    requests = [
        f"GET {path.format(task_id)} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in RESULTS
    ]
    async with good:
        before = good.rss()
        async with contextlib.AsyncExitStack() as stack:
            for request in requests:
                crowded = crowd(server, readers, request.encode(), receive_bytes=4096)
                await stack.enter_async_context(crowded)
            await good.worked_on(2)
            grown = good.rss() - before
            count = readers * len(requests)
            good.note(f"{count} unread, the JSON of {size / MB:.0f} MB: +{grown / MB:.0f} MB")
            # What the good client's own edits and clicks take comes on top.
            assert grown < count * PER_READER + 20 * MB
        await good.memory_is_back(before)


@pytest.mark.slow
async def test_results_that_nobody_reads(server: Server, good: GoodClient) -> None:
    await unread(server, good, side=1024, pictures=3, readers=16)


@pytest.mark.soak
async def test_many_large_results_that_nobody_reads(server: Server, good: GoodClient) -> None:
    await unread(server, good, side=2048, pictures=3, readers=50)


@pytest.mark.parametrize("filling", [b"a" * 1024, b"a: b\r\n"], ids=["one header", "many headers"])
@pytest.mark.parametrize("most", [8 * MB, pytest.param(160 * MB, marks=pytest.mark.soak)])
async def test_a_head_without_end(
    server: Server, good: GoodClient, filling: bytes, most: int
) -> None:
    async with good:
        before = good.rss()
        beginning = HEAD + (b"X: " if b":" not in filling else b"")
        taken = await asyncio.to_thread(pour, server, beginning, filling, most)
        good.note(f"taken: {taken / MB:.1f} MB, RSS +{(good.rss() - before) / MB:.0f} MB")
        # Beyond the bound, what lay in the kernel's buffers and what lingers for a second.
        await good.worked_on()
        assert taken < most
        await good.memory_is_back(before)


async def test_requests_without_end_ahead_of_their_answers(
    server: Server, good: GoodClient
) -> None:
    async with good:
        before = good.rss()
        async with crowd(server, 100, (HEAD + b"\r\n") * 5000):
            await good.worked_on()
            await good.memory_is_back(before)


@pytest.mark.slow
async def test_more_idle_connections_than_open_files(tmp_path: Path) -> None:
    with launched(tmp_path / "log", PATIENCE, open_files=300) as server:
        async with (
            GoodClient(server) as good,
            crowd(server, 200) as silent,
            crowd(server, 200, HEAD) as half,
        ):
            await good.worked_on(2)
            async with asyncio.timeout(60):
                while any(map(is_open, silent + half)):
                    await asyncio.sleep(0.2)
        # Its watch over Triton has survived: what is killed comes back.
        os.kill(server.tritonserver().pid, signal.SIGKILL)
        await asyncio.to_thread(server.wait_ready)


async def test_more_event_streams_than_connections(server: Server, good: GoodClient) -> None:
    async with WebClient(server.url) as client, good:
        task_id = await client.submit(edit(num_inference_steps=100, width=256, height=256))
        request = f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        async with crowd(server, 1500, request):
            await client.cancel(task_id)
            await good.worked_on()


@pytest.mark.slow
async def test_a_frontend_that_stands_still_costs_nobody_an_edit(tmp_path: Path) -> None:
    # With the times that it is shipped with: it stands still for longer.
    with launched(tmp_path / "log", {}) as server:
        async with WebClient(server.url) as client:
            task_id = await client.submit(edit(num_inference_steps=40, width=256, height=256))
            await client.reached(task_id, 2)
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(5)
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert (await client.follow(task_id))[-1]["status"] == "done"


async def test_a_client_that_sends_nothing_is_let_go(server: Server) -> None:
    with connect(server) as silent:
        async with asyncio.timeout(60):
            while is_open(silent):
                await asyncio.sleep(0.2)
