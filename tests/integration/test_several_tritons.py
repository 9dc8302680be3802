"""One frontend before two real tritonservers, each with all models."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.fakes.web_client import WebClient, check_stream, edit, long_edit

from .server import running

if TYPE_CHECKING:
    from pathlib import Path

    from .server import Server

STEPS = 20


@pytest.mark.slow
async def test_jobs_are_shared_out_and_cancelled_where_they_run(
    server: Server, fragile_server: Server, tmp_path: Path
) -> None:
    urls = f"{server.triton_url},{fragile_server.triton_url}"
    with running(tmp_path / "log", TRITON_URL=urls) as both:
        async with WebClient(both.url) as client:
            body = edit(num_inference_steps=STEPS)
            ids = [await client.submit(body) for _ in range(2)]
            for events in await asyncio.gather(*map(client.follow, ids)):
                check_stream(events, STEPS)

            # A frontend is ready with one.
            async with asyncio.timeout(60):
                while (await client.services())["generation"]["tritons_ready"] < 2:
                    await asyncio.sleep(0.05)
            ids = [await client.submit(long_edit()) for _ in range(2)]
            # On one engine the second would not begin before the first had ended.
            await asyncio.gather(*(client.reached(task_id, step=1) for task_id in ids))
            for task_id in ids:
                await client.cancel(task_id)
                assert (await client.follow(task_id))[-1]["status"] == "cancelled"
            health = (await client.http.get("/api/system/health")).json()
            assert health["services"]["generation"]["tritons_ready"] == 2
