"""SSE end to end: each step once and in order, to every subscriber, early, late or resuming."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.fakes.web_client import TERMINAL, Json, WebClient, check_stream, edit, long_edit

if TYPE_CHECKING:
    from .server import Server

STEPS = 12


async def test_every_subscriber_sees_every_step_once_and_in_order(client: WebClient) -> None:
    task_id = await client.submit(edit(num_inference_steps=STEPS))
    early = [asyncio.create_task(client.follow(task_id)) for _ in range(5)]
    await client.wait_status(task_id, "processing", "done")
    late = [asyncio.create_task(client.follow(task_id)) for _ in range(5)]
    streams = await asyncio.gather(*early, *late)
    after_the_end = await client.follow(task_id)
    for events in [*streams, after_the_end]:
        check_stream(events, STEPS)


@pytest.mark.parametrize("position", [0, 5, -2])
async def test_a_subscriber_resumes_where_it_left(client: WebClient, position: int) -> None:
    task_id = await client.submit(edit(num_inference_steps=STEPS))
    # Without what is told between: it is of its moment.
    whole = [event for event in await client.follow(task_id) if "seq" in event]
    resumed = await client.follow(task_id, last_event_id=whole[position]["seq"])
    assert resumed == whole[position:][1:]


async def test_resuming_while_the_job_runs_loses_and_repeats_nothing(client: WebClient) -> None:
    task_id = await client.submit(edit(num_inference_steps=STEPS))
    received: list[Json] = []
    last: int | None = None
    while not received or received[-1]["status"] not in TERMINAL:
        stream = client.events(task_id, last)
        taken = 0
        async for event in stream:
            received.append(event)
            last = event.get("seq", last)  # a waiting job's place has none
            taken += 1
            if taken == 3:
                break
        await stream.aclose()
    check_stream(received, STEPS)


async def test_status_and_stream_and_result_agree(client: WebClient) -> None:
    events, result = await client.finish()
    status = await client.status(result["task_id"])
    for key in ("status", "progress", "current_step", "total_steps", "error"):
        assert status[key] == events[-1][key]
    assert result["status"] == "done"


async def test_result_before_the_end_is_a_400_with_the_known_text(client: WebClient) -> None:
    task_id = await client.submit(long_edit())
    answer = await client.http.get(f"/api/generate/result/{task_id}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Task not completed yet. Current status: ")
    await client.cancel(task_id)
    await client.wait_status(task_id, *TERMINAL)


@pytest.mark.parametrize("path", ["status", "result", "result-image", "stream"])
async def test_an_unknown_task_is_a_plain_404(client: WebClient, path: str) -> None:
    answer = await client.http.get(f"/api/generate/{path}/no-such-task")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Task no-such-task not found"}


# sysid/sse-starlette#156, #40, modelcontextprotocol/python-sdk#1437: clients that leave or stall
async def test_subscribers_that_leave_or_never_read_hurt_nobody(
    server: Server, client: WebClient
) -> None:
    task_id = await client.submit(edit(num_inference_steps=30, preview=True))
    address = urlsplit(server.url)
    request = f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    sockets = []
    for _ in range(20):
        mute = socket.create_connection((address.hostname, address.port))
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.sendall(request)
        sockets.append(mute)
    reader = asyncio.create_task(client.follow(task_id))
    for leaving in sockets[:10]:
        leaving.close()
    check_stream(await reader, 30)
    for mute in sockets[10:]:
        mute.close()
    _, result = await client.finish()
    assert result["status"] == "done"


async def test_the_queue_position_falls_and_an_eta_is_given(client: WebClient) -> None:
    tasks = [await client.submit(edit(num_inference_steps=10)) for _ in range(6)]
    last = await client.follow(tasks[-1])
    positions = [event["queue_position"] for event in last if event["status"] == "queued"]
    assert positions == sorted(positions, reverse=True)
    assert positions[0] >= 1
    for task_id in tasks:
        assert (await client.follow(task_id))[-1]["status"] == "done"


async def test_the_first_event_comes_at_once(client: WebClient) -> None:
    ahead = await client.submit(long_edit())
    task_id = await client.submit()
    async with asyncio.timeout(20), contextlib.aclosing(client.events(task_id)) as events:
        first = await anext(events)
    assert (first["task_id"], first["status"]) == (task_id, "queued")
    assert (await client.status(ahead))["status"] not in TERMINAL
    for each in (task_id, ahead):
        await client.cancel(each)
        await client.wait_status(each, *TERMINAL)
