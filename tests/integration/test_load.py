"""Many jobs at once: nothing is lost, and slots and memory return to where they were."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes.web_client import TERMINAL, WebClient, b64, edit, png

from . import mask_scenes

if TYPE_CHECKING:
    from .server import Server


async def idle(client: WebClient) -> None:
    """Wait until no job waits or runs; a stream may outlast its job's last event a little."""
    async with asyncio.timeout(30):
        while True:
            body = (await client.http.get("/api/system/health")).json()
            jobs = body["services"]["job_manager"]
            if (jobs["waiting"], jobs["running"]) == (0, 0):
                return
            await asyncio.sleep(0.02)


async def submit_patiently(client: WebClient) -> str:
    """Submit, and wait as Retry-After says while the queue is full."""
    while True:
        request = edit(num_inference_steps=random.choice((1, 2)))
        answer = await client.http.post("/api/generate/async", json=request)
        if answer.status_code == 200:
            return str(answer.json()["task_id"])
        assert answer.status_code == 503
        await asyncio.sleep(int(answer.headers["retry-after"]) / 4)


@pytest.mark.slow
async def test_fifty_jobs_at_once_all_end_in_a_picture(server: Server, client: WebClient) -> None:
    await client.finish()

    async def one() -> str:
        task_id = await submit_patiently(client)
        events = await client.follow(task_id)
        result = await client.http.get(f"/api/generate/result/{task_id}")
        assert result.status_code == 200
        return str(events[-1]["status"])

    assert Counter(await asyncio.gather(*(one() for _ in range(50)))) == {"done": 50}
    await idle(client)
    before = server.resident()
    assert Counter(await asyncio.gather(*(one() for _ in range(50)))) == {"done": 50}
    await idle(client)
    assert server.resident() - before < 64 * 2**20


async def test_a_client_with_all_the_jobs_that_one_may_have_is_a_429(client: WebClient) -> None:
    big = edit(num_inference_steps=100)
    answers = await asyncio.gather(
        *(client.http.post("/api/generate/async", json=big) for _ in range(150))
    )
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
    taken = [answer.json()["task_id"] for answer in answers if answer.status_code == 200]
    await asyncio.gather(*(client.cancel(task_id) for task_id in taken))
    for task_id in taken:
        await client.wait_status(task_id, *TERMINAL)
    await idle(client)


@pytest.mark.slow
async def test_a_large_picture_does_not_stop_the_event_loop(client: WebClient) -> None:
    # Little to send, much to decode, and a small edit, since the engine is shared.
    large = b64(png(np.full((4000, 4000, 3), 255, np.uint8)))
    request = edit(input_image=large, conditional_images=[large], width=256, height=256)

    async def pings_meanwhile() -> int:
        submits = [asyncio.create_task(client.submit(request)) for _ in range(3)]
        pings = 0
        while not all(task.done() for task in submits):
            await client.http.get("/ping")
            pings += 1
        for task in submits:
            await client.cancel(await task)
            await client.wait_status(await task, *TERMINAL)
        return pings

    # A client that is held up itself counts few, too.
    assert max([await pings_meanwhile() for _ in range(3)]) > 20


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_two_thousand_jobs_with_a_thousand_random_cancels(server: Server) -> None:
    rng = random.Random(1)
    cancels = [True] * 1000 + [False] * 1000
    rng.shuffle(cancels)
    ends: Counter[str] = Counter()

    async def one_client() -> None:
        async with WebClient(server.url) as client:
            while cancels:
                cancel = cancels.pop()
                task_id = await submit_patiently(client)
                if cancel:
                    await asyncio.sleep(rng.random() * rng.choice((0.05, 0.5, 5)))
                    assert (await client.cancel(task_id)).status_code == 200
                events = await client.follow(task_id)
                assert sum(event["status"] in TERMINAL for event in events) == 1
                ends[events[-1]["status"]] += 1

    triton = server.tritonserver().pid
    await asyncio.gather(*(one_client() for _ in range(40)))
    assert ends.total() == 2000
    assert ends["error"] == 0, ends
    assert server.tritonserver().pid == triton
    async with WebClient(server.url) as client:
        await idle(client)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_five_thousand_masks_with_a_thousand_random_cancels(server: Server) -> None:
    rng = random.Random(2)
    drawn = mask_scenes.scene(1, 256)
    turns = [turn % 4 == 0 for turn in range(4000)]  # whether it is cancelled
    rng.shuffle(turns)
    ends: Counter[str] = Counter()

    async def one_client() -> None:
        async with WebClient(server.url) as client:
            while turns:
                cancel = turns.pop()
                name = f"soak-{len(turns)}"
                # One in ten is a picture that the server has not seen.
                image = drawn.png + (name.encode() if len(turns) % 10 == 0 else b"")
                request = {"image": b64(image), "points": [drawn.middle], "request_id": name}
                post = asyncio.create_task(client.http.post("/api/smart-mask", json=request))
                if cancel:
                    await asyncio.sleep(rng.random() * rng.choice((0.02, 0.5)))
                    answer = await client.http.post(f"/api/smart-mask/cancel/{name}")
                    assert answer.status_code == 200
                answer = await post
                ends[str(answer.status_code)] += 1
                if answer.status_code == 400:
                    detail = answer.json()["detail"]
                    assert detail == f"Segmentation request {name} was cancelled"

    triton = server.tritonserver().pid
    await asyncio.gather(*(one_client() for _ in range(40)))
    before = server.resident()
    turns = [turn % 4 == 0 for turn in range(1000)]
    await asyncio.gather(*(one_client() for _ in range(40)))
    assert set(ends) == {"200", "400"}, ends
    assert ends.total() == 5000
    assert ends["400"] > 200
    assert server.tritonserver().pid == triton
    assert server.resident() - before < 128 * 2**20
    async with WebClient(server.url) as client:
        health = (await client.http.get("/api/system/health")).json()["services"]["segmentation"]
        assert (health["waiting"], health["running"]) == (0, 0)
