"""Cancel end to end, at every moment of a job's life."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.fakes.web_client import TERMINAL, WebClient, cancel_and_listen, edit, long_edit


async def test_cancelling_a_queued_job_means_it_never_starts(client: WebClient) -> None:
    running = [await client.submit(long_edit()) for _ in range(4)]
    queued = await client.submit()
    answer = await client.cancel(queued)
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": f"Async generation task {queued} marked for cancellation",
        "task_id": queued,
        "status": "queued",
    }
    events = await client.follow(queued)
    assert [event["status"] for event in events if event["status"] != "queued"] == ["cancelled"]
    for task_id in running:
        await client.cancel(task_id)
        assert (await client.follow(task_id))[-1]["status"] == "cancelled"


async def test_cancelling_a_running_job_stops_it_before_its_next_step(client: WebClient) -> None:
    task_id = await client.submit(long_edit())
    seen = 0
    async for event in client.events(task_id):
        if event["stage"] == "denoising" and not seen:
            seen = event["current_step"]
            assert (await client.cancel(task_id)).status_code == 200
    assert event["status"] == "cancelled"
    assert event["progress"] < 1
    assert event["current_step"] < 60
    result = await client.http.get(f"/api/generate/result/{task_id}")
    assert result.status_code == 400
    assert result.json() == {
        "detail": "Task not completed yet. Current status: cancelled."
        " It has ended and will never complete",
        "status": "cancelled",
        "ended": True,
    }


async def test_cancelling_while_conditioning_and_encoding(client: WebClient) -> None:
    for stage in ("conditioning", "encoding"):
        task_id = await client.submit(long_edit())
        async for event in client.events(task_id):
            if event["stage"] == stage:
                await client.cancel(task_id)
        assert event["status"] == "cancelled"


async def test_cancelling_at_the_last_step_ends_in_one_state_only(client: WebClient) -> None:
    task_id = await client.submit(edit(num_inference_steps=4))
    async for event in client.events(task_id):
        if event["current_step"] == 4 and event["status"] == "processing":
            await client.cancel(task_id)
    assert event["status"] in ("done", "cancelled")
    assert (await client.status(task_id))["status"] == event["status"]


async def test_cancelling_twice_and_after_the_end_changes_nothing(client: WebClient) -> None:
    task_id = await client.submit(long_edit())
    answers = await asyncio.gather(*(client.cancel(task_id) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert (await client.follow(task_id))[-1]["status"] == "cancelled"
    assert (await client.cancel(task_id)).status_code == 200

    _, result = await client.finish()
    assert (await client.cancel(result["task_id"])).status_code == 200
    assert (await client.status(result["task_id"]))["status"] == "done"
    again = await client.http.get(f"/api/generate/result/{result['task_id']}")
    assert again.json()["image"] == result["image"]


async def test_cancelling_an_unknown_task_is_a_404(client: WebClient) -> None:
    answer = await client.cancel("no-such-task")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Task no-such-task not found"}


async def test_the_cancel_is_answered_before_the_stream_closes(client: WebClient) -> None:
    # Neither ends by itself: then the stream would close without any cancel.
    for request in (edit(num_inference_steps=100), long_edit()):
        task_id = await client.submit(request)
        url = str(client.http.base_url)
        answer, events = await asyncio.to_thread(cancel_and_listen, url, task_id)
        assert answer.startswith("HTTP/1.1 200 ")
        assert '"status":"cancelled"' in events


async def test_random_cancels_from_many_clients_leave_one_end_each(client: WebClient) -> None:
    rng = random.Random(5)
    ends: Counter[str] = Counter()

    async def one_client() -> None:
        for _ in range(5):
            task_id = await client.submit()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.5)
                await client.cancel(task_id)
            events = await client.follow(task_id)
            assert sum(event["status"] in TERMINAL for event in events) == 1
            ends[events[-1]["status"]] += 1

    await asyncio.gather(*(one_client() for _ in range(12)))
    assert ends["error"] == 0
    assert ends.total() == 60
    assert ends["cancelled"] > 0
    assert ends["done"] > 0
