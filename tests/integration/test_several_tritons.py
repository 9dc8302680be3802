"""One frontend before two real tritonservers, each with all models."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .server import running
from .web_client import WebClient, check_stream, edit

if TYPE_CHECKING:
    from pathlib import Path

    from .server import Server
    from .web_client import Json

STEPS = 20


async def test_jobs_are_shared_out_and_cancelled_where_they_run(
    server: Server, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(running(tmp_path / "other.log"))
        urls = f"{server.triton_url},{other.triton_url}"
        both = stack.enter_context(running(tmp_path / "both.log", TRITON_URL=urls))
        async with WebClient(both.url) as client:

            async def follow(task_id: str) -> tuple[list[Json], float, float]:
                """Its events, and when the first step and the end came."""
                events, first = [], 0.0
                async for event in client.events(task_id):
                    events.append(event)
                    if event["current_step"] and not first:
                        first = asyncio.get_running_loop().time()
                return events, first, asyncio.get_running_loop().time()

            body = edit(num_inference_steps=STEPS)
            ids = [await client.submit(body) for _ in range(2)]
            followed = await asyncio.gather(*map(follow, ids))
            for events, _, _ in followed:
                check_stream(events, STEPS)
            # On one engine the second would not begin before the first had ended.
            assert max(first for _, first, _ in followed) < min(end for _, _, end in followed)

            ids = [await client.submit(edit(num_inference_steps=100)) for _ in range(2)]
            for task_id in ids:
                await client.wait_status(task_id, "processing")
            for task_id in ids:
                await client.cancel(task_id)
                assert (await client.follow(task_id))[-1]["status"] == "cancelled"
            health = (await client.http.get("/api/system/health")).json()
            assert health["services"]["generation"]["tritons_ready"] == 2
